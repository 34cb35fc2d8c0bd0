"""Validation that generates: what it writes and logs, and that training goes on as without it."""

from __future__ import annotations

import csv
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hftrainer.config import ConfigError, load_experiment
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.training.callbacks.cadence import Cadence, Timer
from hftrainer.training.callbacks.ranks import gather, share
from hftrainer.training.callbacks.t2m_evaluation import T2MEvaluationCallback
from hftrainer.training.fit import fit
from tests.conftest import REPOSITORY
from tests.tiny import make_tiny_bundle, tiny_evaluator, tiny_text_encoder

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
        rows += list(csv.DictReader(path.read_text().splitlines()))
    return rows


def inference(**settings):
    values = ", ".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())
    return f"{{name: t2m_inference, prompts: {json.dumps(PROMPTS)}, {values}}}"


def judged_by(places, repeats):
    evaluator = f"{{name: motionstreamer272, path: '{places / 'evaluator'}'}}"
    return f"{{name: t2m_evaluation, evaluator: {evaluator}, root: '{places / 'data'}', repeats: {repeats}}}"


@pytest.fixture(scope="module")
def run(places):
    """One run with both callbacks and an average of the weights."""
    judge = judged_by(places, repeats=2)
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
        assert (folder / "index.html").read_text().count("someone stands still") == 2
    last = [np.load(run / "samples" / f"step-0000000{step}" / "someone-stands-still_s0.npy") for step in (4, 8)]
    assert not np.array_equal(*last)  # the model learned between


def test_metrics_are_logged_beside_those_of_real_clips(run):
    rows = [row for row in rows_of(run) if row.get("val/FID")]
    assert len(rows) == 2
    for name in ("FID", "FID-unit", "R@1", "R@3", "MM-Dist", "Diversity", "Slide", "Jitter", "Dynamic"):
        assert np.isfinite(float(rows[-1][f"val/{name}"]))
    for name in ("R@1", "MM-Dist", "Diversity", "Slide"):
        assert float(rows[0][f"val/real/{name}"]) == float(rows[1][f"val/real/{name}"])
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
    judge = judged_by(places, repeats=1)
    made = fit(experiment(places, places / "fid", f"callbacks=[{judge}, {{name: artifact, monitor: val/fid}}]"))
    assert "val/FID" in json.loads((made / "best.json").read_text())["metrics"]


def test_a_failing_prompt_does_not_end_the_run(places, monkeypatch, caplog):
    whole = MotionMillionPipeline.generate_rows

    def failing(self, rows, **settings):
        if any("stands" in text for text, _ in rows):
            raise RuntimeError("this prompt is cursed")
        return whole(self, rows, **settings)

    monkeypatch.setattr(MotionMillionPipeline, "generate_rows", failing)
    with caplog.at_level(logging.WARNING):
        made = fit(experiment(places, places / "failing", f"callbacks=[{inference(every=2, formats=['npy'])}]",
                              "trainer.val_every_n_steps=2"))  # fmt: skip
    assert "'someone stands still' failed: this prompt is cursed" in caplog.text
    assert sorted(str(p.relative_to(made / "samples")) for p in made.glob("samples/*/*")) == [
        f"step-0000000{step}/a-person-walks-forward_s0.npy"
        for step in (2, 6, 8)  # every second, and the last
    ]
    assert float([row for row in rows_of(made) if row.get("val/prompts_failed")][-1]["val/prompts_failed"]) == 0.5


def test_a_mistake_in_a_program_is_no_failed_prompt(places, monkeypatch):
    monkeypatch.setattr(MotionMillionPipeline, "count_tokens", lambda self, captions: captions.no_such_thing)
    with pytest.raises(AttributeError, match="no_such_thing"):
        fit(experiment(places, places / "mistake", f"callbacks=[{inference()}]", "trainer.max_steps=4"))


def test_the_evaluator_is_chosen_by_name(places):
    config = T2MEvaluationCallback.Config
    with pytest.raises(ConfigError, match=r"there is no evaluator called 'motionstreamer'\. Did you mean"):
        config({"name": "motionstreamer", "path": "x"}, "data")
    with pytest.raises(ConfigError, match="evaluator has unknown keys"):
        config({"folder": "x", "path": "y"}, "data")
    with pytest.raises(ConfigError, match="evaluator must be"):
        config({"name": "motionstreamer272"}, "data")
    chosen = config({"name": "humanml263", "path": str(places / "evaluator")}, str(places / "data"))
    with pytest.raises(ValueError, match="evaluator"):
        T2MEvaluationCallback(chosen)


def test_wrong_settings_are_refused_before_training(places):
    for bad, message in (
        (inference(every=0), "at least 1"),
        (inference(temperature=0), "temperature must be between"),
        (inference(formats=["fbx"]), "unknown formats"),
        (inference(prompts_file="nowhere.txt"), "there is no file"),
    ):
        with pytest.raises((ConfigError, ValueError), match=message):
            fit(experiment(places, places / "bad", f"callbacks=[{bad}]"))
    with pytest.raises(ValueError, match="nowhere"):
        T2MEvaluationCallback(T2MEvaluationCallback.Config(evaluator="./nowhere", root=str(places / "data")))


def test_a_failing_caption_is_left_out_and_counted(places, monkeypatch, caplog):
    whole = MotionMillionPipeline.infer_t2m

    def failing(self, captions, *others, **settings):
        if any("squat" in text for text in captions):
            raise RuntimeError("this caption is cursed")
        return whole(self, captions, *others, **settings)

    monkeypatch.setattr(MotionMillionPipeline, "infer_t2m", failing)
    config = T2MEvaluationCallback.Config(
        {"path": str(places / "evaluator")}, str(places / "data"), split="train", repeats=1
    )
    callback = T2MEvaluationCallback(config)
    trainer = SimpleNamespace(global_rank=0, world_size=1)
    bundle = make_tiny_bundle()
    with caplog.at_level(logging.WARNING):
        motions = callback._generate(trainer, bundle)
    cursed = ["squat" in caption for caption in callback.captions]
    assert any(cursed)
    assert all(motions[i] is None for i, bad in enumerate(cursed) if bad)
    assert sum(motion is not None for motion in motions) >= 4
    values = callback._measure_or_not(motions, "motion272")
    assert values["val/failed"] >= sum(cursed) / len(cursed) - 1e-9
    assert all(np.isfinite(value) for name, value in values.items())
    assert values["val/real/FID"] > 0
    monkeypatch.undo()
    alone = callback._generate(trainer, bundle)
    for before, after in zip(motions, alone, strict=True):  # what failed changed nothing else
        assert before is None or np.allclose(before, after, atol=1e-5)  # batches of other sizes round otherwise


def test_an_evaluation_that_fails_is_not_the_end(places, monkeypatch, caplog):
    callback = T2MEvaluationCallback(
        T2MEvaluationCallback.Config({"path": str(places / "evaluator")}, str(places / "data"))
    )
    monkeypatch.setattr(callback.evaluator, "encode_motions", lambda *_: 1 / 0)
    with caplog.at_level(logging.WARNING):
        values = callback._measure_or_not(list(callback.real), "motion272")
    assert "the evaluation failed" in caplog.text
    assert np.isnan(values["val/FID"])
    assert np.isnan(values["val/real/R@3"])
    assert callback._measure_or_not([None] * len(callback.real), "motion272")["val/failed"] == 1


def test_shares_of_ranks_are_everything_once():
    shares = [share(SimpleNamespace(global_rank=rank, world_size=3), 8) for rank in range(3)]
    assert sorted(i for part in shares for i in part) == list(range(8))
    assert list(gather(SimpleNamespace(world_size=1), {2: "b", 0: "a"})) == [0, 2]


def at(step, last=1000, epochs=0.0):
    return SimpleNamespace(global_step=step, max_steps=last, datamodule=SimpleNamespace(epochs=epochs))


def test_cadence_and_share_of_time():
    cadence = Cadence(3)
    assert [cadence.due(at(i)) for i in range(7)] == [True, False, False, True, False, False, True]
    assert cadence.due(at(1000))  # the last
    steps = Cadence(1000, "steps")
    assert [steps.due(at(s, 9000)) for s in (400, 800, 1200, 1600, 2000, 2400)] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    resumed = Cadence(1000, "steps")
    resumed.load_state_dict(steps.state_dict())
    assert [resumed.due(at(s, 9000)) for s in (2800, 3200)] == [False, True]
    epochs = Cadence(2, "epochs")
    assert [epochs.due(at(1, epochs=e)) for e in (0.5, 1.5, 2.5, 3.5, 4.1)] == [True, False, True, False, True]
    with pytest.raises(ConfigError, match="unit must be one of"):
        Cadence(1, "days")
    timer = Timer()
    with timer.within():
        sum(range(10_000))
    assert 0 < timer.share() <= 1


def test_the_last_step_is_validated_and_reconstructions_are_shown(places):
    run = places / "tokenizer"
    config = REPOSITORY / "configs" / "gotozero" / "debug_tokenizer.yaml"
    settings = ["callbacks=[{name: reconstruction, clips: 2}, {name: artifact}]", "trainer.max_steps=6"]
    fit(load_experiment(config, [f"output_dir={run}", f"data.root={places / 'data'}", *SETTINGS, *settings]))
    rows = [row for row in rows_of(run) if row.get("val/mpjpe_mm")]
    assert [int(row["step"]) for row in rows] == [3, 5]
    assert all(float(row["val/codes_active"]) > 0 for row in rows)
    assert json.loads((run / "best.json").read_text())["step"] in (4, 6)
    page = (run / "samples" / "step-00000006" / "reconstructions.html").read_text()
    assert page.count(": original") == page.count(": reconstruction") == 2
