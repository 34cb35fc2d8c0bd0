"""Where scalars, motions and models go: CSV, TensorBoard, and a W&B run that is read back from its file."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.config import ConfigError, OldSpelling, load_experiment, typed
from hftrainer.training import wandb_log
from hftrainer.training.fit import fit
from hftrainer.training.loggers import CsvLog
from hftrainer.training.provenance import git_revision
from tests.conftest import REPOSITORY
from tests.tiny import tiny_evaluator, tiny_text_encoder
from tests.training.runs import experiment, losses, rows_of
from tests.wandb_log import finished_run


def wandb(offline: bool = True, **more: str) -> str:
    """The override that switches W&B on."""
    settings = {"offline": str(offline).lower(), "system_metrics_seconds": "0.2", **more}
    return f"loggers=[{{name: wandb, {', '.join(f'{key}: {value}' for key, value in settings.items())}}}]"


WANDB = [wandb()]


@pytest.fixture(autouse=True)
def _no_login(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))


def folders(run: Path) -> list[Path]:
    return sorted(run.glob("wandb/offline-run-*"))


# --- W&B --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(tmp_path_factory, synthetic) -> Path:
    """A transformer run with everything on, stopped at step 4 and resumed to 6."""
    pytest.importorskip("wandb")
    place = tmp_path_factory.mktemp("watched")
    tiny_text_encoder().save_pretrained(place / "text")
    tiny_evaluator().save_pretrained(place / "evaluator")
    import shutil

    shutil.copytree(synthetic, place / "data")
    look = "{name: t2m_inference, prompts: [a person walks], seconds: 0.5, formats: [npy, html, mp4]}"
    judge = f"{{name: t2m_evaluation, evaluator: '{place / 'evaluator'}', root: '{place / 'data'}', repeats: 1}}"
    base = [
        f"output_dir={place / 'run'}", f"data.root={place / 'data'}", f"model.text_encoder.source={place / 'text'}",
        "model.ar.clip_dim=32", "trainer.progress_bar=false", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
        "trainer.val_every_n_steps=4", "trainer.checkpoint_every_n_steps=4", 
        wandb(project="motion", tags="[small, test]", group="all", job_type="train", notes="a note"),
        "resume.allow=[trainer.max_steps]",
        f"callbacks=[{look}, {judge}, {{name: artifact}}]",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(place / name))
        for steps in (4, 6):
            config = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
            fit(load_experiment(config, [*base, f"trainer.max_steps={steps}"]))
    return place / "run"


def test_all_of_a_run_is_in_its_offline_file(watched):
    folder = folders(watched)[0]
    run = finished_run(folder)
    assert run["project"] == "motion"
    assert run["name"] == "run"
    assert run["exit"] == 0
    config = run["config"]
    assert config["trainer"]["max_steps"] == 4
    assert config["task"]["optimizer"]["betas"] == [0.9, 0.999]  # resolved: this is a default
    if git_revision(REPOSITORY) is not None:
        assert len(config["git"]["revision"]) == 40
        assert config["git"]["dirty"] in (True, False)
    assert config["versions"]["torch"]
    steps = {row["trainer/global_step"]: row["train/loss"] for row in run["history"] if "train/loss" in row}
    assert {step: float(loss) for step, loss in losses(watched).items() if step < 4} == pytest.approx(steps)
    scalars = set().union(*run["history"])
    for name in ("FID", "FID-unit", "R@1", "R@2", "R@3", "MM-Dist", "Diversity", "Jitter", "Slide", "Float"):
        assert f"val/{name}" in scalars
        assert name == "FID-unit" or f"val/real/{name}" in scalars
    assert {"val/loss", "train/grad_norm", "val/evaluation_time_share", "val/inference_time_share"} <= scalars
    assert {"train/lr", "speed/step_seconds", "speed/tokens_per_second", "speed/motions_per_second"} <= scalars
    assert {"speed/data_wait", "memory/peak_gb", "progress/samples", "progress/epochs"} <= scalars
    assert any("memory_percent" in row for row in run["system"])


def test_the_table_has_prompt_video_viewer_length_and_scores(watched):
    folder = folders(watched)[0]
    run = finished_run(folder)
    (shown,) = [row["val/samples"] for row in run["history"] if "val/samples" in row]
    assert shown["nrows"] == 1
    (table,) = [artifact for artifact in run["artifacts"] if artifact.type == "run_table"]
    files = {entry.path: Path(entry.local_path) for entry in table.manifest.contents}
    content = json.loads(files["val/samples.table.json"].read_text())
    row = dict(zip(content["columns"], content["data"][0], strict=True))
    facts = [row[name] for name in ("prompt", "seed", "frames", "seconds", "error")]
    assert facts == ["a person walks", 0, 15, 0.5, None]
    assert all(isinstance(row[name], float) for name in ("matching", "jitter", "dynamic", "penet", "float", "slide"))
    assert files[row["video"]["path"]].read_bytes()[4:8] == b"ftyp"
    assert "<script" in files[row["viewer"]["path"]].read_text()
    (viewer,) = [row["val/viewer"] for row in run["history"] if "val/viewer" in row]
    assert viewer["path"] in run["files"]
    page = (folder / "files" / viewer["path"]).read_text()
    assert "a person walks" in page
    assert not re.search(r"""(src|href)=["']?https?:""", page)  # self-contained


def test_models_are_artifacts(watched):
    artifacts = [artifact for folder in folders(watched) for artifact in finished_run(folder)["artifacts"]]
    models = [artifact for artifact in artifacts if artifact.type == "model"]
    assert [set(model.aliases) - {"latest"} for model in models] == [
        {"last", "step-4"}, {"best", "step-4"}, {"last", "step-6"}, {"best", "step-6"},
    ]  # fmt: skip
    assert {"ar.safetensors", "fsq.safetensors", "mm_config.json"} <= {e.path for e in models[0].manifest.contents}
    assert json.loads(models[0].metadata)["step"] == 4


def test_a_resumed_run_goes_on_in_the_same_run(watched):
    first, second = (finished_run(folder) for folder in folders(watched))
    assert first["id"] == second["id"] == json.loads((watched / "wandb_run.json").read_text())["id"]
    steps = [row["trainer/global_step"] for row in second["history"] if "train/loss" in row]
    assert steps == [4, 5]


def test_a_run_that_starts_anew_is_another(tmp_path, synthetic):
    settings = [*WANDB, "trainer.max_steps=1", "resume=never"]
    for _ in range(2):
        run = fit(experiment(tmp_path / "run", synthetic, *settings))
    assert len({finished_run(folder)["id"] for folder in folders(run)}) == 2


def test_online_only_with_a_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_log.wandb_mode(None) == "offline"
    assert wandb_log.wandb_mode(False) == "online"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password made-up\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_log.wandb_mode(None) == "online"
    assert wandb_log.wandb_mode(True) == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_log.wandb_mode(None) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "made-up")
    assert wandb_log.wandb_mode(None) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_log.wandb_mode(None) is None


def test_wandb_that_does_not_start_at_all(tmp_path, synthetic, monkeypatch, caplog):
    import wandb as library

    def broken(**_):
        raise library.errors.UsageError("no such thing")

    monkeypatch.setattr(library, "init", broken)
    with caplog.at_level(logging.WARNING):
        run = fit(experiment(tmp_path / "run", synthetic, *WANDB, "trainer.max_steps=2"))
    assert caplog.text.count("The run continues without it") == 1
    assert len(losses(run)) == 2


def run_alone(run: Path, data: Path, *settings: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: W&B's is shared by all runs of a process, and so are its settings."""
    code = (
        "import sys; from pathlib import Path; from tests.training.runs import experiment\n"
        "from hftrainer.training import fit, wandb_log; wandb_log.START_SECONDS = 3\n"
        "fit.fit(experiment(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))"
    )
    command = [sys.executable, "-c", code, str(run), str(data), *settings]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"} | environment
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=environment)


def test_wandb_that_dies_midway(tmp_path, synthetic):
    harm = "callbacks=[{name: 'tests.training.runs:KillWandb', step: 5}]"
    done = run_alone(tmp_path / "run", synthetic, *WANDB, harm)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B failed") == 1
    assert len(losses(tmp_path / "run")) == 12


def test_wandb_that_cannot_be_reached_is_recorded_offline(tmp_path, synthetic):
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    done = run_alone(tmp_path / "run", synthetic, wandb(offline=False), "trainer.max_steps=2", **nowhere)
    assert done.returncode == 0, done.stderr
    assert "W&B cannot start online" in done.stderr
    (folder,) = folders(tmp_path / "run")
    assert (
        len([row for row in finished_run(folder)["history"] if "train/loss" in row])
        == len(losses(tmp_path / "run"))
        == 2
    )


# --- CSV and TensorBoard ----------------------------------------------------------------------------------------------


def test_a_row_is_on_disk_when_it_is_logged(tmp_path):
    logger = CsvLog(tmp_path)
    logger.log_metrics({"b": 1.5}, step=0)
    logger.log_metrics({"a": 2.0, "b": 0.1}, step=1)
    logger.log_metrics({"a": 3.0}, step=2)
    text = logger.file.read_text().splitlines()
    assert text == ["a,b,step", ",1.5,0", "2.0,0.1,1", "3.0,,2"]
    second = CsvLog(tmp_path)
    second.log_metrics({"a": 4.0}, step=3)
    assert (logger.version, second.version) == (0, 1)
    assert [row["step"] for row in rows_of(tmp_path)] == ["0", "1", "2", "3"]


def test_tensorboard_has_the_scalars(tmp_path, synthetic):
    pytest.importorskip("tensorboard")
    run = fit(experiment(tmp_path / "run", synthetic, "loggers=[{name: tensorboard}]", "trainer.max_steps=2"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("train/loss")}
    assert written == pytest.approx({step: float(loss) for step, loss in losses(run).items()})


def test_choices_are_checked():
    with pytest.raises(ConfigError, match=r"loggers\[0\]\.models must be one of end, always, never, got 'sometimes'"):
        typed(wandb_log.WandbConfig, {"models": "sometimes"}, path="loggers[0]")


def test_the_section_of_an_earlier_release_is_read(tmp_path, synthetic):
    old = ["logger.tensorboard=true", "logger.wandb=true", "logger.project=motion"]
    with pytest.warns(OldSpelling, match=r"write loggers: \[{name: tensorboard}, {name: wandb, project: motion}\]"):
        setup = experiment(tmp_path, synthetic, *old)
    assert setup.loggers == [{"name": "tensorboard"}, {"name": "wandb", "project": "motion"}]


def test_the_revision_says_whether_files_were_changed(tmp_path):
    assert git_revision(tmp_path) is None

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    clean = git_revision(tmp_path)
    assert len(clean["revision"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == {"revision": clean["revision"], "dirty": True}
