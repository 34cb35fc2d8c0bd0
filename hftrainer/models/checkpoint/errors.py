"""What goes wrong with weight files."""

from __future__ import annotations

from hftrainer.readers import FileError


class CheckpointError(FileError):
    """A weight file that cannot be used; the message names the file, the key, what came and what was expected."""


class UnsafeCheckpoint(CheckpointError):
    """A weight file that asks for something which could run code; nothing of it was run."""
