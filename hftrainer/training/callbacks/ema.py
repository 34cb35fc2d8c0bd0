"""An exponential moving average of the trained weights, used for validation and for what is saved as a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hftrainer.registry import CALLBACKS


@dataclass
class EMAConfig:
    """`decay` a step; early on it is lowered to (1 + step) / (10 + step), so that the start is forgotten."""

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")


@CALLBACKS.register("ema")
class EMA(L.Callback):
    """Keeps a second copy of what trains (not of the frozen parts), and puts it in place during validation.

    Lightning's own averaging callback copies the whole module, frozen text encoder included.
    """

    Config = EMAConfig

    def __init__(self, config: EMAConfig):
        self.config = config
        self.shadow: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._step = 0

    def on_fit_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Start from the weights, unless a checkpoint brought an average."""
        current = _trained(task)
        if not self.shadow:
            self.shadow = {name: p.detach().clone() for name, p in current.items()}
        self.shadow = {name: value.to(current[name].device) for name, value in self.shadow.items()}

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        """Move the average once an optimizer step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.config.decay, (1 + self._step) / (10 + self._step))
        names, current = zip(*_trained(task).items(), strict=True)
        with torch.no_grad():
            torch._foreach_lerp_([self.shadow[n] for n in names], [p.detach() for p in current], 1 - decay)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Validate the average."""
        self.swap_in(task)

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Go on training the weights."""
        self.swap_out(task)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        """A validation that ends early leaves the weights in place for what is saved then."""
        self.swap_out(task)

    def swap_in(self, task: L.LightningModule) -> None:
        """Put the average in place and keep the weights."""
        if self._kept or not self.shadow:
            return
        for name, p in _trained(task).items():
            self._kept[name] = p.detach().clone()
            p.data.copy_(self.shadow[name])

    def swap_out(self, task: L.LightningModule) -> None:
        """Put the weights back."""
        for name, p in _trained(task).items():
            if name in self._kept:
                p.data.copy_(self._kept[name])
        self._kept = {}

    def state_dict(self) -> dict[str, Any]:
        """The average, for a resume checkpoint."""
        return {"shadow": self.shadow, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the average of a resume checkpoint."""
        self.shadow, self._step = state["shadow"], state["step"]


@contextlib.contextmanager
def averaged(trainer: L.Trainer, task: L.LightningModule) -> Iterator[None]:
    """Within the block the task has its averaged weights, if an average is kept."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EMA) and not callback._kept:
            callback.swap_in(task)
            try:
                yield
            finally:
                callback.swap_out(task)
            return
    yield


def _trained(task: L.LightningModule) -> dict[str, Tensor]:
    return {name: p for name, p in task.named_parameters() if p.requires_grad}
