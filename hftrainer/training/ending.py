"""The end of a run that was killed between its last checkpoint and its end."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loops.fit_loop import _FitLoop

from hftrainer.training.callbacks.final_validation import FinalValidation


class EndingLoop(_FitLoop):  # type: ignore[misc]
    """Lightning's loop, which skips a run that is continued from its last step: such a run would never be validated,
    and would lack what callbacks write at the end."""

    def run(self) -> None:
        """Train; or, with no step left, validate and end as after the last step."""
        self.setup_data()
        if not 0 < self.max_steps <= self.epoch_loop.global_step:
            super().run()
            return
        self.reset()
        self.on_run_start()
        if any(isinstance(callback, FinalValidation) and callback.wanted for callback in self.trainer.callbacks):
            self._validate()
        self.on_run_end()

    def _validate(self) -> None:
        loop = self.epoch_loop.val_loop
        loop.restarting = False  # the checkpoint was saved before any validation of this step
        self.trainer.validating = True
        loop.run()
        self.trainer.training = True


def end_properly(trainer: Any) -> None:
    """Let a trainer end a run that has no step left."""
    trainer.fit_loop.__class__ = EndingLoop
