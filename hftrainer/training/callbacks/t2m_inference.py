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

from hftrainer.arrays import read_npy
from hftrainer.config import ConfigError
from hftrainer.evaluation.physical import KEYS, compute_physical_metrics
from hftrainer.motion.body import smpl_body
from hftrainer.motion.fit import pose
from hftrainer.motion.representation.base import get_representation
from hftrainer.pipelines.base import GeneratedMotion, TextToMotionPipeline, pipeline_of
from hftrainer.pipelines.outputs import PAGE, write_files
from hftrainer.pipelines.prompts import seeded_rows
from hftrainer.registry import CALLBACKS
from hftrainer.render.export import check_formats
from hftrainer.render.viewer import ViewerClip, write_viewer
from hftrainer.requests import SamplingParams
from hftrainer.training.callbacks.cadence import Cadence, Timer
from hftrainer.training.callbacks.ema import evaluating, inference_bundle
from hftrainer.training.callbacks.ranks import gather, share
from hftrainer.training.callbacks.wandb_media import log_samples, wandb_log
from hftrainer.training.faults import PROGRAMMING_ERRORS, best_effort_write, reason

log = logging.getLogger(__name__)
PROMPTS = ["a person walks forward", "someone waves the left hand", "a person runs, then stops", "a person sits down"]


@dataclass
class T2MInferenceConfig:
    """`prompts`, or a text file with one a line. With `every: 2` it acts at the first validation, at every second one
    after it, and at the last; `unit` steps or epochs: at the first one after so many more of them have gone by.

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
    guidance_scale: float | None = None
    every: int = 1
    unit: str = "validations"
    formats: list[str] = field(default_factory=lambda: ["npy", "html"])

    def __post_init__(self) -> None:
        check_formats(self.formats)
        if self.prompts_file is not None and not Path(self.prompts_file).is_file():
            raise ConfigError(f"prompts_file: there is no file {self.prompts_file!r}")
        if not self.prompts and self.prompts_file is None:
            raise ConfigError("t2m_inference needs prompts or a prompts_file")
        if self.num_motions < 1:
            raise ConfigError("num_motions must be at least 1")
        Cadence(self.every, self.unit)

    def texts(self) -> list[str]:
        """All prompts."""
        if self.prompts_file is None:
            return list(self.prompts)
        return [
            line.strip() for line in Path(self.prompts_file).read_text(encoding="utf-8").splitlines() if line.strip()
        ]


@CALLBACKS.register("t2m_inference")
class T2MInferenceCallback(L.Callback):
    """Generates at validation, with averaged weights if an average is kept; training continues as if it had not.

    Prompts are shared out over ranks. A prompt that fails is reported and does not end the run. Logs
    ``val/generated_seconds`` (mean length), ``val/ended`` (fraction that ended with END), ``val/prompts_failed`` and
    ``val/inference_time_share`` (of all time since training began), and to W&B a table ``val/samples``: prompt, seed,
    length, physical metrics, text-motion distance where a `t2m_evaluation` has an evaluator, video and 3D viewer.
    """

    Config = T2MInferenceConfig
    logged = ("val/generated_seconds", "val/ended", "val/prompts_failed", "val/inference_time_share")

    def __init__(self, config: T2MInferenceConfig, *, output_dir: Path):
        self.config, self.output_dir = config, output_dir
        self.cadence, self.timer = Cadence(config.every, config.unit), Timer()
        self.body = smpl_body()
        self.sampling = SamplingParams(
            config.do_sample, config.temperature, config.top_k, config.top_p, guidance_scale=config.guidance_scale
        )

    def on_fit_start(self, trainer: L.Trainer, task: Any) -> None:
        """Time is counted from here."""
        self.timer.start()

    def preflight(self, trainer: L.Trainer, task: Any) -> None:
        """Half a second of the first prompt, before the first step: what fails here would fail at every validation."""
        with isolate_rng(), evaluating(task), inference_bundle(trainer, task) as bundle:
            row = seeded_rows(self.config.texts()[:1], self.config.seed)
            pipeline_of(bundle).generate_rows(row, seconds=0.5, sampling=self.sampling, truncate=True)

    def on_validation_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        """Generate, write, log."""
        if trainer.sanity_checking or not self.cadence.due(trainer):
            return
        folder = self.output_dir / "samples" / f"step-{trainer.global_step:08d}"
        with self.timer.within(), isolate_rng():
            with inference_bundle(trainer, task) as bundle:
                made = self._generate(trainer, bundle)
            rows = gather(trainer, {i: self._row(trainer, folder, motion) for i, motion in made.items()})
            if trainer.is_global_zero:
                score_texts(trainer, list(rows.values()), folder)
                with best_effort_write(str(folder / PAGE)):
                    self._page(folder, list(rows.values()), trainer.global_step)
                log_samples(trainer, "val/samples", list(rows.values()), folder, {"val/viewer": folder / PAGE})
        found = [row for row in rows.values() if row["seconds"] is not None]
        task.log_dict(
            {
                "val/generated_seconds": float(np.mean([row["seconds"] for row in found])) if found else 0.0,
                "val/ended": float(np.mean([row["ended"] for row in found])) if found else 0.0,
                "val/prompts_failed": 1 - len(found) / len(rows),
                "val/inference_time_share": self.timer.share(),
            },
            sync_dist=True,
        )

    def _generate(self, trainer: L.Trainer, bundle: Any) -> dict[int, GeneratedMotion | Failed]:
        pipeline = pipeline_of(bundle)
        self.body = getattr(bundle, "body", self.body)
        texts = [text for text in self.config.texts() for _ in range(self.config.num_motions)]
        rows = seeded_rows(texts, self.config.seed)
        mine = share(trainer, len(rows))
        settings: dict[str, Any] = {"seconds": self.config.seconds, "sampling": self.sampling, "truncate": True}
        try:
            return dict(zip(mine, pipeline.generate_rows([rows[i] for i in mine], **settings), strict=True))
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 -- a run of days must not end for a picture
            log.warning("generating a batch failed (%s); trying one by one", error)
            return {i: self._one(pipeline, rows[i], settings) for i in mine}

    def _one(
        self, pipeline: TextToMotionPipeline, row: tuple[str, int | None], settings: dict[str, Any]
    ) -> GeneratedMotion | Failed:
        try:
            return pipeline.generate_rows([row], **settings)[0]
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 -- as above
            log.warning("the prompt %r failed: %s", row[0], error)
            return Failed(row[0], row[1], str(error))

    def _row(self, trainer: Any, folder: Path, made: GeneratedMotion | Failed) -> dict[str, Any]:
        """What the table says of a motion, its files written."""
        row: dict[str, Any] = {"prompt": made.prompt, "seed": made.seed, "frames": None, "seconds": None, "ended": None}
        row |= {"representation": getattr(made, "representation", None)}
        row |= {"matching": None, **dict.fromkeys(map(str.lower, KEYS)), "error": None, "files": []}
        if isinstance(made, Failed):
            return {**row, "error": made.error}
        if not len(made.motion):
            return {**row, "error": "the model ended before the first frame"}
        row |= {"frames": len(made.motion), "seconds": made.seconds, "ended": made.ended}
        try:
            stem = folder / f"{_slug(made.prompt)}_s{made.seed}"
            folder.mkdir(parents=True, exist_ok=True)
            formats = [name for name in dict.fromkeys(["npy", *self.config.formats]) if name != "html"]
            row["files"], shown = write_files(stem, made, formats)
            if "html" in self.config.formats and wandb_log(trainer) is not None:  # one a row of the table
                clip = ViewerClip(joints=shown.joints, title=made.prompt, fps=shown.fps)
                write_viewer(stem.with_name(f"{stem.name}.html"), [clip], title=made.prompt)
                row["files"].append(f"{stem.name}.html")
            if len(made.motion) >= 4:
                values = compute_physical_metrics(get_representation(made.representation).to_joints(made.motion))
                row |= {key.lower(): values[key] for key in KEYS}
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 -- as above
            log.warning("writing the motion of %r failed: %s", made.prompt, reason(error))
            row["error"] = str(error)
        return row

    def _page(self, folder: Path, rows: Sequence[dict[str, Any]], step: int) -> None:
        """All ranks' motions on one page."""
        if "html" not in self.config.formats:
            return
        clips = []
        for row in rows:
            for name in row["files"]:
                if name.endswith(".npy"):
                    shown = pose(read_npy(folder / name), self.body, representation=row["representation"])
                    notes = {"seed": str(row["seed"]), "length": f"{row['seconds']:.1f} s"}
                    clips.append(ViewerClip(joints=shown.joints, title=row["prompt"], notes=notes, fps=shown.fps))
        if clips:
            write_viewer(folder / PAGE, clips, title=f"step {step}")

    def state_dict(self) -> dict[str, Any]:
        """The cadence."""
        return self.cadence.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue in it."""
        self.cadence.load_state_dict(state)


@dataclass
class Failed:
    """A prompt that no motion could be made for."""

    prompt: str
    seed: int | None
    error: str


def score_texts(trainer: Any, rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Put the text-motion distance into rows, with the evaluator of the run's `t2m_evaluation`, if it has one."""
    scorer = next((c for c in trainer.callbacks if hasattr(c, "text_motion_distances")), None)
    found = [(row, name) for row in rows for name in row["files"] if name.endswith(".npy")]
    if scorer is None or not found:
        return
    try:
        motions = [read_npy(folder / name) for _, name in found]
        texts = [row["prompt"] for row, _ in found]
        distances = scorer.text_motion_distances(texts, motions, found[0][0]["representation"])
    except PROGRAMMING_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001 -- as above
        log.warning("the samples could not be scored: %s", reason(error))
        return
    for (row, _), distance in zip(found, distances, strict=True):
        row["matching"] = float(distance)


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")[:48]
