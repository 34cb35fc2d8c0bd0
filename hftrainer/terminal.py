"""What is printed: it cannot steer a terminal, for names from files have their control characters spelt out, and no
terminal or closed stream makes a finished command fail."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from hftrainer.shown import visible

# libraries that move the cursor or colour on purpose, and print nothing of ours
_TRUSTED = ("rich", "wandb", "click", "pip")
_CURSOR_UP = re.compile(r"(?:\x1b\[A)+|\n+")  # tqdm, between the lines of several bars, in a write of its own
_OUTPUT = "<standard output>"


class _Guarded:
    """A text stream that spells out control characters, and letters that its encoding lacks; errors of the system say
    that it is the output that cannot be written. Everything else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        caller = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        if caller in _TRUSTED or (caller == "tqdm" and _CURSOR_UP.fullmatch(text)):
            return self._stream.write(text)
        parts = text.split("\r")  # bars go back to the start of their line
        self._put("\r".join(map(visible, parts)) if caller == "tqdm" else visible(text))
        return len(text)

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except OSError as error:
            raise _of_output(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _of_output(error) from error

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _of_output(error: OSError) -> OSError:
    return OSError(error.errno, error.strerror, _OUTPUT)  # with EPIPE, a BrokenPipeError


def is_output_closed(error: BaseException) -> bool:
    """Whether it says that who read our output has closed it, as `head` does; other pipes break for other reasons."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE and error.filename == _OUTPUT


def open_closed_streams() -> None:
    """Let standard streams that were closed before this process began go nowhere.

    Python has None for them, and the next file that is opened gets their number: what a library prints would go there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        stream = open(os.devnull, mode, encoding="utf-8")  # open until the process ends
        setattr(sys, name, stream)


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
