"""A loss or gradient that is not a number never reaches the weights."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor

from hftrainer.config import ConfigError
from hftrainer.training.faults import NotFinite, describe_batch

log = logging.getLogger(__name__)


class NotFiniteGuard(L.Callback):
    """Looks at every step before the optimizer does, and logs ``train/grad_norm`` (before clipping).

    ``on_nan: stop`` raises `NotFinite`, which names the step and the samples; the weights are still good and are saved.
    ``skip`` leaves the step out (its schedule continues) and logs ``train/skipped_steps``; after `limit` in a row it
    stops all the same. Of DeepSpeed's gradients nothing is seen from outside: there only the loss is watched, and
    skipping is refused.
    """

    def __init__(self, on_nan: str, limit: int):
        self.skip, self.limit = on_nan == "skip", limit
        self.skipped = self.in_a_row = 0
        self._losses: list[Tensor] = []
        self._batches: list[Any] = []

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        """Refuse what cannot be done before anything is."""
        self._deepspeed = isinstance(trainer.strategy, DeepSpeedStrategy)
        self._scaled = str(trainer.precision).startswith("16")  # there, infinite gradients are how the scale is found
        if self._deepspeed and self.skip:
            raise ConfigError("trainer.on_nan=skip is not supported with DeepSpeed; use stop")

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, index: int) -> None:
        """Remember what the step is made of."""
        if index % trainer.accumulate_grad_batches == 0:
            self._losses, self._batches = [], []
        self._batches.append(batch)

    def on_before_backward(self, trainer: L.Trainer, task: L.LightningModule, loss: Tensor) -> None:
        """Remember the loss; nobody waits for it yet."""
        self._losses.append(loss.detach())
        if self._deepspeed:
            self._check(trainer, loss.detach(), "loss")

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: Any) -> None:
        """The last moment before the weights change."""
        if self._deepspeed:
            return
        total = torch.stack(self._losses).float().sum()
        if not self._scaled:
            norm = gradient_norm(task)
            task.log("train/grad_norm", norm)
            total = total + norm
        if self._check(trainer, total, "loss or gradient"):
            self.in_a_row = 0
        else:
            optimizer.zero_grad(set_to_none=True)  # a step without gradients changes nothing, nor its moments
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.skip:
            task.log("train/skipped_steps", float(self.skipped))

    def _check(self, trainer: L.Trainer, value: Tensor, what: str) -> bool:
        """Whether it is finite on all processes; if not, and it may not be skipped, raise on all of them."""
        mine = bool(torch.isfinite(value))
        if mine if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(mine, all=True):
            return True
        where = f"{what} of step {trainer.global_step} is not a finite number"
        samples = "; ".join(describe_batch(batch) for batch in self._batches)
        if not mine:
            where += f"; its samples: {samples}"
        if self.skip and self.in_a_row < self.limit:
            log.warning("%s. The step is skipped.", where)
            return False
        if self.skip:
            raise NotFinite(f"{where}. {self.limit} steps in a row were skipped before it; lower the learning rate")
        raise NotFinite(
            f"{where}. The weights before it are good and saved. Continue with trainer.on_nan=skip, "
            "or from an earlier checkpoint with resume=PATH and a lower learning rate"
        )

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting."""
        self.skipped = state["skipped"]


def gradient_norm(module: torch.nn.Module) -> Tensor:
    """Length of all gradients together, over all processes where they are sharded."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
