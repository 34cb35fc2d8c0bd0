"""How fast training goes, what it waits for, and how far it has come."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import lightning as L
import torch
from torch import Tensor

# Dense 16-bit peak of a device, floating-point operations a second, by a part of its name (makers' data sheets).
PEAK_FLOPS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12,
    "A10G": 70e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "V100": 125e12, "B200": 2250e12,
}  # fmt: skip


class Speed(L.Callback):
    """Logs, every ``trainer.log_every_n_steps``, means over the steps since the last time:

    ``train/lr`` of the step (``train/lr_1`` ... of further groups), ``speed/step_seconds`` (validation and checkpoints
    left out), ``speed/tokens_per_second`` and ``speed/motions_per_second`` of all processes, ``speed/data_wait`` (share
    of the time in which training waits for batches), ``speed/mfu`` (share of the device's 16-bit peak; where the task
    counts operations and the device is known), ``memory/peak_gb`` (of this device, or of the process on a CPU),
    ``progress/samples`` and ``progress/epochs`` (of all processes, since the run began).
    """

    def __init__(self) -> None:
        self._rates: list[float] = []
        self._begun = 0.0
        self._forget()

    def _forget(self) -> None:
        self._seconds, self._waited, self._steps, self._motions = 0.0, 0.0, 0, 0
        self._tokens: Tensor | int = 0

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Count from here."""
        self._forget()
        self._waited = self._waiting(trainer)
        if task.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(task.device)

    def on_train_batch_start(self, trainer: L.Trainer, task: Any, batch: Any, index: int) -> None:
        """A batch is there."""
        self._begun = time.perf_counter()
        motions, tokens = task.work_of(batch)
        self._motions += motions
        self._tokens = self._tokens + tokens

    def on_before_optimizer_step(self, trainer: L.Trainer, task: Any, optimizer: Any) -> None:
        """The learning rates that this step is taken with."""
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, batch: Any, index: int) -> None:
        """Log, if it is time."""
        self._seconds += time.perf_counter() - self._begun
        if (index + 1) % trainer.accumulate_grad_batches:
            return
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            task.log_dict(self.values(trainer, task))
            waited = self._waiting(trainer)
            self._forget()
            self._waited = waited

    def values(self, trainer: Any, task: Any) -> dict[str, float]:
        """What is logged."""
        waited = self._waiting(trainer) - self._waited
        seconds, tokens = self._seconds + waited, float(self._tokens)
        data = trainer.datamodule
        position = data.position
        found = {"train/lr" if i == 0 else f"train/lr_{i}": rate for i, rate in enumerate(dict.fromkeys(self._rates))}
        found |= {
            "speed/step_seconds": seconds / self._steps,
            "speed/tokens_per_second": tokens * trainer.world_size / seconds,
            "speed/motions_per_second": self._motions * trainer.world_size / seconds,
            "speed/data_wait": waited / seconds,
            "memory/peak_gb": peak_memory(task.device) / 1e9,
            "progress/samples": float(position.samples),
            "progress/epochs": data.epochs,
        }
        operations, peak = task.flops_per_token(), peak_flops(task.device)
        if operations is not None and peak is not None:
            found["speed/mfu"] = operations * tokens / seconds / peak
        return found

    @staticmethod
    def _waiting(trainer: Any) -> float:
        loader = getattr(trainer.datamodule, "loader", None)
        return float(loader.waited) if loader is not None else 0.0


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch had allocated on a GPU, or the largest resident size of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_flops(device: torch.device) -> float | None:
    """What the device could do at most; None where that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
