"""A model folder that can be loaded and shared, written whenever validation is the best so far and at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from hftrainer.evaluation.vocabulary import current_name
from hftrainer.files import write_json
from hftrainer.manifest import MANIFEST, entries
from hftrainer.readers import check_type, read_json
from hftrainer.registry import CALLBACKS
from hftrainer.training.callbacks.ema import inference_bundle
from hftrainer.training.callbacks.wandb_media import log_model
from hftrainer.training.faults import best_effort_write


@dataclass
class ArtifactConfig:
    """`monitor`: a logged value, better when lower (``mode: min``) or higher. Folders are made in the run's own."""

    monitor: str = "val/loss"
    mode: str = "min"

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}")
        self.monitor = current_name(self.monitor)  # "val/fid" of configurations of earlier versions


@CALLBACKS.register("artifact")
class ArtifactWriter(L.Callback):
    """Writes ``best/`` beside the checkpoints after each validation that improves, and ``last/`` when training ends."""

    Config = ArtifactConfig
    logged = ()

    def __init__(self, config: ArtifactConfig, *, output_dir: Path):
        self.config, self.output_dir = config, output_dir
        self.best = self.worst = math.inf if config.mode == "min" else -math.inf

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Compare, and write if better."""
        if trainer.sanity_checking:
            return
        name = self.config.monitor
        if name not in trainer.callback_metrics:
            raise ValueError(
                f"the artifact callback monitors {name!r}, which validation did not log; "
                f"it logged {sorted(trainer.callback_metrics)}"
            )
        value = float(trainer.callback_metrics[name])
        if (value < self.best) if self.config.mode == "min" else (value > self.best):
            before, self.best = self.best, value
            written = False
            with best_effort_write(str(self.output_dir / "best")):
                self._write(trainer, task, "best", {name: value})
                written = True
            if not trainer.strategy.broadcast(written, src=0):
                self.best = before  # the next one that is better than what is on disk takes its place
                return
            log_model(trainer, self.output_dir / "best", "best", {name: value}, at_end=False)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """The final weights."""
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self._write(trainer, task, "last", metrics)
        for name in ("last", "best"):
            log_model(trainer, self.output_dir / name, name, metrics if name == "last" else {}, at_end=True)

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """A best model of which files were deleted is written again after the next validation."""
        if trainer.strategy.broadcast("best" in damaged(self.output_dir), src=0):
            self.best = self.worst

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue comparing with it."""
        self.best = state["best"]

    def _write(self, trainer: L.Trainer, task: Any, name: str, metrics: dict[str, float]) -> None:
        with inference_bundle(trainer, task, everywhere=False) as bundle:
            if bundle is not None:
                bundle.save_pretrained(self.output_dir / name)
                task.save_beside(self.output_dir / name)
                about = {"step": trainer.global_step, "metrics": metrics, "files": _written(self.output_dir / name)}
                write_json(self.output_dir / f"{name}.json", about)


def damaged(run: Path) -> list[str]:
    """The model folders of a run, of "best" and "last", that lack files, or have some of another size, than were
    written. A folder that was removed with its .json was removed on purpose."""
    return [name for name in ("best", "last") if not _is_whole(run / name, run / f"{name}.json")]


def _is_whole(folder: Path, about: Path) -> bool:
    if not about.is_file():
        return not folder.exists()
    files = read_json(about).get("files", {})  # earlier releases did not note them
    check_type(files, dict, f"{about}, 'files'")
    there = _sizes(folder)
    return folder.is_dir() and all(there.get(name) == size for name, size in files.items())


def _written(folder: Path) -> dict[str, int]:
    """What was written to it: by its manifest, which says so even if a file was deleted since, and as it is."""
    listed = {entry["path"]: entry["bytes"] for entry in entries(folder)} if (folder / MANIFEST).is_file() else {}
    return {**_sizes(folder), **listed}


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
