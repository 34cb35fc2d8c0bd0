"""What is printed cannot steer a terminal: names from files have their control characters spelt out."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from hftrainer.readers import visible

# libraries that move the cursor or colour on purpose, and print nothing of ours
_TRUSTED = ("rich", "wandb", "click", "pip")
_CURSOR_UP = re.compile(r"(?:\x1b\[A)+|\n+")  # tqdm, between the lines of several bars, in a write of its own


class _Guarded:
    """A text stream that spells out control characters; everything else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        caller = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        if caller in _TRUSTED or (caller == "tqdm" and _CURSOR_UP.fullmatch(text)):
            return self._stream.write(text)
        parts = text.split("\r")  # bars go back to the start of their line
        self._stream.write("\r".join(map(visible, parts)) if caller == "tqdm" else visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tidy_warnings() -> Iterator[None]:
    """Inside, a warning is one line: Python's own form shows which line of ours warned, which is nothing to a user."""
    before = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _one_line(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    return f"warning: {' '.join(str(message).split())}\n"


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Inside, ``sys.stdout`` and ``sys.stderr`` spell out what would steer a terminal."""
    before = sys.stdout, sys.stderr
    guarded: Any = [_Guarded(stream) for stream in before]
    sys.stdout, sys.stderr = guarded
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
