"""Validation by looking: the same prompts with the same seeds, every time, as files, a page, and a table in W&B."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng

from hftrainer.config import ConfigError
from hftrainer.motion.render.viewer import ViewerClip, write_viewer
from hftrainer.motion.representation import motion272
from hftrainer.pipelines.motionmillion import GeneratedMotion, MotionMillionPipeline, Sampling
from hftrainer.pipelines.outputs import check_formats, write_files
from hftrainer.pipelines.prompts import seeded_rows
from hftrainer.registry import CALLBACKS
from hftrainer.training.callbacks.cadence import Cadence, Timer
from hftrainer.training.callbacks.ema import deployed
from hftrainer.training.callbacks.wandb_media import log_samples

log = logging.getLogger(__name__)
PROMPTS = ["a person walks forward", "someone waves the left hand", "a person runs, then stops", "a person sits down"]


@dataclass
class T2MInferenceConfig:
    """`prompts`, or a text file with one a line; `every`: at each validation, each second, ...

    `seconds` makes all motions of one length, else they end by themselves. `formats` of npy, npz, bvh, mp4, html; the
    files go to ``samples/step-...`` in the run's folder, and to W&B where that is on.
    """

    prompts: list[str] = field(default_factory=lambda: list(PROMPTS))
    prompts_file: str | None = None
    num_motions: int = 1
    seed: int = 0
    seconds: float | None = None
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    every: int = 1
    formats: list[str] = field(default_factory=lambda: ["npy", "html"])

    def __post_init__(self) -> None:
        check_formats(self.formats)
        if self.prompts_file is not None and not Path(self.prompts_file).is_file():
            raise ConfigError(f"prompts_file: there is no file {self.prompts_file!r}")
        if not self.prompts and self.prompts_file is None:
            raise ConfigError("t2m_inference needs prompts or a prompts_file")
        if self.every < 1 or self.num_motions < 1:
            raise ConfigError("every and num_motions must be at least 1")

    def texts(self) -> list[str]:
        """All prompts."""
        if self.prompts_file is None:
            return list(self.prompts)
        return [
            line.strip() for line in Path(self.prompts_file).read_text(encoding="utf-8").splitlines() if line.strip()
        ]


@CALLBACKS.register("t2m_inference")
class T2MInferenceCallback(L.Callback):
    """Generates at validation, with averaged weights if an average is kept; training goes on as if it had not.

    Prompts are shared out over ranks. A prompt that fails is reported and does not end the run. Logs
    ``val/generated_seconds`` (mean length), ``val/ended`` (share that ended by themselves) and
    ``val/inference_time_share`` (of all time since the last validation).
    """

    Config = T2MInferenceConfig

    def __init__(self, config: T2MInferenceConfig, *, output_dir: Path):
        self.config, self.output_dir = config, output_dir
        self.cadence, self.timer = Cadence(config.every), Timer()
        self.sampling = Sampling(config.do_sample, config.temperature, config.top_k, config.top_p)
        self.sampling.choice()

    def on_fit_start(self, trainer: L.Trainer, task: Any) -> None:
        """Time is counted from here."""
        self.timer.start()

    def on_validation_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        """Generate, write, log."""
        if trainer.sanity_checking or not self.cadence.due():
            return
        folder = self.output_dir / "samples" / f"step-{trainer.global_step:08d}"
        with self.timer.within(), isolate_rng():
            with deployed(trainer, task) as bundle:
                made = self._generate(trainer, bundle)
            rows = self._write(folder, made)
        trainer.strategy.barrier("samples are written")
        ends = [float(motion.ended) for _, motion in made if motion is not None]
        lengths = [motion.seconds for _, motion in made if motion is not None]
        task.log_dict(
            {
                "val/generated_seconds": float(np.mean(lengths)) if lengths else 0.0,
                "val/ended": float(np.mean(ends)) if ends else 0.0,
                "val/inference_time_share": self.timer.share(),
            },
            sync_dist=True,
        )
        if trainer.is_global_zero:
            self._page(folder, trainer.global_step)
            log_samples(trainer, rows, folder)

    def _generate(self, trainer: L.Trainer, bundle: Any) -> list[tuple[str, GeneratedMotion | None]]:
        pipeline = MotionMillionPipeline(bundle)
        texts = [text for text in self.config.texts() for _ in range(self.config.num_motions)]
        rows = seeded_rows(texts, self.config.seed)
        mine = rows[trainer.global_rank :: trainer.world_size]
        settings: dict[str, Any] = {"seconds": self.config.seconds, "sampling": self.sampling, "truncate": True}
        try:
            return [(m.prompt, m) for m in pipeline.generate_rows(mine, **settings)]
        except Exception as error:  # noqa: BLE001 -- a run of days must not end for a picture
            log.warning("generating together failed (%s); trying one by one", error)
            return [(text, self._one(pipeline, (text, seed), settings)) for text, seed in mine]

    def _one(
        self, pipeline: MotionMillionPipeline, row: tuple[str, int | None], settings: dict[str, Any]
    ) -> GeneratedMotion | None:
        try:
            return pipeline.generate_rows([row], **settings)[0]
        except Exception as error:  # noqa: BLE001 -- as above
            log.warning("the prompt %r failed: %s", row[0], error)
            return None

    def _write(self, folder: Path, made: Sequence[tuple[str, GeneratedMotion | None]]) -> list[dict[str, Any]]:
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        formats = [name for name in dict.fromkeys(["npy", *self.config.formats]) if name != "html"]
        for prompt, motion in made:
            row: dict[str, Any] = {"prompt": prompt, "seconds": None, "ended": None, "files": []}
            if motion is not None and len(motion.motion):
                stem = folder / f"{_slug(prompt)}_s{motion.seed}"
                row |= {"seconds": motion.seconds, "ended": motion.ended, "seed": motion.seed}
                row["files"] = write_files(stem, motion.motion, prompt, formats)
            rows.append(row)
        return rows

    def _page(self, folder: Path, step: int) -> None:
        """All ranks' motions on one page."""
        if "html" not in self.config.formats:
            return
        clips = [
            ViewerClip(joints=motion272.to_joints(np.load(path, allow_pickle=False)), title=path.stem)
            for path in sorted(folder.glob("*.npy"))
        ]
        if clips:
            write_viewer(folder / "index.html", clips, title=f"step {step}")


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")[:48]
