"""Validation that generates: what it writes and logs, and that training goes on as without it."""

from __future__ import annotations

import csv
import json
import logging

import numpy as np
import pytest
import torch

from hftrainer.config import ConfigError, load_experiment
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.training.callbacks.cadence import Cadence, Timer
from hftrainer.training.callbacks.t2m_evaluation import T2MEvaluationCallback
from hftrainer.training.fit import fit
from tests.conftest import REPOSITORY
from tests.tiny import tiny_evaluator, tiny_text_encoder

SETTINGS = [
    "trainer.progress_bar=false", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "trainer.max_steps=8",
    "trainer.val_every_n_steps=4", "trainer.checkpoint_every_n_steps=8",
]  # fmt: skip
PROMPTS = ["a person walks forward", "someone stands still"]


@pytest.fixture(scope="module")
def places(tmp_path_factory, synthetic):
    import shutil

    folder = tmp_path_factory.mktemp("t2m")
    tiny_text_encoder().save_pretrained(folder / "text")
    tiny_evaluator().save_pretrained(folder / "evaluator")
    shutil.copytree(synthetic, folder / "data")
    return folder


def experiment(places, run, *overrides):
    base = [f"output_dir={run}", f"data.root={places / 'data'}", f"model.text_encoder.source={places / 'text'}"]
    config = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
    return load_experiment(config, [*base, "model.ar.clip_dim=32", *SETTINGS, *overrides])


def rows_of(run):
    rows = []
    for path in sorted(run.glob("logs/version_*/metrics.csv")):
        rows += list(csv.DictReader(path.open()))
    return rows


def inference(**settings):
    values = ", ".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())
    return f"{{name: t2m_inference, prompts: {json.dumps(PROMPTS)}, {values}}}"


@pytest.fixture(scope="module")
def run(places):
    """One run with both callbacks and an average of the weights."""
    judge = f"{{name: t2m_evaluation, evaluator: '{places / 'evaluator'}', root: '{places / 'data'}', repeats: 2}}"
    looked = inference(num_motions=2, seconds=1.0)
    callbacks = f"callbacks=[{{name: artifact}}, {{name: ema, decay: 0.9}}, {looked}, {judge}]"
    return fit(experiment(places, places / "run", callbacks))


def test_validation_leaves_motions_and_a_page(run):
    for step in (4, 8):
        folder = run / "samples" / f"step-{step:08d}"
        motions = sorted(folder.glob("*.npy"))
        assert [path.stem for path in motions] == [
            f"{name}_s{seed}" for name in ("a-person-walks-forward", "someone-stands-still") for seed in (0, 1)
        ]
        assert all(np.load(path).shape == (30, 272) for path in motions)
        assert "someone-stands-still_s1" in (folder / "index.html").read_text()
    last = [np.load(run / "samples" / f"step-0000000{step}" / "someone-stands-still_s0.npy") for step in (4, 8)]
    assert not np.array_equal(*last)  # the model learned between


def test_metrics_are_logged_beside_those_of_real_clips(run):
    rows = [row for row in rows_of(run) if row.get("val/fid")]
    assert len(rows) == 2
    for name in ("fid", "fid_normalized", "r1", "r3", "matching", "diversity", "slide", "jitter", "dynamic"):
        assert np.isfinite(float(rows[-1][f"val/{name}"]))
    for name in ("r1", "matching", "diversity", "slide"):
        assert float(rows[0][f"val/real_{name}"]) == float(rows[1][f"val/real_{name}"])
    assert float(rows[-1]["val/failed"]) < 1
    assert 0 < float(rows[-1]["val/evaluation_time_share"]) < 1
    assert float(rows[-1]["val/generated_seconds"]) == pytest.approx(1.0)


def test_training_goes_on_as_without_them(places, run):
    plain = fit(experiment(places, places / "plain", "callbacks=[{name: artifact}, {name: ema, decay: 0.9}]"))
    losses = [[row["train/loss"] for row in rows_of(r) if row["train/loss"]] for r in (plain, run)]
    assert len(losses[0]) == 8
    assert losses[0] == losses[1]
    states = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for r in (plain, run)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_checkpoint_may_monitor_fid(places):
    judge = f"{{name: t2m_evaluation, evaluator: '{places / 'evaluator'}', root: '{places / 'data'}', repeats: 1}}"
    made = fit(experiment(places, places / "fid", f"callbacks=[{judge}, {{name: artifact, monitor: val/fid}}]"))
    assert "val/fid" in json.loads((made / "best.json").read_text())["metrics"]


def test_a_failing_prompt_does_not_end_the_run(places, monkeypatch, caplog):
    whole = MotionMillionPipeline.generate_rows

    def failing(self, rows, **settings):
        if any("stands" in text for text, _ in rows):
            raise RuntimeError("this prompt is cursed")
        return whole(self, rows, **settings)

    monkeypatch.setattr(MotionMillionPipeline, "generate_rows", failing)
    with caplog.at_level(logging.WARNING):
        made = fit(experiment(places, places / "failing", f"callbacks=[{inference(every=2, formats=['npy'])}]"))
    assert "'someone stands still' failed: this prompt is cursed" in caplog.text
    assert [p.name for p in made.glob("samples/*/*")] == [
        "a-person-walks-forward_s0.npy"
    ]  # of the first alone: every=2


def test_wrong_settings_are_refused_before_training(places):
    for bad, message in (
        (inference(every=0), "at least 1"),
        (inference(temperature=0), "temperature must be above 0"),
        (inference(formats=["gif"]), "unknown formats"),
        (inference(prompts_file="nowhere.txt"), "there is no file"),
    ):
        with pytest.raises((ConfigError, ValueError), match=message):
            fit(experiment(places, places / "bad", f"callbacks=[{bad}]"))
    with pytest.raises(ValueError, match="nowhere"):
        T2MEvaluationCallback(T2MEvaluationCallback.Config(evaluator="./nowhere", root=str(places / "data")))


def test_cadence_and_share_of_time():
    cadence = Cadence(3)
    assert [cadence.due() for _ in range(7)] == [True, False, False, True, False, False, True]
    timer = Timer()
    with timer.within():
        sum(range(10_000))
    assert 0 < timer.share() <= 1
