"""Files that are either complete or absent: written under a temporary name beside the target, then renamed.

A process may die at any moment. What it leaves then is a temporary name that says which process it belonged to; the
next process that writes to the folder removes it. A folder takes the place of another in one step where the system can
exchange two names (Linux); elsewhere the old one is put back at the next start.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from hftrainer.processes import is_running, this_process

# .NAME-PLACE-PID-START-RANDOM.part.SUFFIX or .folder; PLACE is the machine, or the container
_TEMPORARY = re.compile(r"\..*-([0-9a-f]{8})-(\d+)-(\d+)-[A-Za-z0-9_]+\.(?:part|folder)(?:\..*)?")
_swept: set[str] = set()
_MOST_SWEPT = 10_000
_FULL = 1 << 20  # bytes; a disk with less is full


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `target`; on success it is renamed to `target`, on failure removed.

    The suffix of `target` is kept, because writers such as ``np.save`` and ffmpeg look at it. A disk that is full, or
    read-only, is an ``OSError`` that names `target`.
    """
    target = Path(target)
    with _naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target.stem), suffix=".part" + target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with _naming(target):
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; outputs are ordinary ones
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes the place of `target`, on failure it is removed.

    A process that is killed in between leaves the old folder or the new one, complete.
    """
    target = Path(target)
    with _naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(target)
        staging = _make_folder(target.parent, target.name)
    try:
        with _naming(target):
            yield staging
            staging.chmod(0o777 & ~_umask())
            _take_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Put right what an `atomic_folder` of a process that was killed may have left of `target`."""
    old = _old(target)
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, target)
    remove_leftovers(target.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary names in `folder` whose processes are gone; looked for once by each process."""
    key = f"{os.getpid()} {os.path.abspath(folder)}"
    if key in _swept:
        return
    if len(_swept) >= _MOST_SWEPT:
        _swept.clear()  # a server writes to ever new folders
    _swept.add(key)
    here = this_process()[0]
    with contextlib.suppress(OSError):  # another process may be sweeping, too; a later one will
        for entry in os.scandir(folder):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or match[1] != here or is_running(int(match[2]), int(match[3])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that a process has not finished, or left when it was killed."""
    return _TEMPORARY.fullmatch(name) is not None


def temporary_folder(name: str) -> Path:
    """A new folder in the system's place for temporary files; those that killed processes left there are removed."""
    place = Path(tempfile.gettempdir())
    remove_leftovers(place)
    return _make_folder(place, f"hftrainer-{name}")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class Sparingly:
    """Calls that take a twentieth of the time at most, and others left out: of a file that grows with what it lists,
    and so would take quadratic time if it were written for each item."""

    def __init__(self) -> None:
        self.left_out = False
        self._next = 0.0

    def call(self, function: Callable[[], None]) -> None:
        """Call, or note that a call was left out."""
        start = time.monotonic()
        self.left_out = start < self._next
        if not self.left_out:
            function()
            end = time.monotonic()
            self._next = end + 20 * (end - start)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def check_writable(folder: str | os.PathLike[str], flag: str = "--out") -> Path:
    """Make `folder` and prove that a file can be created in it, before work is spent on what goes there."""
    folder = Path(folder)
    try:
        _create_in(folder)
    except OSError as error:
        raise ValueError(
            f"cannot write to the output folder {str(folder)!r}: {error.strerror}; choose another one with {flag}"
        ) from error
    remove_leftovers(folder)
    return folder


def check_file(path: str | os.PathLike[str]) -> Path:
    """Prove that the file `path` can be written, before work is spent on what goes there; its folder is made."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"cannot write the file {str(path)!r}: it is a folder")
    try:
        _create_in(path.parent)
    except OSError as error:
        raise ValueError(f"cannot write the file {str(path)!r}: {error.strerror}") from error
    return path


def _create_in(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=_prefix("writable"), suffix=".part"):
        pass


@contextlib.contextmanager
def replaced_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary copy of the folder `target`, which takes its place on success: several of its files change in
    one step.

    Files are linked, not copied, where the file system can, so they must be replaced (`atomic_path`), not written into.
    """
    target = Path(target).resolve()  # where a link to a folder leads
    with atomic_folder(target) as staging:
        shutil.copytree(target, staging, symlinks=True, dirs_exist_ok=True, copy_function=_link, ignore=_unfinished)
        yield staging


@contextlib.contextmanager
def only_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold `folder`, which is made, for what this process records in it; ``ValueError`` if another one does.

    The folder itself is locked: no file is left, and a process that is killed holds nothing. Systems and file systems
    without such locks allow all.
    """
    os.makedirs(folder, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows; two commands at once are the user's own care there
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise ValueError(
                    f"another command is writing into {os.fspath(folder)}; wait for it, or choose another folder"
                ) from error
        yield
    finally:
        os.close(handle)


# --- exchanging folders -----------------------------------------------------------------------------------------------


_TRIES = 100


def _take_place(staging: Path, target: Path) -> None:
    for _ in range(_TRIES):  # another process may write the same folder, or remove it, at any moment
        if not target.exists():
            try:
                os.replace(staging, target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        elif _exchange(staging, target):
            return  # `staging` is the old folder now, which the caller removes
        elif target.exists():
            break  # the file system cannot exchange names
    old = _old(target)
    os.replace(target, old)
    os.replace(staging, target)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the system or the file system cannot."""
    function = _renameat2()
    if function is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(function(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


@lru_cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return None


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}-old")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _unfinished(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if is_temporary(name)]


# --- temporary names --------------------------------------------------------------------------------------------------


def _prefix(name: str) -> str:
    place, pid, start = this_process()
    return f".{name[:40]}-{place}-{pid}-{start}-"


def _make_folder(parent: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(dir=parent, prefix=_prefix(name), suffix=".folder"))


@lru_cache
def _umask() -> int:
    """Of this process. Reading it means setting it, which other threads would see: it is done once, and early."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_umask()


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Let errors of the system name `target`: writers know their streams, not what for, and a full disk often makes
    them say something else."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        ours = isinstance(error, OSError) or type(error).__name__ in ("SafetensorError", "RuntimeError")
        if number is None and ours and _is_full(target.parent):
            number = errno.ENOSPC
        named = os.fspath(error.filename) if isinstance(error, OSError) and isinstance(error.filename, str) else ""
        if number is None or (named and not any(map(is_temporary, Path(named).parts))):
            raise
        raise OSError(number, os.strerror(number), str(target)) from error


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _FULL
    except OSError:
        return False
