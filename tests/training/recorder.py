"""A callback for tests: the loss of every batch on every process, as the task logged it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L


class Recorder(L.Callback):
    def __init__(self, path: str):
        self.path = Path(path)

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, *_: Any) -> None:
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches  # Lightning has divided it
        row = {"step": trainer.global_step, "loss": loss}
        with open(f"{self.path}.{trainer.global_rank}", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def read(path: Path) -> list[float]:
    """Losses in order."""
    return [json.loads(line)["loss"] for line in path.read_text(encoding="utf-8").splitlines()]
