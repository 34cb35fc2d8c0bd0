"""Animations of FBX files, through ufbx (``pip install 'hftrainer[fbx]'``); every version that ufbx reads, ASCII too.

The rest pose is the file's bind pose, or, without one, the nodes' own. The longest take is read at the file's rate.
ufbx is a library in C, so that it runs in a process of its own: a file that it crashes on is a file that is refused.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import hftrainer
from hftrainer.extras import need
from hftrainer.motion.io.nodes import as_motion, matrices, world_matrices
from hftrainer.motion.io.source import MotionFileError, SkeletalMotion, check_size
from hftrainer.readers import check_regular

Float = NDArray[np.float64]
_TIMEOUT = 60  # seconds


def read_fbx(path: str | os.PathLike[str]) -> SkeletalMotion:
    """The motion of the longest take. Raises `MotionFileError`, and `MissingExtra` without ufbx."""
    need("ufbx", "reading FBX files")
    check_regular(path, error=MotionFileError)
    arrays = _in_a_process(path)
    names, parents = [str(name) for name in arrays["names"]], [int(parent) for parent in arrays["parents"]]
    check_size(len(arrays["parts"]), len(names), path)
    rest = world_matrices(parents, _matrices(arrays["still"])[None])[0]
    world = world_matrices(parents, _matrices(arrays["parts"]))
    rest = _bind_pose(
        {int(n): np.asarray(m, dtype=np.float64) for n, m in zip(arrays["bound"], arrays["bind"], strict=True)},
        parents,
        rest,
    )
    notes = [str(note) for note in arrays["notes"]]
    return as_motion(names, parents, world, rest, float(arrays["fps"]), notes, float(arrays["unit"]) or None)


def _in_a_process(path: str | os.PathLike[str]) -> dict[str, NDArray[np.generic]]:
    """What `fbx_process` says of a file."""
    package = str(Path(hftrainer.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "hftrainer.motion.io.fbx_process", os.fspath(path)]
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise MotionFileError(f"{path}: ufbx did not read it in {_TIMEOUT} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["ufbx crashed on it"]
        raise MotionFileError(f"{path}: {said[0]}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        return dict(arrays)


def _matrices(parts: NDArray[np.generic]) -> Float:
    numbers = np.asarray(parts, dtype=np.float64)
    return matrices(numbers[..., :3], numbers[..., 3:7], numbers[..., 7:])


def _bind_pose(bound: dict[int, Float], parents: list[int], rest: Float) -> Float:
    """World transforms of the bind pose; nodes that it does not name keep theirs to their parent."""
    out = rest.copy()
    for node, parent in enumerate(parents):
        if node in bound:
            out[node] = bound[node]
        elif parent >= 0:
            out[node] = out[parent] @ np.linalg.solve(rest[parent], rest[node])
    return out
