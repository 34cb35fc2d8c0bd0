"""What ends a run, and what must not: signals, full disks, and losses that are not numbers."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT}


# What a mistake in a program raises: no prompt and no file is to blame for it, so it ends the run.
PROGRAMMING_ERRORS = (AttributeError, ImportError, NameError, NotImplementedError, TypeError)


class Stopped(SystemExit):
    """A signal asked the run to stop, and it did after a checkpoint; the exit status is the shell's for that signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal = signal.Signals(number)

    def __str__(self) -> str:
        return f"stopped by {self.signal.name}"


class NotFinite(ValueError):
    """A loss or a gradient is NaN or infinite; the message names the step and the batch."""


class CheckpointFailed(OSError):
    """No checkpoint could be written and there is none to fall back on."""


@contextlib.contextmanager
def best_effort_write(what: str) -> Iterator[None]:
    """Files that are nice to have: where they cannot be written, that is said and training continues."""
    try:
        yield
    except OSError as error:
        log.warning("%s could not be written: %s. Training continues without it.", what, reason(error))


def reason(error: BaseException) -> str:
    """An error in a few words, with what to do about a full disk."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{text} (free disk space; missing files are then written again)" if is_full(error) else text


def is_full(error: BaseException) -> bool:
    """Whether a disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in FULL


def describe_batch(batch: Any, most: int = 16) -> str:
    """Which samples a batch is made of: the names of its clips, or its captions."""
    for field in ("names", "captions"):
        values = getattr(batch, field, None)
        if values:
            shown = ", ".join(repr(str(value)[:60]) for value in values[:most])
            more = f" and {len(values) - most} more" if len(values) > most else ""
            return f"{field} {shown}{more}"
    return f"a {type(batch).__name__} without names"
