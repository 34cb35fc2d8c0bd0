"""Validation of a tokenizer by what it does to motions: position error, jitter, foot slide, use of the codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from hftrainer.data.windows import MotionBatch
from hftrainer.evaluation.reconstruction import foot_slide, mpjpe
from hftrainer.motion.representation import motion272
from hftrainer.registry import CALLBACKS


@dataclass
class ReconstructionConfig:
    """Nothing to set."""


@CALLBACKS.register("reconstruction")
class ReconstructionMetrics(L.Callback):
    """Logs ``val/mpjpe_mm``, ``val/slide_ratio``, ``val/jitter_ratio`` (1 is as the real clips) and codebook use."""

    Config = ReconstructionConfig

    def __init__(self, config: ReconstructionConfig | None = None):
        self._reset()

    def _reset(self) -> None:
        self.errors: list[np.ndarray] = []
        self.slides: list[tuple[float, float]] = []
        self.jitters: list[tuple[float, float]] = []
        self.codes: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, task: Any) -> None:
        """Forget the last validation."""
        self._reset()

    def on_validation_batch_end(
        self, trainer: L.Trainer, task: Any, outputs: Any, batch: MotionBatch, index: int, loader: int = 0
    ) -> None:
        """Take the motions that the task's validation step reconstructed."""
        stride = task.bundle.vqvae.frames_per_code
        for row, length in enumerate((batch.lengths // stride * stride).tolist()):
            got = motion272.to_joints(outputs["motion"][row, :length].float().cpu().numpy())
            want = motion272.to_joints(batch.motion[row, :length].float().cpu().numpy())
            self.errors.append(mpjpe(got, want))
            self.slides.append((foot_slide(got, want), foot_slide(want)))
            self.jitters.append((_jitter(got), _jitter(want)))
            self.codes.append(outputs["codes"][row, : length // stride].cpu())

    def on_validation_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        """Log the means over frames."""
        perplexity, active = task.bundle.codebook_use(torch.cat(self.codes))
        per_clip = np.array([error.mean() for error in self.errors])
        task.log_dict(
            {
                "val/mpjpe_mm": 1000 * float(np.concatenate(self.errors).mean()),
                "val/mpjpe_clip_mm": 1000 * float(per_clip.mean()),
                "val/mpjpe_p95_mm": 1000 * float(np.percentile(per_clip, 95)),
                "val/slide_ratio": _ratio(self.slides),
                "val/jitter_ratio": _ratio(self.jitters),
                "val/codes_perplexity": perplexity,
                "val/codes_active": active,
            }
        )


def _jitter(joints: np.ndarray) -> float:
    """Mean length of second differences, metres a frame squared."""
    return float(np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).mean()) if len(joints) > 2 else float("nan")


def _ratio(pairs: list[tuple[float, float]]) -> float:
    got, want = np.nanmean(np.array(pairs), axis=0)
    return float(got / want)
