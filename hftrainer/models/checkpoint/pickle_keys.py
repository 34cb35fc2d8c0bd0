"""What may be a key in a pickle, and values as messages show them."""

from __future__ import annotations

from typing import Any

from hftrainer.models.checkpoint.errors import CheckpointError

_KEYS = (str, bytes, int, float, bool, type(None))
# Numbers from here on have hashes of smaller ones: 30,000 keys of one hash take a dictionary seconds,
# 300,000 minutes. Hashes of text are drawn anew by a process.
_DIFFERENT = (1 << 61) - 1
# Tuples of numbers have equal hashes if a file wants it (-1 and -2 have one hash already), unless there are no more
# such tuples than hashes.
_TUPLE, _IN_TUPLE = 4, 1 << 16


def short(value: Any) -> str:
    """A value for a message: short scalars as they are, else the type; never a walk through what is nested."""
    if isinstance(value, _KEYS):
        shown = repr(value[:60] if isinstance(value, (str, bytes)) else value)
        return shown if len(shown) <= 80 else type(value).__name__
    return f"a {type(value).__name__}"


def check_key(value: Any) -> Any:
    """`value` if it can be a key whose hash is quick: a scalar, or a tuple of some. Raises `CheckpointError`."""
    if isinstance(value, tuple):
        fits = len(value) <= _TUPLE and all(_is_key(item, 0, _IN_TUPLE) for item in value)
        fits = fits and not any(isinstance(item, float) for item in value)
    else:
        fits = _is_key(value, 1 - _DIFFERENT, _DIFFERENT)
    if not fits:
        raise CheckpointError(f"its pickle has {short(value)} as a key; names or numbers are expected")
    return value


def _is_key(value: Any, least: int, below: int) -> bool:
    return isinstance(value, _KEYS) and not (isinstance(value, int) and not least <= value < below)
