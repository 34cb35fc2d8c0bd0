"""What is logged of a run beside its losses, against what is known of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.training.fit import fit
from tests.training.runs import experiment, rows_of
from tests.training.test_tasks import ar_task


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic) -> Path:
    """Six steps of two batches of four windows, a row every second step, steps 2 to 3 traced."""
    folder = tmp_path_factory.mktemp("speed") / "run"
    return fit(
        experiment(
            folder, synthetic, "trainer.max_steps=6", "trainer.log_every_n_steps=2", "data.batch_size=4",
            "trainer.accumulate_grad_batches=2", "trainer.profiler=torch", "trainer.profile_steps=[2,3]",
            "task.optimizer.schedule={name: linear, warmup: 0}", "task.optimizer.lr=0.006", "data.short_clips=skip",
            "trainer.progress_bar=true",
        )
    )  # fmt: skip


def test_rows_say_how_fast_and_how_far(run, synthetic):
    rows = [row for row in rows_of(run) if row.get("train/loss")]
    assert [int(row["step"]) for row in rows] == [1, 3, 5]
    # the rate of the step that was taken: after 1, 3 and 5 of 6 steps of a line from 0.006 to 0
    assert [float(row["train/lr"]) for row in rows] == pytest.approx([0.005, 0.003, 0.001], rel=1e-5)
    assert [float(row["progress/samples"]) for row in rows] == [16, 32, 48]
    clips = len((synthetic / "split" / "train.txt").read_text().split())
    assert float(rows[-1]["progress/epochs"]) == pytest.approx(48 / (clips // 4 * 4), rel=0.15)
    for row in rows:
        seconds = float(row["speed/step_seconds"])
        assert float(row["speed/motions_per_second"]) == pytest.approx(8 / seconds, rel=1e-3)
        assert float(row["speed/tokens_per_second"]) == pytest.approx(8 * 32 / seconds, rel=1e-3)  # frames
        assert 0 <= float(row["speed/data_wait"]) < 1
        assert 0.05 < float(row["memory/peak_gb"]) < 50
        assert "speed/mfu" not in row or not row["speed/mfu"]  # not known of a CPU
    assert "epoch" not in rows[0]


def test_the_steps_that_were_asked_for_are_traced(run):
    trace = json.loads((run / "trace" / "steps-2-3.json").read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::convolution" in names
    assert "aten::convolution" in (run / "trace" / "steps-2-3.txt").read_text()


def test_losses_are_means_over_the_batches_of_a_step(monkeypatch):
    logged = {}
    task = ar_task()
    task._trainer = SimpleNamespace(
        accumulate_grad_batches=2, global_step=4, global_rank=0, log_every_n_steps=5,
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value * 10),  # stands for other processes
    )  # fmt: skip
    monkeypatch.setattr(task, "log", lambda name, value, prog_bar: logged.update({name: float(value)}))
    for index, loss in ((8, 1.0), (9, 3.0)):
        task.on_train_batch_start(None, index)
        task.log_step({"loss": torch.tensor(loss)})
    assert logged == {"train/loss": 20.0}  # the mean of both, reduced at the step that is logged
    task._trainer.global_step = 5
    task.on_train_batch_start(None, 10)
    task.log_step({"loss": torch.tensor(7.0)})
    assert logged == {"train/loss": 7.0}
