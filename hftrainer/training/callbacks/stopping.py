"""A signal stops a run after the step that it is in, with a checkpoint."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import lightning as L

from hftrainer.training.faults import Stopped

log = logging.getLogger(__name__)


class StopOnSignal(L.Callback):
    """SIGTERM (a scheduler that wants the machine back) and SIGINT (Ctrl-C) end the run between two steps, on all
    processes at once, saved (by `Checkpoints`), with exit status 143 or 130. A second Ctrl-C does not wait.

    Lightning's own handler ends with status 0, saves nothing, and talks to other processes from inside the handler,
    in the middle of whatever they are doing.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._before: dict[int, Any] = {}

    def on_sanity_check_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Take the signals over, after Lightning did."""
        self.on_train_start(trainer, task)

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Take the signals over where no validation came before."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals only to the main thread
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, lambda n, frame: self._asked_to_stop(n, trainer))

    def _asked_to_stop(self, number: int, trainer: L.Trainer) -> None:
        again, self._asked = self._asked, number
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:
            log.warning("%s: stopping as soon as the step is complete", signal.Signals(number).name)
        if trainer.world_size == 1 and (trainer.validating or trainer.sanity_checking):
            raise Stopped(number)  # a validation has nothing that could be half done

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        """The step before is complete, and logged."""
        self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """A validation may take longer than the grace that a scheduler gives."""
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        """Several processes stop inside a validation together."""
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        if trainer.state.fn != "fit":
            return
        if trainer.world_size > 1:
            if not trainer.strategy.reduce_boolean_decision(bool(self._asked), all=False):
                return
            self._asked = self._asked or signal.SIGTERM
        if self._asked:
            raise Stopped(self._asked)

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
