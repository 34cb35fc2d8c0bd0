"""How often a callback acts, and which share of the time it takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Cadence:
    """True at the first call and every `every`-th one."""

    def __init__(self, every: int):
        self.every, self.calls = every, 0

    def due(self) -> bool:
        """Ask once at each occasion."""
        self.calls += 1
        return (self.calls - 1) % self.every == 0


class Timer:
    """Seconds inside a block, as a share of all seconds since `start`."""

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
