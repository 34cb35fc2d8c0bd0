"""A run is a record: what may change when it is continued, what is said of it, and that it ends once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

import lightning as L

from hftrainer.apps.train import prepared, train
from hftrainer.config import ConfigError, read_yaml
from hftrainer.files import sha256
from hftrainer.manifest import verify_manifest
from hftrainer.readers import FileError
from hftrainer.training.callbacks.artifact import ArtifactWriter, damaged
from hftrainer.training.changes import compare
from hftrainer.training.fit import check_experiment, fit
from hftrainer.training.record import RunRecord, choose_folder, run_config
from tests.training.runs import experiment, losses

CONSTANT = "task.optimizer.schedule={name: constant, warmup: 2}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, synthetic) -> Path:
    """Four steps, with a checkpoint at each second one."""
    folder = tmp_path_factory.mktemp("record")
    shutil.copytree(synthetic, folder / "data")
    short = ["trainer.max_steps=4", "trainer.checkpoint_every_n_steps=2", CONSTANT]
    return fit(experiment(folder / "run", folder / "data", *short))


def again(run: Path, *overrides: str, steps: int = 6):
    """The settings of `finished`, for more steps."""
    short = [f"trainer.max_steps={steps}", "trainer.checkpoint_every_n_steps=2", CONSTANT]
    return experiment(run, run.parent / "data", *short, *overrides)


REFUSED = [
    ("seed=5", "seed: 123 -> 5"),
    ("data.batch_size=4", "data.batch_size: 8 -> 4"),
    ("data.window=48", "data.window: 32 -> 48"),
    ("data.mirror=0.5", r"data.mirror: 0.0 -> 0.5"),
    ("task.optimizer.lr=0.01", r"task.optimizer.lr: 0.001 -> 0.01"),
    ("task.optimizer.weight_decay=0.1", r"task.optimizer.weight_decay: 0.0 -> 0.1"),
    ("task.optimizer.schedule={name: cosine}", r"task.optimizer.schedule.name: constant -> cosine"),
    ("task.loss={name: reconstruction, velocity: 1.0}", r"task.loss.velocity: 0.0 -> 1.0"),
    ("trainer.accumulate_grad_batches=2", r"trainer.accumulate_grad_batches: 1 -> 2"),
    ("trainer.gradient_clip_val=1.0", r"trainer.gradient_clip_val: None -> 1.0"),
    ("trainer.precision=bf16-mixed", r"trainer.precision: 32-true -> bf16-mixed"),
    ("callbacks=[{name: ema}]", r"callbacks.ema.decay: \(not there\) -> 0.999"),
    ("task.optimizer.name=muon", r"cannot be continued with another task.optimizer.name: adamw -> muon"),
]


@pytest.mark.parametrize(("override", "said"), REFUSED, ids=[override for override, _ in REFUSED])
def test_what_changes_the_mathematics_is_refused_with_the_list(finished, override, said):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=said) as error:
        fit(again(finished, override))
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    if "cannot be continued" not in said:
        first, *changes, last = str(error.value).splitlines()  # one a line
        assert first.endswith("other settings than these:")
        assert all(change.startswith("  ") for change in changes)
        assert "resume.allow=[" in last


@pytest.mark.parametrize(
    "override",
    ["trainer.log_every_n_steps=3", "num_workers=1", "trainer.checkpoint_every_n_steps=1", "data.val_batch_size=3",
     "loggers=[{name: tensorboard}]", "trainer.on_nan=skip"],
)  # fmt: skip
def test_what_does_not_is_listed(finished, override):
    changed = compare(run_config(finished), check_experiment(again(finished, override, steps=4)), 1, 1)
    assert changed
    assert {change.kind for change in changed} == {"free"}


def test_the_rows_of_a_step_may_be_made_up_in_another_way(finished):
    now = check_experiment(again(finished, "trainer.accumulate_grad_batches=2", steps=4))
    assert {change.kind for change in compare(run_config(finished), now, 2, 1)} == {"free"}
    (change,) = compare(run_config(finished), check_experiment(again(finished, steps=4)), 2, 1)
    assert (change.path, change.kind) == ("trainer.devices", "mathematics")


def test_a_finished_run_says_so_and_trains_nothing(finished, capsys):
    files = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    done = train(again(finished, steps=4))
    said = capsys.readouterr().out
    assert f"{finished}: finished at step 4" in said
    assert "nothing was trained" in said
    assert (done.status, done.step, done.folder) == ("finished", 4, finished)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == files


def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished.parent / "data", tmp_path / "data")
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_what_is_allowed_is_applied_and_recorded(finished, tmp_path):
    run = copied(finished, tmp_path)
    root = f"data.root={tmp_path / 'data'}"
    allowed = "resume.allow=[task.optimizer,data]"
    fit(again(run, "task.optimizer.lr=0.05", "task.optimizer.weight_decay=0.5", "data.batch_size=5", root, allowed))
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (group,) = state["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["weight_decay"]) == (0.05, 0.5)
    position = state["PlannedData"]["position"]
    assert position["samples"] == 4 * 8 + 2 * 5
    second = RunRecord(run).values["starts"][1]
    assert second["config"] == "config.2.yaml"
    assert second["from_step"] == 4
    changes = {change["field"]: (change["before"], change["now"]) for change in second["changes"]}
    assert changes["task.optimizer.lr"] == (0.001, 0.05)
    assert changes["data.batch_size"] == (8, 5)
    assert read_yaml(run / "config.yaml")["task"]["optimizer"]["lr"] == 0.001
    assert run_config(run)["task"]["optimizer"]["lr"] == 0.05
    assert sorted(losses(run)) == list(range(6))


def test_a_longer_run_of_a_schedule_that_depends_on_its_length_is_refused(tmp_path, synthetic):
    cosine = "task.optimizer.schedule={name: cosine}"
    now = check_experiment(experiment(tmp_path, synthetic, cosine, "trainer.max_steps=30"))
    before = check_experiment(experiment(tmp_path, synthetic, cosine))
    assert [change.kind for change in compare(before, now, 1, 1)] == ["mathematics"]


class StopAt(L.Callback):
    """Ends training as early stopping does."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, task, *_):
        if trainer.global_step == self.step:
            trainer.should_stop = True


def test_a_run_that_was_stopped_early_stays_stopped(finished, tmp_path, capsys):
    shutil.copytree(finished.parent / "data", tmp_path / "data")
    stopping = "callbacks=[{name: 'tests.training.test_record:StopAt', step: 3}]"
    run = fit(again(tmp_path / "run", stopping))
    record = RunRecord(run)
    assert (record.status, record.step) == ("stopped early", 3)
    assert fit(again(run, stopping)) == run
    assert "use resume.allow=[early_stop] to continue" in capsys.readouterr().out
    assert RunRecord(run).step == 3
    fit(again(run, stopping, "resume.allow=[early_stop]"))
    assert (RunRecord(run).status, RunRecord(run).step) == ("finished", 6)
    json.loads((run / "run.json").read_text())


def test_a_sibling_is_made_and_a_trial_named_by_its_id(tmp_path, monkeypatch):
    folder = str(tmp_path / "run")
    assert choose_folder(folder, new=True) == folder
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert choose_folder(folder) == folder
    assert choose_folder(folder, new=True) == f"{folder}-3"
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert choose_folder(f"{folder}/{{run_id}}") == f"{folder}/abc"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert choose_folder("{run_id}") == choose_folder("{run_id}") != "{run_id}"


def test_epochs_are_counted_in_steps(finished, tmp_path):
    shutil.copytree(finished.parent / "data", tmp_path / "data")
    settings = ["trainer.max_epochs=0.8", "trainer.max_steps=null", "trainer.accumulate_grad_batches=1"]
    run = fit(prepared(again(tmp_path / "run", *settings)))
    clips = len((tmp_path / "data" / "split" / "train.txt").read_text().split())
    assert RunRecord(run).step == round(0.8 * (clips // 8))


@pytest.mark.parametrize("callbacks", ["[{name: artifact}]", "[{name: ema, decay: 0.5}, {name: artifact}]"])
def test_a_run_that_was_killed_after_its_last_checkpoint_is_ended(tmp_path, synthetic, callbacks):
    """It said "finished", with status 0, and had neither been validated nor left a model."""
    short = ["trainer.max_steps=4", "trainer.checkpoint_every_n_steps=2", CONSTANT, f"callbacks={callbacks}",
             "trainer.val_every_n_steps=10"]  # fmt: skip
    run = fit(experiment(tmp_path / "run", synthetic, *short))
    whole = {path: sha256(path) for name in ("best", "last") for path in (run / name).iterdir()}
    results = RunRecord(run).results
    assert results
    assert len(whole) > 8
    for name in ("best", "last"):
        shutil.rmtree(run / name)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "running", "results": {}}))
    fit(experiment(tmp_path / "run", synthetic, *short))
    assert RunRecord(run).results == results
    assert RunRecord(run).finished
    assert {path: sha256(path) for path in whole if path.is_file()} == whole


def test_a_kill_before_the_last_save_removed_an_old_checkpoint_leaves_none(tmp_path, synthetic):
    short = ["trainer.max_steps=4", "trainer.checkpoint_every_n_steps=1", "trainer.keep_last_checkpoints=2", CONSTANT]
    run = fit(experiment(tmp_path / "run", synthetic, *short))
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    shutil.copyfile(run / "checkpoints" / "last.ckpt", run / "checkpoints" / "step-00000002.ckpt")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "running", "results": {}}))
    fit(experiment(tmp_path / "run", synthetic, *short))
    assert {path.name for path in (run / "checkpoints").iterdir()} == kept
    assert "step-00000002.ckpt" not in kept


MODELS = ["trainer.max_steps=2", "trainer.val_every_n_steps=2", "callbacks=[{name: artifact}]"]


@pytest.fixture(scope="module")
def with_models(tmp_path_factory, synthetic) -> Path:
    """A finished run with best/ and last/."""
    return fit(experiment(tmp_path_factory.mktemp("models") / "run", synthetic, *MODELS))


@pytest.mark.parametrize("name", ["best/mean.npy", "last/manifest.json", "best.json"])
def test_models_of_a_finished_run_that_lack_files_are_written_again(with_models, synthetic, tmp_path, name):
    run = Path(shutil.copytree(with_models, tmp_path / "run"))
    (run / name).unlink()
    assert damaged(run) == [name[:4]]
    assert train(experiment(run, synthetic, *MODELS)).status == "finished"
    assert (run / name).is_file()
    assert damaged(run) == []
    verify_manifest(run / name[:4])


def test_a_run_that_was_stopped_early_is_not_trained_further_for_a_missing_file(with_models, synthetic, tmp_path):
    """Nor is it said to be finished: its models are those of a step before the last one of the configuration."""
    run = Path(shutil.copytree(with_models, tmp_path / "run"))
    values = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**values, "status": "stopped early"}))
    (run / "best" / "mean.npy").unlink()
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    with pytest.raises(FileError, match=r"best are missing, .* hftrainer convert run"):
        fit(experiment(run, synthetic, *MODELS))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("name", ["best/manifest.json", "last/mean.npy"])
def test_a_model_that_loses_a_file_while_the_run_ends_is_noticed(tmp_path, synthetic, monkeypatch, name):
    ends = ArtifactWriter.on_train_end

    def disturbed(self, trainer, task):
        ends(self, trainer, task)
        (self.output_dir / name).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactWriter, "on_train_end", disturbed)
        with pytest.raises(FileError, match="were deleted meanwhile; run the same command again"):
            fit(experiment(tmp_path / "run", synthetic, *MODELS))
    assert not RunRecord(tmp_path / "run").finished
    assert RunRecord(fit(experiment(tmp_path / "run", synthetic, *MODELS))).finished
    verify_manifest(tmp_path / "run" / name[:4])


def test_a_run_whose_configuration_is_missing_names_it(finished, tmp_path):
    run = copied(finished, tmp_path)
    (run / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"config.yaml, .* is missing; put it back, or .* --new"):
        fit(again(run))
