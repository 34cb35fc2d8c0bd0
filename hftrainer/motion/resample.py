"""Change of frame rate. Output frame k is at k / target_fps seconds; nothing is extrapolated past the last frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hftrainer.motion.array import Array, like, namespace
from hftrainer.motion.rotation import matrix_to_quaternion, quaternion_to_matrix, slerp

if TYPE_CHECKING:
    from hftrainer.motion.representation.base import Body


def resampled_frames(frames: int, source_fps: float, target_fps: float) -> int:
    """How many frames at `target_fps` fit into `frames` frames at `source_fps`; both ends included."""
    _check_rates(source_fps, target_fps)
    return int((frames - 1) * target_fps / source_fps + 1e-6) + 1


def resample_positions(x: Array, source_fps: float, target_fps: float) -> Array:
    """Linear interpolation along axis 0 of (T, ...)."""
    if source_fps == target_fps:
        return x
    below, above, t = _places(x.shape[0], source_fps, target_fps)
    weight = like(t, x).reshape(-1, *([1] * (x.ndim - 1)))
    return x[below] * (1 - weight) + x[above] * weight


def resample_rotations(rotations: Array, source_fps: float, target_fps: float) -> Array:
    """Spherical interpolation (slerp, the shorter arc) along axis 0 of matrices (T, ..., 3, 3)."""
    if source_fps == target_fps:
        return rotations
    below, above, t = _places(rotations.shape[0], source_fps, target_fps)
    q = matrix_to_quaternion(rotations)
    weight = like(t, q).reshape(-1, *([1] * (q.ndim - 2)))
    weight = namespace(q).broadcast_to(weight, q[below].shape[:-1])
    return quaternion_to_matrix(slerp(q[below], q[above], weight))


def resample_body(body: Body, fps: float) -> Body:
    """Joints, rotations and path (..., T, ...) at another frame rate: positions linearly, rotations by slerp."""
    if body.fps == fps:
        return body
    xp = namespace(body.joints)

    def along(values: Array, axis: int, resample: Callable[[Array, float, float], Array]) -> Array:
        return xp.moveaxis(resample(xp.moveaxis(values, axis, 0), body.fps, fps), 0, axis)

    return body._replace(
        fps=fps,
        joints=along(body.joints, -3, resample_positions),
        rotations=None if body.rotations is None else along(body.rotations, -4, resample_rotations),
        root=None if body.root is None else along(body.root, -2, resample_positions),
    )


def _places(frames: int, source_fps: float, target_fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = resampled_frames(frames, source_fps, target_fps)
    at = np.minimum(np.arange(count) * (source_fps / target_fps), frames - 1)
    below = np.minimum(at.astype(np.int64), frames - 1)
    return below, np.minimum(below + 1, frames - 1), at - below


def _check_rates(source_fps: float, target_fps: float) -> None:
    if not (source_fps > 0 and target_fps > 0):
        raise ValueError(f"frame rates must be positive, got {source_fps} and {target_fps}")
