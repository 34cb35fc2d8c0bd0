"""Motions and models in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hftrainer.training.wandb_log import WandbLog


def wandb_log(trainer: Any) -> Any:
    """The trainer's W&B logger (`WandbLog`), or None."""
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLog)), None)


def log_samples(
    trainer: Any, key: str, rows: Sequence[Mapping[str, Any]], folder: Path, pages: Mapping[str, Path]
) -> None:
    """A table of `rows` under `key`, and `pages` (self-contained HTML) beside it, at the trainer's step.

    Every key of the rows is a column; of "files", names in `folder`, the mp4 becomes a "video" and the html a "viewer"
    that plays inside the table.
    """
    logger = wandb_log(trainer)
    if logger is None or not rows:
        return

    def send(run: Any) -> None:
        import wandb

        columns = [name for name in rows[0] if name != "files"]
        table = wandb.Table(columns=[*columns, "video", "viewer"])
        for row in rows:
            found = {Path(name).suffix: str(folder / name) for name in row["files"]}
            video = wandb.Video(found[".mp4"], format="mp4") if ".mp4" in found else None
            page = wandb.Html(found[".html"], inject=False) if ".html" in found else None
            table.add_data(*[row.get(name) for name in columns], video, page)
        html = {name: wandb.Html(str(path), inject=False) for name, path in pages.items() if path.is_file()}
        run.log({key: table, **html, "trainer/global_step": trainer.global_step})

    logger.safely(send)


def log_model(trainer: Any, folder: Path, alias: str, metrics: Mapping[str, float], *, at_end: bool) -> None:
    """A model folder as an artifact, if the configuration wants it now (`WandbConfig.models`).

    At the end the files are referred to where they lie; before, they are copied, because the next best takes their
    place.
    """
    logger = wandb_log(trainer)
    if (
        logger is None
        or not folder.is_dir()
        or logger.config.models not in (("end", "always") if at_end else ("always",))
    ):
        return

    def send(run: Any) -> None:
        import wandb

        made = {"step": trainer.global_step, **metrics}
        artifact = wandb.Artifact(f"{logger.output.name}-{logger.version}", type="model", metadata=made)
        artifact.add_dir(str(folder), policy="immutable" if at_end else "mutable")
        run.log_artifact(artifact, aliases=[alias, f"step-{trainer.global_step}"])

    logger.safely(send)
