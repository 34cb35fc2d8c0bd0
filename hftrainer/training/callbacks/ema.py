"""An exponential moving average of the trained weights, used for validation and for what is saved as a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hftrainer.config import ConfigError
from hftrainer.fields import number
from hftrainer.registry import CALLBACKS
from hftrainer.training.sharding import gather_full, is_zero3, local_shard, reshard, shard_like


@dataclass
class EMAConfig:
    """`decay` a step; early on it is lowered to (1 + step) / (10 + step), so that the start is forgotten."""

    decay: float = number(0.999, at_least=0, below=1)


@CALLBACKS.register("ema")
class EMA(L.Callback):
    """Keeps a second copy of what trains (not of the frozen parts), and puts it in place during validation.

    Lightning's own averaging callback copies all of the module, frozen text encoder included.
    """

    Config = EMAConfig
    changes_training = True  # affects what is validated and saved; see `hftrainer.training.changes`
    logged = ()

    def __init__(self, config: EMAConfig):
        self.config = config
        self.shadow: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._loaded: dict[str, Tensor] | None = None
        self._task: L.LightningModule | None = None
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Start from the weights, or from the average that a checkpoint brought; float32, whatever the weights are."""
        current = _trained(task)
        if any(is_zero3(p) for p in current.values()):
            raise ConfigError("the ema callback does not support zero3; use fsdp2 or zero2")
        if self._loaded is not None:
            if self._loaded.keys() != current.keys():
                raise ValueError("the checkpoint's averaged parameters differ from those that are trained now")
            self.shadow = {name: shard_like(self._loaded[name], p).to(p.device).float() for name, p in current.items()}
            self._loaded = None
        elif not self.shadow:
            self.shadow = {name: local_shard(p).float().clone() for name, p in current.items()}
        self._task = task

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        """Move the average once an optimizer step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.config.decay, (1 + self._step) / (10 + self._step))
        names, current = zip(*_trained(task).items(), strict=True)
        with torch.no_grad():
            torch._foreach_lerp_([self.shadow[n] for n in names], [local_shard(p).float() for p in current], 1 - decay)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Validate the average."""
        self.swap_in(task)

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Continue training the weights."""
        self.swap_out(task)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        """A validation that ends early leaves the weights in place for what is saved then."""
        self.swap_out(task)

    def swap_in(self, task: L.LightningModule) -> None:
        """Put the average in place and keep the weights."""
        if self._kept or not self.shadow:
            return
        for name, p in _trained(task).items():
            self._kept[name] = local_shard(p).clone()
            _fill(p, self.shadow[name])

    def swap_out(self, task: L.LightningModule) -> None:
        """Put the weights back."""
        if self._kept:
            for name, p in _trained(task).items():
                _fill(p, self._kept[name])
        self._kept = {}

    def state_dict(self) -> dict[str, Any]:
        """The average, for a resume checkpoint: in full, on the first process; all processes have to call."""
        task, whole = self._task, {}
        for name, p in _trained(task).items() if task is not None else ():
            value = gather_full(self.shadow[name], p)
            if value is not self.shadow[name] and task is not None:  # tensor by tensor, to save memory
                value = value.cpu() if task.global_rank == 0 else value[:0]
            whole[name] = value
        return {"shadow": whole, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the average of a resume checkpoint when training starts: some strategies load late."""
        self._loaded, self._step = state["shadow"], state["step"]


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


@contextlib.contextmanager
def evaluating(task: L.LightningModule) -> Iterator[None]:
    """Within the block the task is in eval mode."""
    training = task.training
    task.eval()
    try:
        yield
    finally:
        task.train(training)


@contextlib.contextmanager
def inference_bundle(trainer: L.Trainer, task: Any, *, everywhere: bool = True) -> Iterator[Any]:
    """Within the block: `Task.inference_bundle`, the bundle as it would be saved and used, with averaged weights."""
    with averaged(trainer, task), task.inference_bundle(everywhere=everywhere) as bundle:
        yield bundle


def _trained(task: L.LightningModule) -> dict[str, Tensor]:
    reshard(task)
    return {name: p for name, p in task.named_parameters() if p.requires_grad}


@torch.no_grad()
def _fill(p: Tensor, values: Tensor) -> None:
    """Change this process's shard of a parameter, so that its version counter changes (packed weights check it)."""
    local_shard(p).copy_(values)
