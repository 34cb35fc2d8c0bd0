"""Hashes of large files, remembered between runs: 27 GB are not read again to know that they are what they were."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from hftrainer.files import sha256, write_text
from hftrainer.readers import FileError, read_json

_LARGE = 64 << 20  # bytes; smaller files are read each time
_SETTLED = 2.0  # seconds; a file that changed just now may change again without its times telling
_MOST = 10_000  # files that are remembered


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes.

    It is remembered by the file's device and number with its size and both its times. The time of the last change of
    any kind (ctime) cannot be set by a program, so a file that was written to, or put in another's place, is read.
    """
    found = path.stat()
    if found.st_size < _LARGE:
        return sha256(path)
    key = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
    known = _read()
    if key in known:
        return known[key]
    digest = sha256(path)
    after = path.stat()
    same = (after.st_mtime_ns, after.st_ctime_ns, after.st_size) == (
        found.st_mtime_ns, found.st_ctime_ns, found.st_size,
    )  # fmt: skip
    if same and time.time() - found.st_ctime > _SETTLED:
        known = dict(list({**_read(), key: digest}.items())[-_MOST:])
        with contextlib.suppress(OSError, RuntimeError):  # what cannot be remembered is read again
            write_text(_place(), json.dumps(known))
    return digest


def _place() -> Path:
    """Raises ``RuntimeError`` for a user without a home, as in containers that run under any number."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hftrainer" / "hashes.json"


def _read() -> dict[str, str]:
    try:
        known = read_json(_place())
    except (OSError, RuntimeError, FileError):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str) and len(value) == 64}
