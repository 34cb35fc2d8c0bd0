"""Reading a motion file of any kind that is known, by its suffix."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from hftrainer.motion.io.source import MotionFileError, MotionSource

# suffix to module and function; modules are imported when a file of theirs is read
_READERS = {
    ".bvh": ("bvh", "read_bvh"),
    ".amc": ("asf", "read_amc"),
    ".npz": ("smpl_npz", "read_smpl_npz"),
    ".glb": ("gltf", "read_gltf"),
    ".gltf": ("gltf", "read_gltf"),
    ".fbx": ("fbx", "read_fbx"),
}
SUFFIXES = tuple(_READERS)


def read_motion(path: str | os.PathLike[str]) -> MotionSource:
    """The motion in a file. Raises `MotionFileError` for what cannot be used."""
    module, function = _entry(path)
    motion: MotionSource = getattr(import_module(f"hftrainer.motion.io.{module}"), function)(path)
    return motion


def companions(path: str | os.PathLike[str]) -> list[Path]:
    """Other files that a motion is read from: an AMC's skeleton, a glTF's buffers."""
    find = getattr(import_module(f"hftrainer.motion.io.{_entry(path)[0]}"), "companions", None)
    return [] if find is None else list(find(path))


def _entry(path: str | os.PathLike[str]) -> tuple[str, str]:
    suffix = Path(path).suffix.lower()
    if suffix not in _READERS:
        raise MotionFileError(f"{path}: no reader for {suffix!r} files; there is one for {', '.join(SUFFIXES)}")
    return _READERS[suffix]
