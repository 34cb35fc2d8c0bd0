"""Training the motion tokenizer (HumanVQVAE) to reconstruct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.data.motion.windows import MotionBatch
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.registry import TASKS, Part
from hftrainer.training.released import loss_part, optimizer_part
from hftrainer.training.task import BatchShape, Task

RELEASED_STEPS = {"name": "steps", "warmup": 48_000, "milestones": [348_000], "gamma": 0.05}


@dataclass
class TokenizerTaskConfig:
    """Losses and optimizer; the defaults are the release's.

    `train_encoder`: False keeps the codes of all motions as they are and trains their decoding, so that a transformer
    that was trained on the codes gets better motions without being trained again.
    """

    train_encoder: bool = True
    loss: Part = loss_part("reconstruction")
    optimizer: Part = optimizer_part(lr=5e-5, betas=[0.9, 0.99], schedule=RELEASED_STEPS)


@TASKS.register("motionmillion_tokenizer")
class TokenizerTask(Task):
    """Windows of motion in, reconstruction loss out; logs ``train/*``. Validation is a callback's."""

    Config = TokenizerTaskConfig
    bundle: MotionMillionBundle
    validates_in_shards = True
    logged = ("val/loss",)

    def __init__(self, config: TokenizerTaskConfig, *, bundle: MotionMillionBundle, source: Any):
        super().__init__(bundle, config.optimizer)
        if getattr(source, "statistics", None) is None:
            raise ConfigError("data: training a tokenizer needs motions with statistics, e.g. name: motion_windows")
        self.config = config
        mean, std = source.statistics
        bundle.set_statistics(mean, std, getattr(source, "representation", None))
        self.loss_terms = config.loss.build(representation=bundle.representation)
        self.freeze_the_rest()

    def trained(self) -> list[nn.Module]:
        """The tokenizer, or what comes after its codes."""
        return [self.bundle.vqvae] if self.config.train_encoder else self.bundle.vqvae.decoding_parts()

    def training_step(self, batch: MotionBatch, index: int) -> Tensor:
        """Loss of one batch."""
        out = self.bundle.vqvae(self.bundle.normalize(batch.motion), batch.lengths)
        terms = self.losses(batch, out.motion)
        self.log_step(terms, shown=["loss"])
        return terms["loss"]

    def outline_step(self, shape: BatchShape) -> Tensor:
        """The loss of a batch of windows without content; see `hftrainer.training.activations`."""
        motion = torch.empty(shape.rows, shape.frames, len(self.bundle.mean))
        batch = MotionBatch(motion, torch.empty(shape.rows, dtype=torch.long), [])
        out = self.bundle.vqvae(self.bundle.normalize(batch.motion))
        return self.losses(batch, out.motion)["loss"]

    def validation_step(self, batch: MotionBatch, index: int) -> dict[str, Tensor]:
        """The loss on complete clips; gives callbacks the reconstructed "motion", physical, and its "codes"."""
        out = self.bundle.vqvae(self.bundle.normalize(batch.motion), batch.lengths)
        self.log_validation({"loss": self.losses(batch, out.motion)["loss"]}, len(batch.names))
        return {"motion": self.bundle.denormalize(out.motion), "codes": out.codes}

    def losses(self, batch: MotionBatch, predicted: Tensor) -> dict[str, Tensor]:
        """Terms of `ReconstructionLoss` for a batch in physical units and its normalized reconstruction."""
        target = self.bundle.normalize(batch.motion)
        frames = predicted.shape[1]  # those of a last incomplete code are not decoded
        whole = batch.lengths // self.bundle.vqvae.frames_per_code * self.bundle.vqvae.frames_per_code
        mask = torch.arange(frames, device=target.device)[None] < whole[:, None]
        terms: dict[str, Tensor] = self.loss_terms(predicted, target[:, :frames], mask, self.bundle.denormalize)
        return terms
