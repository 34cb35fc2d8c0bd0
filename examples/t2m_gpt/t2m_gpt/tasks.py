"""Training both stages of T2M-GPT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.registry import OPTIMIZERS, TASKS, part
from hftrainer.training.task import Task
from t2m_gpt.bundle import T2MGPT


@dataclass
class VQTaskConfig:
    """Weights of the losses on velocities and commitment (equation 5)."""

    velocity: float = 0.5
    commitment: float = 0.02
    optimizer: Any = part(OPTIMIZERS, "adamw")


@TASKS.register("t2m_gpt_vqvae")
class VQTask(Task):
    """Windows of motion in, reconstruction out."""

    Config = VQTaskConfig
    bundle: T2MGPT
    logged = ("val/loss",)

    def __init__(self, config: VQTaskConfig, *, bundle: T2MGPT, source: Any):
        super().__init__(bundle, config.optimizer)
        if getattr(source, "statistics", None) is None:
            raise ConfigError("data: training a VQ-VAE needs motions with statistics, e.g. name: motion_windows")
        self.config = config
        bundle.set_statistics(*source.statistics, getattr(source, "representation", None))
        self.freeze_the_rest()

    def trained(self) -> list[nn.Module]:
        """The VQ-VAE."""
        return [self.bundle.vqvae]

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Loss of one batch."""
        loss, _ = self.loss(batch)
        self.log_step({"loss": loss}, shown=["loss"])
        return loss

    def validation_step(self, batch: Any, index: int) -> dict[str, Tensor]:
        """The same on complete clips; callbacks get the reconstructed motion and its codes."""
        loss, seen = self.loss(batch)
        self.log_validation({"loss": loss}, len(batch.lengths))
        return seen

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Smooth L1 of features and velocities, and commitment."""
        target = self.bundle.normalize(batch.motion)
        made, codes, commitment = self.bundle.vqvae(target)
        frames = made.shape[1]
        mask = torch.arange(frames, device=made.device)[None] < batch.lengths.to(made.device)[:, None]
        loss = smooth_l1(made, target[:, :frames], mask)
        loss = loss + self.config.velocity * smooth_l1(made.diff(dim=1), target[:, :frames].diff(dim=1), mask[:, 1:])
        return loss + self.config.commitment * commitment, {"motion": self.bundle.denormalize(made), "codes": codes}


def smooth_l1(made: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries (b, t) where `mask` is true."""
    each = F.smooth_l1_loss(made, target, reduction="none").mean(dim=-1)
    return (each * mask).sum() / mask.sum()


@dataclass
class GPTTaskConfig:
    """Only the optimizer; how codes are corrupted is the data's `token_keep_prob`."""

    optimizer: Any = part(OPTIMIZERS, "adamw")


@TASKS.register("t2m_gpt_gpt")
class GPTTask(Task):
    """Captions and codes in, next-code loss out."""

    Config = GPTTaskConfig
    bundle: T2MGPT
    logged = ("val/loss",)

    def __init__(self, config: GPTTaskConfig, *, bundle: T2MGPT, source: Any):
        super().__init__(bundle, config.optimizer)
        tokens = getattr(source, "tokens", None)
        if bundle.gpt is None or tokens is None:
            raise ConfigError("training the GPT needs model.gpt, and data with captions and tokens, e.g. text_tokens")
        codes = bundle.vqvae.quantizer.codebook_size
        if tokens.codebook_size != codes:
            raise ConfigError(
                f"{tokens.folder} has codes of a codebook of {tokens.codebook_size}, the model's has {codes}"
            )
        if bundle.tokenizer_sha256 is not None:
            tokens.check_tokenizer(bundle.tokenizer_sha256)
        self.freeze_the_rest()

    def trained(self) -> list[nn.Module]:
        """The GPT."""
        return [self.bundle.gpt]

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Loss of one batch."""
        loss = self.loss(batch)
        self.log_step({"loss": loss}, shown=["loss"])
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """The same on complete clips."""
        self.log_validation({"loss": self.loss(batch)}, int(batch.lengths.sum()) + len(batch.captions))

    def loss(self, batch: Any) -> Tensor:
        """Cross-entropy over codes and END."""
        gpt, device = self.bundle.gpt, batch.codes.device
        if batch.codes.shape[1] > gpt.longest:
            raise ValueError(
                f"a row of {batch.codes.shape[1]} codes: model.gpt.longest is {gpt.longest} (data.max_tokens)"
            )
        with torch.no_grad():
            text = self.bundle.sentence(batch.captions)
        logits = gpt(text, batch.codes.clamp(min=0))
        place = torch.arange(logits.shape[1], device=device)[None]
        lengths = batch.lengths.to(device)[:, None]
        target = F.pad(batch.codes, (0, 1), value=-1)
        target = torch.where(place < lengths, target, torch.where(place == lengths, gpt.codes, -100))
        return F.cross_entropy(logits.transpose(1, 2), target, ignore_index=-100)
