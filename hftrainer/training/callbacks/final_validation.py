"""The last step is validated, wherever it falls."""

from __future__ import annotations

from typing import Any

import lightning as L


class FinalValidation(L.Callback):
    """Ends training at ``max_steps`` in the way that early stopping does, after which Lightning validates.

    Left to itself it validates only at multiples of ``val_every_n_steps``, and the weights that a run ends with
    would have no figures.
    """

    def __init__(self, *, wanted: bool):
        self.wanted = wanted

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        """Ask to stop at the last step."""
        if self.wanted and 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
