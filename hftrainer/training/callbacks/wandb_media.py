"""Generated motions in Weights & Biases: a table with prompt, length, video and the page that plays them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def wandb_run(trainer: Any) -> Any:
    """The run of the trainer's W&B logger, or None."""
    from lightning.pytorch.loggers import WandbLogger

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            return logger.experiment
    return None


def log_samples(trainer: Any, rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """A table of `rows` (prompt, seed, seconds, ended, files) at the trainer's step, if there is a W&B run."""
    run = wandb_run(trainer)
    if run is None:
        return
    import wandb

    table = wandb.Table(columns=["prompt", "seed", "seconds", "ended", "video"])
    for row in rows:
        videos = [name for name in row["files"] if name.endswith(".mp4")]
        video = wandb.Video(str(folder / videos[0]), format="mp4") if videos else None
        table.add_data(row["prompt"], row.get("seed"), row["seconds"], row["ended"], video)
    values: dict[str, Any] = {"val/samples": table, "trainer/global_step": trainer.global_step}
    page = folder / "index.html"
    if page.is_file():
        values["val/viewer"] = wandb.Html(str(page))
    run.log(values)
