"""Training the classifier that evaluates generated motions by their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.data.text_motion.labelled import LabelledBatch
from hftrainer.models.action_classifier import ActionClassifier
from hftrainer.registry import TASKS, Part
from hftrainer.training.released import optimizer_part
from hftrainer.training.task import Task


@dataclass
class ActionClassifierTaskConfig:
    """`style`: weight of the style head's loss. `noise`: standard deviation, in z-scores, added in training."""

    style: float = 0.5
    noise: float = 0.1
    label_smoothing: float = 0.05
    optimizer: Part = optimizer_part(lr=1e-3, weight_decay=0.02, schedule={"name": "cosine", "warmup": 100})


@TASKS.register("action_classifier")
class ActionClassifierTask(Task):
    """Cross-entropy of content and style."""

    Config = ActionClassifierTaskConfig
    bundle: ActionClassifier
    validates_in_shards = True
    logged = ("val/loss", "val/content_accuracy", "val/style_accuracy")

    def __init__(self, config: ActionClassifierTaskConfig, *, bundle: ActionClassifier, source: Any):
        if not hasattr(source, "contents"):
            raise ConfigError("data: training a classifier needs labels, e.g. name: labelled_clips")
        holds = getattr(source, "representation", None)
        if holds not in (None, bundle.config.representation):
            raise ConfigError(
                f"model.representation={bundle.config.representation}, but that of the dataset (data.root) is "
                f"{holds}; they must be the same"
            )
        bundle.config.contents = bundle.config.contents or source.contents
        bundle.config.styles = bundle.config.styles or source.styles
        if bundle.config.contents != source.contents or bundle.config.styles != source.styles:
            raise ConfigError("model.contents and model.styles must be empty, or match the data, in the same order")
        bundle = ActionClassifier(bundle.config)  # now that the number of labels is known
        super().__init__(bundle, config.optimizer)
        self.config = config
        bundle.mean.copy_(torch.as_tensor(source.statistics[0]))
        bundle.std.copy_(torch.as_tensor(source.statistics[1]))
        self.freeze_the_rest()

    def trained(self) -> list[nn.Module]:
        """All of it."""
        return [self.bundle]

    def training_step(self, batch: LabelledBatch, index: int) -> Tensor:
        """Loss of one batch."""
        noise = torch.randn_like(batch.motion) * self.bundle.std * self.config.noise
        logits = self.bundle(batch.motion + noise, batch.lengths)
        smoothing = self.config.label_smoothing
        content = F.cross_entropy(logits.content, batch.content, label_smoothing=smoothing)
        style = F.cross_entropy(logits.style, batch.style, label_smoothing=smoothing)
        loss: Tensor = content + self.config.style * style
        self.log_step({"loss": loss}, shown=["loss"])
        return loss

    def validation_step(self, batch: LabelledBatch, index: int) -> None:
        """Accuracy on complete clips."""
        logits = self.bundle(batch.motion, batch.lengths)
        content = (logits.content.argmax(dim=1) == batch.content).float().mean()
        style = (logits.style.argmax(dim=1) == batch.style).float().mean()
        loss = F.cross_entropy(logits.content, batch.content)
        self.log_validation({"loss": loss, "content_accuracy": content, "style_accuracy": style}, len(batch.motion))
