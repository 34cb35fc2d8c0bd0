"""Checkpoint files that are complete or absent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from hftrainer.files import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):  # type: ignore[misc]
    """Writes beside the target, syncs, and renames; nothing of a killed or failed save takes the place of a good file.

    Lightning's own writer builds the file in memory a second time, puts it into the system's temporary folder, and
    moves it: where that is another file system, the move is a copy over the target, which a kill cuts off.
    Strategies that write folders (DeepSpeed, sharded FSDP) do not come here; `Checkpoints` points ``last.ckpt`` at a
    folder only when it is complete.
    """

    def __init__(self) -> None:
        self._held: list[OSError] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`; raises ``OSError`` (a full disk, say) unless inside `holding`."""
        try:
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if self._held is None:
                raise
            self._held.append(error)

    @contextlib.contextmanager
    def holding(self) -> Iterator[list[OSError]]:
        """Inside, errors of saving are put into the list that is yielded: the process that writes must not leave the
        others waiting at the barrier that follows."""
        self._held = []
        try:
            yield self._held
        finally:
            self._held = None


def clear_leftovers(folder: Path) -> None:
    """Remove temporary files that killed saves left."""
    for path in folder.glob(".*.part.ckpt"):
        path.unlink(missing_ok=True)


def point_at(link: Path, target: Path) -> None:
    """Make `link` the same checkpoint as `target`, in one step: a second name of a file, a symbolic link to a folder.

    A file of two names takes its room once, and is there until both are removed.
    """
    temporary = link.with_name(f".{link.name}-{os.getpid()}.part.ckpt")  # which `clear_leftovers` knows
    temporary.unlink(missing_ok=True)
    if target.is_dir():
        temporary.symlink_to(target.name, target_is_directory=True)
    else:
        try:
            os.link(target, temporary)
        except OSError:  # a file system without hard links
            temporary.symlink_to(target.name)
    os.replace(temporary, link)
