"""Training the classifier that judges generated motions by their labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.data.text_motion.labelled import LabelledBatch
from hftrainer.models.action_classifier import ActionClassifier
from hftrainer.registry import TASKS
from hftrainer.training.schedules import OptimizerConfig
from hftrainer.training.task import Task


@dataclass
class ActionClassifierTaskConfig:
    """`style`: weight of the style head's loss. `noise`: standard deviation, in z-scores, added in training."""

    style: float = 0.5
    noise: float = 0.1
    label_smoothing: float = 0.05
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3, warmup=100, weight_decay=0.02))


@TASKS.register("action_classifier")
class ActionClassifierTask(Task):
    """Cross-entropy of content and style."""

    Config = ActionClassifierTaskConfig
    bundle: ActionClassifier

    def __init__(self, config: ActionClassifierTaskConfig, *, bundle: ActionClassifier, source: Any):
        if not hasattr(source, "contents"):
            raise ConfigError("data: training a classifier needs labels, e.g. name: labelled_clips")
        bundle.config.contents = bundle.config.contents or source.contents
        bundle.config.styles = bundle.config.styles or source.styles
        if bundle.config.contents != source.contents or bundle.config.styles != source.styles:
            raise ConfigError("model.contents and model.styles must be those of the data, in its order, or empty")
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
        self.log("train/loss", content + self.config.style * style, prog_bar=True)
        return content + self.config.style * style

    def validation_step(self, batch: LabelledBatch, index: int) -> None:
        """Accuracy on whole clips."""
        logits = self.bundle(batch.motion, batch.lengths)
        content = (logits.content.argmax(dim=1) == batch.content).float().mean()
        style = (logits.style.argmax(dim=1) == batch.style).float().mean()
        loss = F.cross_entropy(logits.content, batch.content)
        self.log_dict(
            {"val/loss": loss, "val/content_accuracy": content, "val/style_accuracy": style},
            batch_size=len(batch.motion),
        )
