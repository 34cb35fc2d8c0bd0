"""What tasks do to a batch: rounding of text features, draws of dropout, means over a step; and how rows are cut."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.data.tokens.table import TokenBatch, TokenRows, TokenRules, TokenTable
from hftrainer.registry import TASKS
from tests.tiny import make_tiny_bundle


def ar_task(**fields: object):
    bundle = make_tiny_bundle()
    tokens = SimpleNamespace(codebook_size=240, check_tokenizer=lambda fingerprint: None, folder="")
    source = SimpleNamespace(tokens=tokens, statistics=None)
    return TASKS.build({"name": "motionmillion_ar", **fields}, bundle=bundle, source=source)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_text_features_are_rounded_as_they_were_when_the_release_was_trained(dtype, monkeypatch):
    task = ar_task(text_dtype=dtype)
    seen = []
    monkeypatch.setattr(task.ar, "next_token_loss", lambda rows, features, mask: seen.append(features) or (0, 0))
    batch = TokenBatch(["a person walks"], torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    task.loss(batch)
    exact = task.text_encoder(batch.captions).features
    assert not torch.equal(exact, exact.bfloat16().float())
    assert torch.equal(seen[0], exact.bfloat16().float() if dtype == "bfloat16" else exact)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_rows_is_trained_without_its_text_and_validated_with_it(share, monkeypatch):
    task = ar_task(text_dropout=share)
    monkeypatch.setattr(task, "log_step", lambda *args, **kwargs: None)
    monkeypatch.setattr(task, "log_validation", lambda *args: None)
    seen = []
    monkeypatch.setattr(task, "loss", lambda batch: seen.append(batch.captions) or (torch.zeros(()), torch.zeros(())))
    batch = TokenBatch(["a person walks"] * 400, torch.zeros(400, 3).long(), torch.full((400,), 3))
    torch.manual_seed(0)
    task.training_step(batch, 0)
    task.validation_step(batch, 0)
    trained, validated = seen
    assert set(trained) <= {"", "a person walks"}
    assert abs(trained.count("") / 400 - share) < 0.1  # four standard deviations
    assert validated == batch.captions


def test_draws_depend_on_seed_step_part_and_process():
    task = ar_task()

    def draw(step: int = 3, index: int = 0, rank: int = 0, seed: int = 7) -> float:
        task._draws_seed = seed
        task._trainer = SimpleNamespace(
            accumulate_grad_batches=2, global_step=step, global_rank=rank, strategy=None, barebones=False
        )
        task.on_train_batch_start(None, index)
        return float(torch.rand(()))

    draws = [draw(), draw(step=4), draw(index=1), draw(rank=1), draw(seed=8)]
    assert len(set(draws)) == 5
    assert draw(index=2) == draw() == draws[0]


def table(lengths: list[int]) -> TokenTable:
    offsets = np.cumsum([0, *lengths])
    return TokenTable(
        codes=np.concatenate([np.arange(n) for n in lengths]), offsets=offsets, clips=np.arange(len(lengths)),
        first_caption=np.arange(len(lengths) + 1), text=np.frombuffer(b"a" * len(lengths), np.uint8),
        text_offsets=np.arange(len(lengths) + 1), spans=None, codebook_size=40, frames_per_code=2,
    )  # fmt: skip


def test_a_dropped_code_is_the_first_or_the_last_equally_often():
    rows = TokenRows(table([20]), np.arange(1), TokenRules(drop_token=1.0))
    batch = rows.__getitems__([(0, seed) for seed in range(400)])
    assert batch.lengths.tolist() == [19] * 400
    firsts = batch.codes[:, 0]
    assert set(firsts.tolist()) == {0, 1}
    assert 150 < int((firsts == 1).sum()) < 250
    assert torch.equal(batch.codes[:, -1], firsts + 18)
    none = TokenRows(table([20]), np.arange(1), TokenRules(drop_token=0.0)).__getitems__([(0, 1)])
    assert none.codes.tolist() == [list(range(20))]


@pytest.mark.parametrize("code", [40, 41, 9999])
def test_codes_outside_the_vocabulary_are_named(code):
    wrong = table([5, 5])
    wrong.codes[7] = code
    rows = TokenRows(wrong, np.arange(2), TokenRules())
    with pytest.raises(ValueError, match=rf"its codes are in \d+\.\.{code}, the codebook has 0\.\.39; tokenize again"):
        rows[(1, 0)]
    with pytest.raises(ValueError, match="tokenize again"):
        rows.plain([1])
    rows[(0, 0)]
