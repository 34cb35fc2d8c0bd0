"""Validation by measuring: motions for a split's captions, judged by an evaluator beside the real ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray

from hftrainer.config import ConfigError
from hftrainer.data.folder import DatasetFolder, load_motion
from hftrainer.evaluation.metrics import evaluate_embeddings
from hftrainer.evaluation.physical import aggregate_physical_metrics, physical_metrics_from_motion
from hftrainer.models.motion.motionstreamer import MotionStreamer272Evaluator
from hftrainer.pipelines.motionmillion import MotionMillionPipeline, Sampling
from hftrainer.registry import CALLBACKS
from hftrainer.training.callbacks.cadence import Cadence, Timer
from hftrainer.training.callbacks.ema import deployed

log = logging.getLogger(__name__)
_NAMES = {"FID": "fid", "FID of unit vectors": "fid_normalized", "R@1": "r1", "R@2": "r2", "R@3": "r3"}


@dataclass
class T2MEvaluationConfig:
    """`evaluator`: a folder or hub name of a MotionStreamer-272 evaluator; `root` and `split`: real clips and captions.

    Each clip's first caption is used, and its motion is asked for in the real length (shorter ones stay shorter).
    `max_clips` takes the first so many. Pools for R-precision have `pool` motions, fewer where there are fewer clips.
    """

    evaluator: str
    root: str
    split: str = "val"
    max_clips: int = 512
    every: int = 1
    seed: int = 0
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    pool: int = 32
    repeats: int = 5

    def __post_init__(self) -> None:
        if min(self.every, self.max_clips, self.pool, self.repeats) < 1:
            raise ConfigError("every, max_clips, pool and repeats must be at least 1")


@CALLBACKS.register("t2m_evaluation")
class T2MEvaluationCallback(L.Callback):
    """Logs ``val/fid``, ``val/fid_normalized``, ``val/r1`` to ``r3``, ``val/matching``, ``val/diversity``, physical
    metrics (``val/slide`` and so on) and the real clips' values (``val/real_r1`` ...), all of which checkpoints may
    monitor, and ``val/evaluation_time_share``. Clips are shared out over ranks.
    """

    Config = T2MEvaluationConfig

    def __init__(self, config: T2MEvaluationConfig):
        self.config = config
        self.cadence, self.timer = Cadence(config.every), Timer()
        self.sampling = Sampling(config.do_sample, config.temperature, config.top_k, config.top_p)
        self.sampling.choice()
        folder = DatasetFolder(config.root)
        self.names = folder.names(config.split)[: config.max_clips]
        if len(self.names) < 2:
            raise ConfigError(
                f"split {config.split!r} of {config.root} has {len(self.names)} clips; at least 2 are needed"
            )
        self.captions = [folder.captions(name)[0].text for name in self.names]
        self.real = [load_motion(folder.motion_path(name)) for name in self.names]
        self.evaluator = MotionStreamer272Evaluator.from_pretrained(config.evaluator)

    def on_fit_start(self, trainer: L.Trainer, task: Any) -> None:
        """Time is counted from here."""
        self.timer.start()

    def on_validation_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        """Generate, embed, measure, log."""
        if trainer.sanity_checking or not self.cadence.due():
            return
        with self.timer.within(), isolate_rng():
            with deployed(trainer, task) as bundle:
                motions = self._generate(trainer, bundle)
            values = self._measure(motions) if trainer.is_global_zero else {}
        values = trainer.strategy.broadcast(values, src=0)
        task.log_dict({**values, "val/evaluation_time_share": self.timer.share()}, rank_zero_only=False)

    def _generate(self, trainer: L.Trainer, bundle: Any) -> list[NDArray[np.float32] | None]:
        """A motion for every clip, or None where it failed or has no frames; all ranks' on every rank."""
        mine = list(range(len(self.names)))[trainer.global_rank :: trainer.world_size]
        pipeline = MotionMillionPipeline(bundle)
        made: dict[int, NDArray[np.float32] | None] = dict.fromkeys(mine)
        settings: dict[str, Any] = {
            "do_sample": self.sampling.do_sample, "temperature": self.sampling.temperature,
            "top_k": self.sampling.top_k, "top_p": self.sampling.top_p, "seed": self.config.seed,
        }  # fmt: skip
        try:
            motions = pipeline.infer_t2m(
                [self.captions[i] for i in mine], [len(self.real[i]) for i in mine], **settings
            )
            made |= dict(zip(mine, motions, strict=True))
        except Exception as error:  # noqa: BLE001 -- a run of days must not end for a measurement
            log.warning("generating for the evaluation failed: %s", error)
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, made)
            made = {i: motion for part in parts for i, motion in part.items()}
        return [_measurable(made[i]) for i in range(len(self.names))]

    def _measure(self, motions: list[NDArray[np.float32] | None]) -> dict[str, float]:
        """Failed clips are counted, not hidden: they are left out of every metric and reported as ``val/failed``."""
        found = {i: motion for i, motion in enumerate(motions) if motion is not None}
        kept = list(found)
        failed = 1 - len(kept) / len(motions)
        if len(kept) < 2:
            log.warning("only %d of %d motions could be made; nothing is measured", len(kept), len(motions))
            return {"val/failed": failed}
        generated = list(found.values())
        limit = self.evaluator.config.max_motion_length
        text = self.evaluator.encode_texts([self.captions[i] for i in kept])
        real = self.evaluator.encode_motions([self.real[i][:limit] for i in kept])
        ours = self.evaluator.encode_motions([motion[:limit] for motion in generated])
        pool = min(self.config.pool, len(kept))
        pairs = min(300, len(kept) // 2)
        estimates = evaluate_embeddings(
            text, real, ours, repeats=self.config.repeats, seed=self.config.seed, pool=pool, pairs=pairs,
            groups=[self.captions[i] for i in kept],
        )  # fmt: skip
        values = {"val/failed": failed}
        for name, estimate in estimates.items():
            base, is_real = name.removesuffix(" real"), name.endswith(" real")
            key = _NAMES.get(base, base)
            values[f"val/{'real_' if is_real else ''}{key}"] = estimate.mean
        for prefix, clips in (("", generated), ("real_", [self.real[i] for i in kept])):
            rows = [
                physical_metrics_from_motion(clip, "ms272") for clip in clips if clip is not None and len(clip) >= 4
            ]
            for key, value in aggregate_physical_metrics(rows).items():
                if key != "n":
                    values[f"val/{prefix}{key.lower()}"] = value
        return values


def _measurable(motion: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """The motion if it has the four frames that jitter needs, and nothing that is not a number."""
    return motion if motion is not None and len(motion) >= 4 and np.isfinite(motion).all() else None
