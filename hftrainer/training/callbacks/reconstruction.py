"""Validation of a tokenizer by what it does to motions: position error, jitter, foot slide, use of the codebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from hftrainer import fields
from hftrainer.data.motion.windows import MotionBatch
from hftrainer.evaluation.reconstruction import foot_slide, mpjpe
from hftrainer.motion.representation.base import get_representation
from hftrainer.registry import CALLBACKS
from hftrainer.render.viewer import ViewerClip, write_viewer
from hftrainer.training.callbacks.ranks import gather_list
from hftrainer.training.callbacks.wandb_media import log_samples, wandb_log
from hftrainer.training.faults import best_effort_write


@dataclass
class ReconstructionConfig:
    """`clips`: so many validation clips, of all lengths, are shown beside their reconstructions; 0 for none."""

    clips: int = fields.number(4, at_least=0)


@CALLBACKS.register("reconstruction")
class ReconstructionMetrics(L.Callback):
    """Logs ``val/mpjpe_mm``, ``val/slide_ratio``, ``val/jitter_ratio`` (1 is as the real clips) and codebook use.

    Clips beside their reconstructions go to ``samples/step-.../reconstructions.html`` and to W&B.
    """

    Config = ReconstructionConfig
    logged = tuple(
        f"val/{name}"
        for name in (
            "mpjpe_mm", "mpjpe_clip_mm", "mpjpe_p95_mm", "slide_ratio", "jitter_ratio", "codes_perplexity",
            "codes_active",
        )
    )  # fmt: skip

    def __init__(self, config: ReconstructionConfig, *, output_dir: Path):
        self.config, self.output_dir = config, output_dir
        self._reset()

    def _reset(self) -> None:
        self.shown: list[tuple[str, np.ndarray, np.ndarray]] = []
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
        if task.repeated_batch:
            return
        form = get_representation(task.bundle.representation)
        stride = task.bundle.vqvae.frames_per_code
        show = self._shown_of(index, trainer.num_val_batches[loader])
        for row, length in enumerate((batch.lengths // stride * stride).tolist()):
            got = form.to_joints(outputs["motion"][row, :length].float().cpu().numpy())
            want = form.to_joints(batch.motion[row, :length].float().cpu().numpy())
            self.errors.append(mpjpe(got, want))
            self.slides.append((foot_slide(got, want, fps=form.fps), foot_slide(want, fps=form.fps)))
            self.jitters.append((_jitter(got), _jitter(want)))
            self.codes.append(outputs["codes"][row, : length // stride].cpu())
            if row < show:
                self.shown.append((batch.names[row], want, got))

    def on_validation_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        """Log the means over frames, of all processes."""
        for name in ("errors", "slides", "jitters", "codes", "shown"):
            setattr(self, name, gather_list(trainer, getattr(self, name)))
        self.shown = self.shown[: self.config.clips]
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
        if trainer.is_global_zero and self.shown and not trainer.sanity_checking:
            folder = self.output_dir / "samples" / f"step-{trainer.global_step:08d}"
            with best_effort_write(str(folder)):
                self._show(trainer, folder, get_representation(task.bundle.representation).fps)

    def _shown_of(self, batch: int, batches: int | float) -> int:
        """How many rows of a validation batch are shown; batches are sorted by length."""
        chosen = np.linspace(0, int(batches) - 1, self.config.clips).round()
        return int(np.sum(chosen == batch))

    def _show(self, trainer: Any, folder: Path, fps: float) -> None:
        rows, pages = [], []
        for number, (name, want, got) in enumerate(self.shown):
            error = 1000 * float(mpjpe(got, want).mean())
            pair = [
                ViewerClip(joints=want, title=f"{name}: original", fps=fps),
                ViewerClip(joints=got, title=f"{name}: reconstruction", notes={"mpjpe": f"{error:.1f} mm"}, fps=fps),
            ]
            pages += pair
            file = f"reconstruction_{number:02d}.html"
            rows.append({"clip": name, "frames": len(want), "mpjpe_mm": error, "files": []})
            if wandb_log(trainer) is not None:
                write_viewer(folder / file, pair, title=name)
                rows[-1]["files"] = [file]
        write_viewer(folder / "reconstructions.html", pages, title=f"step {trainer.global_step}")
        page = {"val/reconstruction_viewer": folder / "reconstructions.html"}
        log_samples(trainer, "val/reconstructions", rows, folder, page)


def _jitter(joints: np.ndarray) -> float:
    """Mean length of second differences, metres a frame squared."""
    return float(np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).mean()) if len(joints) > 2 else float("nan")


def _ratio(pairs: list[tuple[float, float]]) -> float:
    got, want = np.nanmean(np.array(pairs), axis=0)
    return float(got / want)
