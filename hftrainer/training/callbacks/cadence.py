"""How often a callback runs, and the fraction of the time it takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from hftrainer.config import ConfigError

UNITS = ("validations", "steps", "epochs")


class Cadence:
    """Whether a validation is one to act at: the first, each after another `every` of `unit` went by, and the last.

    An epoch is as many samples as the training data has.
    """

    def __init__(self, every: int, unit: str = "validations"):
        if unit not in UNITS:
            raise ConfigError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
        if every < 1:
            raise ConfigError(f"every must be at least 1, got {every}")
        self.every, self.unit = every, unit
        self.validations, self.done = 0, -1

    def due(self, trainer: Any) -> bool:
        """Ask once at each validation."""
        position = {
            "validations": self.validations,
            "steps": trainer.global_step,
            "epochs": int(getattr(trainer.datamodule, "epochs", 0)),
        }[self.unit]
        self.validations += 1
        new = bool(position // self.every > self.done)
        last = bool(trainer.global_step >= trainer.max_steps)
        self.done = max(self.done, position // self.every)
        return new or last

    def state_dict(self) -> dict[str, Any]:
        """For a resume checkpoint."""
        return {"validations": self.validations, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting."""
        self.validations, self.done = state["validations"], state["done"]


class Timer:
    """Seconds inside a block, as a fraction of all seconds since `start`."""

    def __init__(self) -> None:
        self.inside, self.begun = 0.0, time.perf_counter()

    def start(self) -> None:
        """Count from now."""
        self.inside, self.begun = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def within(self) -> Iterator[None]:
        """The block that is timed."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.inside += time.perf_counter() - start

    def share(self) -> float:
        """Inside over all."""
        return self.inside / max(time.perf_counter() - self.begun, 1e-9)
