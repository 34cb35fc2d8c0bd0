"""Optimizers by name: steps against torch's own, checkpoints, and what the release's defaults fill in."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.config import ConfigError, OldSpelling, plain, typed
from hftrainer.registry import OPTIMIZERS, TASKS
from hftrainer.training.optimizers import ParameterGroup, make_optimizer, moment_bytes

AR, TOKENIZER = TASKS.get("motionmillion_ar").Config, TASKS.get("motionmillion_tokenizer").Config


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(20, 8)
        self.inner = nn.Linear(8, 12)
        self.lm_head = nn.Linear(12, 20, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(torch.tanh(self.inner(self.wte(ids))))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def made(model: nn.Module, name: str, **fields: object):
    part = OPTIMIZERS.part({"name": name, "schedule": {"name": "constant"}, **fields})
    return make_optimizer(part, [ParameterGroup(dict(model.named_parameters()))], total=50)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    ids = torch.arange(20)
    loss = nn.functional.cross_entropy(model(ids), ids.flip(0))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torchao
@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_each_learns_and_continues_from_its_state(name):
    model = net()
    optimizer, _ = made(model, name, lr=0.05)
    losses = [step(model, optimizer) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    other = copy.deepcopy(model)
    again, _ = made(other, name, lr=0.05)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [step(other, again) for _ in range(3)] == pytest.approx([step(model, optimizer) for _ in range(3)], rel=1e-5)
    assert moment_bytes(optimizer) > 0


def test_muon_moves_matrices_and_adamw_the_rest():
    model, oracle = net(), net()
    optimizer, _ = made(model, "muon", lr=0.02, weight_decay=0.1, momentum=0.9, eps=1e-6)
    rest = [p for name, p in oracle.named_parameters() if name != "inner.weight"]
    both = [
        torch.optim.Muon(
            [oracle.inner.weight], lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1, eps=1e-6),
    ]
    for _ in range(3):
        step(model, optimizer)
        ids = torch.arange(20)
        oracle.zero_grad()
        nn.functional.cross_entropy(oracle(ids), ids.flip(0)).backward()
        for one in both:
            one.step()
    for (name, got), want in zip(model.named_parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(got, want, msg=name)
    with pytest.raises(ConfigError, match="no trainable parameter is a matrix"):
        made(nn.LayerNorm(4), "muon")


def test_groups_have_their_own_rates_and_frozen_parameters_none():
    model = net()
    model.inner.requires_grad_(False)
    part = OPTIMIZERS.part({"name": "adamw", "lr": 0.1, "schedule": {"name": "linear"}})
    names = dict(model.named_parameters())
    groups = [ParameterGroup({"wte": names["wte.weight"]}), ParameterGroup({"head": names["lm_head.weight"]}, 0.5)]
    optimizer, schedule = make_optimizer(part, [*groups, ParameterGroup(dict(model.inner.named_parameters()))], 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.05]
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.09, 0.045])


def test_what_is_not_said_is_the_releases():
    config = plain(typed(TOKENIZER, {"optimizer": {"name": "adamw", "lr": 1e-3}}, path="task"))["optimizer"]
    assert config["lr"] == 1e-3
    assert config["betas"] == [0.9, 0.99]
    assert config["schedule"] == {"name": "steps", "warmup": 48_000, "milestones": [348_000], "gamma": 0.05}
    other = typed(TOKENIZER, {"optimizer": {"name": "muon", "schedule": {"name": "cosine", "warmup": 7}}}, path="task")
    assert plain(other)["optimizer"]["weight_decay"] == 0.1  # Muon's own
    assert plain(other)["optimizer"]["schedule"] == {"name": "cosine", "warmup": 7, "min_lr_ratio": 0.0}
    again = typed(TOKENIZER, plain(other), path="task")
    assert again == other


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"schedule": "constant", "warmup": 3}, {"name": "constant", "warmup": 3}),
        ({"schedule": "cosine", "final": 0.1}, {"name": "cosine", "warmup": 12_000, "min_lr_ratio": 0.1}),
        ({"schedule": "steps", "drops": [5]}, {"name": "steps", "warmup": 0, "milestones": [5], "gamma": 0.05}),
        ({"warmup": 9}, {"name": "cosine", "warmup": 9, "min_lr_ratio": 0.0}),
    ],
)
def test_the_spelling_of_an_earlier_release_is_read_and_the_new_one_said(old, new):
    with pytest.warns(OldSpelling, match=r"write task\.optimizer\.schedule: \{name: "):
        config = typed(AR, {"optimizer": old}, path="task")
    assert plain(config)["optimizer"]["schedule"] == new
    with pytest.warns(OldSpelling, match=r"task\.loss: \{name: reconstruction, \.\.\.\}"):
        typed(TOKENIZER, {"loss": {"positions": 1.0}}, path="task")
    with pytest.raises(ConfigError, match=r"unknown key 'task\.optimizer\.bettas'; did you mean 'betas'"):
        typed(AR, {"optimizer": {"name": "adamw", "bettas": [0, 0]}}, path="task")
