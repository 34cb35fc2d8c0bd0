"""``trainer.profiler: torch``: where the time of a few steps goes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch

from hftrainer.files import atomic_path

log = logging.getLogger(__name__)


class Trace(L.Callback):
    """Writes ``steps-N-M.json`` (for chrome://tracing or Perfetto) and a table of operators, of the first process.

    The steps are counted from 0; the first ones of a run are not like the others.
    """

    def __init__(self, folder: Path, first: int, last: int):
        self.folder, self.first, self.last = folder, first, last
        self._profile: Any = None

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, index: int) -> None:
        """Begin."""
        if trainer.is_global_zero and self._profile is None and trainer.global_step == self.first:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if task.device.type == "cuda":
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self._profile = torch.profiler.profile(activities=kinds, record_shapes=True)
            self._profile.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        """End, and write."""
        if self._profile is not None and trainer.global_step > self.last:
            self._write()

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        """A run that ends before is written as far as it got."""
        if self._profile is not None:
            self._write()

    def _write(self) -> None:
        profile, self._profile = self._profile, None
        profile.__exit__(None, None, None)
        name = f"steps-{self.first}-{self.last}"
        with atomic_path(self.folder / f"{name}.json") as temporary:
            profile.export_chrome_trace(str(temporary))
        table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30)
        with atomic_path(self.folder / f"{name}.txt") as temporary:
            temporary.write_text(table, encoding="utf-8")
        log.warning("the trace of steps %d to %d is in %s", self.first, self.last, self.folder)
