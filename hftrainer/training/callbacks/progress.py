"""A bar that knows where the run ends, also after it was resumed."""

from __future__ import annotations

from typing import Any

import lightning as L
from tqdm import tqdm

_REFRESH = 0.5  # seconds


class Progress(L.Callback):
    """Steps of all steps, the time that is left, and the values that tasks log for the bar.

    Lightning's bar sees training as one epoch without an end, and has no time left to show.
    """

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """The bar begins at the step that the run has reached; its rate is that of the steps from there on."""
        if trainer.is_global_zero:
            self._bar = tqdm(
                total=int(trainer.max_steps), initial=trainer.global_step, unit="step", mininterval=_REFRESH,
                dynamic_ncols=True,
            )  # fmt: skip

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        """Move on."""
        if self._bar is None or trainer.global_step == self._bar.n:
            return
        shown = {name.rpartition("/")[2]: f"{float(v):.4g}" for name, v in trainer.progress_bar_metrics.items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Say why it stands still."""
        if self._bar is not None:
            self._bar.set_description("validating")

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Training continues."""
        if self._bar is not None:
            self._bar.set_description(None)

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        """Leave the last line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
