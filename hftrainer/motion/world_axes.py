"""Which way a body is put: the axes of a file's world, and those of its rest pose as they are measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.skeleton_map import SkeletonMap, direction

Float = NDArray[np.float64]
_SNAP = 0.85  # cosine to the nearest axis from which a standing body counts as put along the axes
NAMES = ("+X", "+Y", "+Z", "-X", "-Y", "-Z")


def map_axes(skeleton: SkeletonMap) -> Float:
    """Rotation (3, 3) from the file's world to ours, which has +Y up and +Z forward, as the map says."""
    up, forward = direction(skeleton.up), direction(skeleton.forward)
    if abs(float(up @ forward)) > 1e-6:
        raise ValueError(f"skeleton map {skeleton.name!r}: up {skeleton.up} and forward {skeleton.forward} conflict")
    return np.asarray([np.cross(up, forward), up, forward], dtype=np.float64)


def measured_axes(left: Float, up: Float) -> Float | None:
    """The same of a body whose hips and spine point `left` and `up` in the file; None if it lies along no axes."""
    if np.linalg.norm(left) < 1e-9 or np.linalg.norm(up) < 1e-9:
        return None
    rows = []
    for vector in (left, up):
        unit = vector / np.linalg.norm(vector)
        axis = int(np.argmax(np.abs(unit)))
        if abs(unit[axis]) < _SNAP:
            return None
        rows.append(np.sign(unit[axis]) * np.eye(3)[axis])
    if abs(float(rows[0] @ rows[1])) > 1e-6:
        return None
    return np.stack([rows[0], rows[1], np.cross(rows[0], rows[1])])


def axis_name(vector: Float) -> str:
    """ "+Y" and so on of the axis that a vector is nearest to."""
    axis = int(np.argmax(np.abs(vector)))
    return NAMES[axis + (3 if vector[axis] < 0 else 0)]
