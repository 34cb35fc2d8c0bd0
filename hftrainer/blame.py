"""One sentence for an error that bad input or a full machine causes, and none for a bug.

What users do wrong is a ``ValueError`` with a sentence of its own. Libraries below meet damaged files in their own ways
(too deep, out of memory, ended early): those are told with the file that was being read.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterator

TRACEBACK = "HFTRAINER_TRACEBACK"  # environment variable: keep the traceback of every error
_BY_LIBRARIES = ("SafetensorError", "YAMLError", "BadZipFile", "TarError", "ReadError", "zlib.error", "error")
_CODE = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {sys.prefix})
_NOT_INPUT = (".py", ".pyc", ".so", ".yaml.lock")


class Opened:
    """The file that was opened last for reading, of those that are input."""

    path: str | None = None


@contextlib.contextmanager
def last_file() -> Iterator[Opened]:
    """Follows which file is opened last, so that an error from deep inside a library can name it."""
    opened = Opened()
    _following.append(opened)
    _install()
    try:
        yield opened
    finally:
        _following.remove(opened)


def explain(error: BaseException, opened: Opened) -> str | None:
    """One sentence for a user; None for an error that is a bug, whose traceback is needed."""
    if isinstance(error, (ValueError, OSError)) and not isinstance(error, UnicodeError):
        return str(error) or type(error).__name__
    if isinstance(error, ImportError):
        if not any(text in str(error) for text in _UNLOADABLE):
            return str(error) if type(error).__name__ == "MissingExtra" else None
        return f"not enough memory ({_one_line(error)})"
    where = f"; the last file read was {opened.path!r}" if opened.path else ""
    if isinstance(error, RecursionError):
        return f"data is nested too deeply{where}"
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return f"not enough memory ({_one_line(error)}){where}"
    if isinstance(error, EOFError):
        return f"a file ends too early ({_one_line(error)}){where}"
    if isinstance(error, (RuntimeError, UnicodeError, OverflowError)) or _of_library(error) or is_panic(error):
        return f"{_one_line(error)}{where}; set {TRACEBACK}=1 for the traceback"
    return None


_UNLOADABLE = ("failed to map segment", "annot allocate memory")  # what the loader says of a library
_MEMORY = ("allocate memory", "out of memory", "Cannot allocate", "can't start new thread", "ThreadPoolBuildError")


def _is_out_of_memory(error: BaseException) -> bool:
    return (isinstance(error, RuntimeError) or is_panic(error)) and any(text in str(error) for text in _MEMORY)


def is_panic(error: BaseException) -> bool:
    """Whether it is the end of a library in Rust, which is no `Exception`."""
    return type(error).__name__ == "PanicException"


def _of_library(error: BaseException) -> bool:
    return any(kind.__name__ in _BY_LIBRARIES for kind in type(error).__mro__)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:2000] or type(error).__name__


# --- following which files are opened ---------------------------------------------------------------------------------

_following: list[Opened] = []
_installed = False


def _install() -> None:
    """A hook of the interpreter cannot be taken away again; without anybody who follows it does nothing."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not _following:
        return
    path, _, flags = arguments
    if not isinstance(path, (str, bytes)) or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
        return
    name = os.fsdecode(path)
    if not name.endswith(_NOT_INPUT) and not name.startswith(("/proc", "/sys", "/dev", *_CODE)):
        for opened in _following:
            opened.path = name
