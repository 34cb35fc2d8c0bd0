"""The memory that a dry run counts for a step is what torch allocates for one."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.config import ConfigError, load_experiment
from hftrainer.models.motion.motionmillion.network import LLaMAHF
from hftrainer.training.activations import step_memory
from hftrainer.training.dry_run import dry_run
from hftrainer.training.memory import card_bytes, fits
from hftrainer.training.task import BatchShape
from tests.conftest import REPOSITORY
from tests.training.test_tasks import ar_task

ROWS, CODES, TEXT = 4, 91, 30


def allocated(ar: LLaMAHF, tmp_path) -> int:
    """Bytes that torch's own profiler sees allocated at most in a forward and a backward pass."""
    rows = torch.full((ROWS, TEXT + CODES), ar.config.pad_id)
    rows[:, TEXT:] = 5
    features, mask = torch.randn(ROWS, TEXT, ar.config.clip_dim), torch.ones(ROWS, TEXT, dtype=torch.bool)
    for _ in range(2):  # the first pass allocates what stays
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
            ar.next_token_loss(rows, features, mask)[0].backward()
        ar.zero_grad(set_to_none=True)
    seen.export_chrome_trace(str(tmp_path / "trace.json"))
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    events = [event["args"] for event in trace if event.get("name") == "[memory]"]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    return max(event["Total Allocated"] for event in events) - before


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_takes_what_was_counted_within_a_tenth(checkpointing, tmp_path):
    config = dict(n_layer=4, n_head=4, n_embd=128, vocab_size=4002, clip_dim=64)
    settings = [
        *(f"model.ar.{name}={value}" for name, value in config.items()), "model.vqvae.nb_code=4096",
        f"trainer.activation_checkpointing={str(checkpointing).lower()}",
    ]  # fmt: skip
    task = ar_task()
    ar = LLaMAHF(type(task.ar.config)(**config)).train().requires_grad_(True)
    ar.checkpoint_blocks = checkpointing
    with torch.device("meta"):
        task.bundle.ar = LLaMAHF(ar.config)
    task.bundle.ar.checkpoint_blocks = checkpointing
    counted = step_memory(task, BatchShape(ROWS, codes=CODES, text=TEXT), autocast=False)
    assert counted.peak == pytest.approx(allocated(ar, tmp_path), rel=0.1), settings
    assert counted.kept < counted.peak
    assert counted.peak_without_gradients <= counted.peak
    assert all(p.is_meta for p in task.bundle.ar.parameters())  # left as it came


def test_half_and_recomputing_take_less():
    def kept(*settings: str) -> str:
        facts = dry_run(load_experiment(REPOSITORY / "configs" / "gotozero" / "ar_3b.yaml", settings)).facts
        return float(facts["  activations kept for the backward pass"].split()[0])

    single = [
        "trainer.devices=1",
        "trainer.num_nodes=1",
        "trainer.accelerator=cpu",
        "model.ar.n_layer=2",
        "trainer.strategy=single",
    ]
    exact, half = kept(*single, "trainer.precision=32-true"), kept(*single)
    assert half < 0.7 * exact
    assert kept(*single, "trainer.activation_checkpointing=true") < 0.7 * half


def test_a_card_is_large_enough_or_not():
    config = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
    assert dry_run(load_experiment(config), card="h100-80").fits is True
    big = ["model.ar.n_layer=8", "model.ar.n_embd=8192", "data.batch_size=64"]
    found = dry_run(load_experiment(config, big), card="l4-24")
    assert found.fits is False
    assert found.facts["on l4-24"] == "does not fit (24 GB)"
    assert not fits(23.5e9, card_bytes("l4-24"))
    with pytest.raises(ConfigError, match=r"unknown card 'h100'; known: .*h100-80"):
        card_bytes("h100")
