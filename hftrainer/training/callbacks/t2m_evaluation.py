"""Validation by measuring: motions for a split's captions, scored by an evaluator beside the real ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray

from hftrainer.config import ConfigError
from hftrainer.data.folder import DatasetFolder
from hftrainer.evaluation.validation import FIGURES, physical_figures, retrieval_figures
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.representation.convert import check_route, convert
from hftrainer.pipelines.base import TextToMotionPipeline, pipeline_of
from hftrainer.pipelines.prompts import seeded_rows
from hftrainer.registry import CALLBACKS, EVALUATORS
from hftrainer.requests import SamplingParams
from hftrainer.training.callbacks.cadence import Cadence, Timer
from hftrainer.training.callbacks.ema import evaluating, inference_bundle
from hftrainer.training.callbacks.ranks import gather, share
from hftrainer.training.faults import PROGRAMMING_ERRORS
from hftrainer.zoo.load import load_evaluator

log = logging.getLogger(__name__)


@dataclass
class T2MEvaluationConfig:
    """`evaluator`: {name: a name in EVALUATORS, path: a zoo name, folder or hub name}; `root`, `split`: real clips.

    Motions are converted to what the evaluator reads, where there is a way. `name` may be left out where the zoo's card
    or the folder says it.
    Each clip's first caption is used, and its motion is asked for in the real length (shorter ones stay shorter).
    `max_clips` takes the first so many. Pools for R-precision have `pool` motions, fewer where there are fewer clips.
    `every` and `unit`: as of t2m_inference.
    """

    evaluator: Any
    root: str
    split: str = "val"
    max_clips: int = 512
    every: int = 1
    unit: str = "validations"
    seed: int = 0
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float | None = None
    pool: int = 32
    repeats: int = 5

    def __post_init__(self) -> None:
        if min(self.max_clips, self.pool, self.repeats) < 1:
            raise ConfigError("max_clips, pool and repeats must be at least 1")
        section = {"path": self.evaluator} if isinstance(self.evaluator, str) else self.evaluator
        if not isinstance(section, dict) or not isinstance(section.get("path"), str):
            raise ConfigError(f"evaluator must be {{name: ..., path: ...}}, got {self.evaluator!r}")
        unknown = sorted(set(section) - {"name", "path"})
        if unknown:
            raise ConfigError(f"evaluator has unknown keys {unknown}; known: name, path")
        if section.get("name") is not None:
            EVALUATORS.get(section["name"])
        self.evaluator = dict(section)
        Cadence(self.every, self.unit)


@CALLBACKS.register("t2m_evaluation")
class T2MEvaluationCallback(L.Callback):
    """Logs ``val/FID``, ``val/FID-unit``, ``val/R@1`` to ``R@3``, ``val/MM-Dist``, ``val/Diversity``, the published
    physical metrics (``val/Slide`` and so on) and the real clips' values (``val/real/R@1`` ...), all of which
    checkpoints may monitor, ``val/failed`` (fraction of clips) and ``val/evaluation_time_share``. The work is divided
    among the ranks.

    ``val/real/FID`` is that of one half of the real clips against the other: what chance makes of so few. A caption
    that fails is excluded and counted; where nothing can be evaluated, every value is NaN.
    """

    Config = T2MEvaluationConfig
    logged = tuple(f"val/{name}" for name in (*FIGURES, "failed", "evaluation_time_share"))

    def __init__(self, config: T2MEvaluationConfig):
        self.config = config
        self.cadence, self.timer = Cadence(config.every, config.unit), Timer()
        self.sampling = SamplingParams(
            config.do_sample, config.temperature, config.top_k, config.top_p, guidance_scale=config.guidance_scale
        )
        folder = DatasetFolder(config.root)
        self.names = folder.names(config.split)[: config.max_clips]
        if len(self.names) < 2:
            raise ConfigError(
                f"split {config.split!r} of {config.root} has {len(self.names)} clips; at least 2 are needed"
            )
        self.captions = [folder.captions(name)[0].text for name in self.names]
        self.data_format = folder.motion_format
        self.real = [folder.motion(name) for name in self.names]
        self.evaluator: Any = load_evaluator(config.evaluator["path"], config.evaluator.get("name"))
        if self.data_format.name != self.evaluator.representation:
            check_route(self.data_format.name, self.evaluator.representation)
        self._reference: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def on_fit_start(self, trainer: L.Trainer, task: Any) -> None:
        """Time is counted from here; embeddings are taken where the model is."""
        self.timer.start()
        if trainer.is_global_zero and hasattr(self.evaluator, "to"):
            self.evaluator.to(task.device)

    def preflight(self, trainer: L.Trainer, task: Any) -> None:
        """Generate a few frames for the first caption and embed its real clip, to fail before training starts."""
        with isolate_rng(), evaluating(task):
            with inference_bundle(trainer, task) as bundle:
                pipeline_of(bundle).infer_t2m(self.captions[:1], [8], do_sample=self.sampling.do_sample, seed=0)
            if trainer.is_global_zero:
                self.text_motion_distances(self.captions[:1], self.real[:1], self.data_format.name)

    def on_validation_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        """Generate, embed, measure, log."""
        if trainer.sanity_checking or not self.cadence.due(trainer):
            return
        with self.timer.within(), isolate_rng():
            with inference_bundle(trainer, task) as bundle:
                motions = self._generate(trainer, bundle)
                made_of = bundle.representation
            values = self._measure_or_not(motions, made_of) if trainer.is_global_zero else {}
        values = trainer.strategy.broadcast(values, src=0)
        task.log_dict({**values, "val/evaluation_time_share": self.timer.share()}, rank_zero_only=False)

    def _generate(self, trainer: L.Trainer, bundle: Any) -> list[NDArray[np.float32] | None]:
        """A motion for every clip, or None where it failed or has no frames; all ranks' on every rank.

        Which seed a caption has depends neither on the number of ranks nor on what failed.
        """
        pipeline = pipeline_of(bundle)
        seeds = [seed for _, seed in seeded_rows(self.captions, self.config.seed)]
        made: dict[int, NDArray[np.float32] | None] = {}
        mine = share(trainer, len(self.names))
        for seed in sorted({seeds[i] or 0 for i in mine}):
            made |= self._some(pipeline, [i for i in mine if seeds[i] == seed], seed)
        return [_measurable(motion) for motion in gather(trainer, made).values()]

    def _some(
        self, pipeline: TextToMotionPipeline, clips: list[int], seed: int
    ) -> dict[int, NDArray[np.float32] | None]:
        """Motions of different captions with one seed; a failing batch is halved to isolate the failing caption."""
        if not clips:
            return {}
        settings: dict[str, Any] = {
            "do_sample": self.sampling.do_sample, "temperature": self.sampling.temperature,
            "top_k": self.sampling.top_k, "top_p": self.sampling.top_p,
            "guidance_scale": self.sampling.guidance_scale, "seed": seed,
        }  # fmt: skip
        try:
            rate = pipeline.motion_format.fps / self.data_format.fps
            lengths = [max(1, round(len(self.real[i]) * rate)) for i in clips]
            return dict(
                zip(clips, pipeline.infer_t2m([self.captions[i] for i in clips], lengths, **settings), strict=True)
            )
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 -- a run of days must not end for a measurement
            if len(clips) == 1:
                log.warning("the caption %r failed: %s", self.captions[clips[0]], error)
                return {clips[0]: None}
            half = len(clips) // 2
            return {**self._some(pipeline, clips[:half], seed), **self._some(pipeline, clips[half:], seed)}

    def _measure_or_not(self, motions: list[NDArray[np.float32] | None], made_of: str) -> dict[str, float]:
        """Failed clips are excluded from every metric and reported as ``val/failed``."""
        kept = [i for i, motion in enumerate(motions) if motion is not None]
        values = {f"val/{name}": float("nan") for name in FIGURES} | {"val/failed": 1 - len(kept) / len(motions)}
        if len(kept) < 2:
            log.warning("only %d of %d motions could be generated; nothing is evaluated", len(kept), len(motions))
            return values
        try:
            return values | self._measure(kept, [motion for motion in motions if motion is not None], made_of)
        except PROGRAMMING_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 -- as above
            log.warning("the evaluation failed: %s", error)
            return values

    def _measure(self, kept: list[int], generated: list[NDArray[np.float32]], made_of: str) -> dict[str, float]:
        """Values of the motions, of the representation `made_of`, that were made for the clips `kept`."""
        if self._reference is None:  # the same at every validation
            texts = self.evaluator.encode_texts(self.captions)
            self._reference = texts, self._embed(self.real, self.data_format.name)
        text, real = (embeddings[kept] for embeddings in self._reference)
        ours = self._embed(generated, made_of)
        figures = retrieval_figures(
            text, real, ours, [self.captions[i] for i in kept], pool=self.config.pool, repeats=self.config.repeats,
            seed=self.config.seed,
        )  # fmt: skip
        figures |= physical_figures(generated, get_representation(made_of))
        figures |= physical_figures([self.real[i] for i in kept], self.data_format, "real/")
        return {f"val/{name}": value for name, value in figures.items()}

    def text_motion_distances(
        self, texts: Sequence[str], motions: Sequence[NDArray[np.float32]], made_of: str
    ) -> NDArray[np.float32]:
        """How far each motion of the representation `made_of` is from its text, (n,)."""
        text = self.evaluator.encode_texts(list(texts))
        return np.asarray(np.linalg.norm(text - self._embed(motions, made_of), axis=1))

    def _embed(self, motions: Sequence[NDArray[np.float32]], made_of: str) -> NDArray[np.float32]:
        """Embeddings of motions, converted to what the evaluator reads and cut to the longest that it reads."""
        wanted, limit = self.evaluator.representation, self.evaluator.max_frames
        if made_of != wanted:
            motions = [np.asarray(convert(motion, made_of, wanted).values, np.float32) for motion in motions]
        return np.asarray(self.evaluator.encode_motions([motion[:limit] for motion in motions]))

    def state_dict(self) -> dict[str, Any]:
        """The cadence."""
        return self.cadence.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue in it."""
        self.cadence.load_state_dict(state)


def _measurable(motion: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """The motion if it has the four frames that jitter needs, and nothing that is not a number."""
    return motion if motion is not None and len(motion) >= 4 and np.isfinite(motion).all() else None
