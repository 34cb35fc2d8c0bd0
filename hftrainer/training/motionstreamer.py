"""Training an evaluator of the MotionStreamer-272 kind: texts and motions into one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.data.text_motion.pairs import TextMotionBatch
from hftrainer.evaluation.metrics import matching_distance, r_precision
from hftrainer.fields import number
from hftrainer.models.motion.motionstreamer import Gaussian, MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer.text_model import new_tokenizer
from hftrainer.registry import TASKS, Part
from hftrainer.training.contrastive import SentenceSimilarity
from hftrainer.training.released import loss_part, optimizer_part
from hftrainer.training.task import Task


@dataclass
class EvaluatorTaskConfig:
    """Losses and optimizer; the defaults are the release's.

    `train_text_model`: also the language model, which a new one needs; a released one stays frozen. `sentence_model`: a
    folder or hub name; captions whose cosine under it is above `alike_above` are no negatives. Nor are equal captions
    (the release's bound of 1 - 1e-100 is 1, so that it keeps exact duplicates) or rows of one group of the data.
    `init`: the folder of an evaluator of the same sizes, whose weights and tokenizer training starts from.
    `decoder_layers`: as many as an encoder has, if not given; two passes through it are most of what a step costs.
    """

    loss: Part = loss_part("text_motion")
    train_text_model: bool = False
    init: str | None = None
    sentence_model: str | None = None
    alike_above: float = number(0.85, at_least=-1, at_most=1)
    decoder_layers: int | None = number(None, at_least=1)
    optimizer: Part = optimizer_part(lr=1e-4, weight_decay=0.01, schedule={"name": "constant"})


@TASKS.register("motionstreamer272")
class EvaluatorTask(Task):
    """Captions and motions in; a decoder, which is thrown away afterwards, keeps latents about the motion."""

    Config = EvaluatorTaskConfig
    bundle: MotionStreamer272Evaluator
    logged = (
        "val/loss", "val/reconstruction", "val/kl", "val/latent", "val/contrastive", "val/MM-Dist", "val/R@1",
        "val/R@2", "val/R@3",
    )  # fmt: skip

    def __init__(self, config: EvaluatorTaskConfig, *, bundle: MotionStreamer272Evaluator, source: Any):
        super().__init__(bundle, config.optimizer)
        if getattr(source, "statistics", None) is None or not hasattr(source, "train_captions"):
            raise ConfigError("data: an evaluator needs motions with captions and statistics, e.g. name: text_motion")
        holds = getattr(source, "representation", None)
        if holds not in (None, bundle.representation):
            raise ConfigError(
                f"the evaluator (model) reads {bundle.representation}, but the dataset (data.root) is {holds}"
            )
        if bundle.config.text.source is None and not config.train_text_model and config.init is None:
            raise ConfigError(
                "task.train_text_model must be true: model.text.source is null, so its weights are untrained"
            )
        self.config, self.loss_terms = config, config.loss.build()
        bundle.set_statistics(*source.statistics)
        if config.init is not None:
            start_from(bundle, config.init)
        if bundle.tokenizer is None:
            bundle.tokenizer = new_tokenizer(source.train_captions(), bundle.config.text.vocab_size)
        self.decoder = bundle.new_decoder(config.decoder_layers)
        self._similar = (
            None if config.sentence_model is None else SentenceSimilarity(config.sentence_model, config.alike_above)
        )
        self._seen: list[tuple[Tensor, Tensor, list[str]]] = []
        self.freeze_the_rest()

    def trained(self) -> list[nn.Module]:
        """Both encoders and the decoder."""
        return [self.bundle.text_encoder, self.bundle.motion_encoder, self.decoder]

    def frozen_inside(self) -> list[nn.Module]:
        """The language model, unless it is asked to train."""
        return [] if self.config.train_text_model else [self.bundle.text_encoder.text_model]

    def training_step(self, batch: TextMotionBatch, index: int) -> Tensor:
        """Loss of one batch."""
        terms, _, _ = self.losses(batch)
        self.log_step(terms, shown=["loss"])
        return terms["loss"]

    def validation_step(self, batch: TextMotionBatch, index: int) -> None:
        """The training loss at the Gaussians' means."""
        terms, text, motion = self.losses(batch)
        self.log_validation(terms, len(batch.captions))
        groups = [f"#{g}" if g >= 0 else c for g, c in zip(batch.groups.tolist(), batch.captions, strict=True)]
        self._seen.append((text.mean.cpu(), motion.mean.cpu(), groups))

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._seen = []

    def on_validation_epoch_end(self) -> None:
        """Retrieval in pools of 32, or of all there are; rows of one group, or with one caption, count as right."""
        text, motion = (torch.cat([row[i] for row in self._seen]).numpy() for i in (0, 1))  # type: ignore[misc]
        groups = [group for _, _, part in self._seen for group in part]
        pool = min(32, len(groups))
        shares = r_precision(text, motion, min(3, pool), pool, groups)
        self.log_dict({f"val/R@{k}": float(share) for k, share in enumerate(shares, 1)})
        self.log("val/MM-Dist", matching_distance(text, motion))

    def losses(self, batch: TextMotionBatch) -> tuple[dict[str, Tensor], Gaussian, Gaussian]:
        """Terms of `TextMotionLoss`; what the texts and the motions were encoded as."""
        mask = torch.arange(batch.motion.shape[1], device=batch.motion.device)[None] < batch.lengths[:, None]
        target = self.bundle.normalize(batch.motion) * mask[..., None]
        text, motion = self.bundle.text_gaussian(batch.captions), self.bundle.motion_gaussian(target, batch.lengths)
        latents = (text.sample(), motion.sample()) if self.training else (text.mean, motion.mean)
        decoded = self.decoder(latents[0], mask), self.decoder(latents[1], mask)
        terms = self.loss_terms(text, motion, latents, decoded, target, self.alike(batch))
        return terms, text, motion

    def alike(self, batch: TextMotionBatch) -> Tensor:
        """Pairs of rows (b, b) that must not be told apart."""
        numbers = {caption: number for number, caption in enumerate(batch.captions)}
        same = torch.tensor([numbers[caption] for caption in batch.captions], device=batch.groups.device)
        alike = same[:, None] == same[None]
        alike |= (batch.groups[:, None] == batch.groups[None]) & (batch.groups >= 0)[:, None]
        if self._similar is not None:
            alike |= self._similar(batch.captions).to(alike.device)
        return alike


def start_from(bundle: MotionStreamer272Evaluator, folder: str) -> None:
    """Copy both encoders and the tokenizer of an evaluator's folder; `ConfigError` if its sizes are others."""
    other = MotionStreamer272Evaluator.from_pretrained(folder)
    for name in ("text_encoder", "motion_encoder"):
        try:
            getattr(bundle, name).load_state_dict(getattr(other, name).state_dict())
        except RuntimeError as error:
            raise ConfigError(f"task.init: {folder} is of other sizes than the model section: {error}") from error
    bundle.tokenizer = other.tokenizer
