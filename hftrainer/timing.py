"""What loading spends its time on, part by part; `hftrainer generate -v` prints it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("hftrainer.loading")


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Log, at level INFO, how many seconds the block took to load a part."""
    started = time.perf_counter()
    yield
    log.info("loading %s: %.2f s", part, time.perf_counter() - started)


def show_loading() -> None:
    """Print what `timed` logs, on stderr."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(logging.INFO)
