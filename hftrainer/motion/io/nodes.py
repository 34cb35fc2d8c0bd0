"""Trees of nodes with translation, rotation and scale (glTF, FBX) as a `SkeletalMotion`: scale goes into the bones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.io.source import SkeletalMotion
from hftrainer.motion.rotation import quaternion_to_matrix, rotate, transpose

Float = NDArray[np.float64]


def matrices(translation: Float, quaternion: Float, scale: Float) -> Float:
    """Transforms (..., 4, 4) of translations (..., 3), quaternions w x y z (..., 4) and scales (..., 3)."""
    out = np.zeros((*translation.shape[:-1], 4, 4))
    out[..., :3, :3] = np.asarray(quaternion_to_matrix(quaternion)) * scale[..., None, :]
    out[..., :3, 3] = translation
    out[..., 3, 3] = 1.0
    return out


def world_matrices(parents: Sequence[int], local: Float) -> Float:
    """Transforms (..., J, 4, 4) in the world; parents come before their children."""
    out = local.copy()
    for node, parent in enumerate(parents):
        if parent >= 0:
            out[..., node, :, :] = out[..., parent, :, :] @ local[..., node, :, :]
    return out


def as_motion(
    names: list[str], parents: list[int], world: Float, rest: Float, fps: float, notes: list[str],
    metres_per_unit: float | None = None,
) -> SkeletalMotion:  # fmt: skip
    """From world transforms (T, J, 4, 4) and those of the rest pose (J, 4, 4)."""
    rotations, translations = _local(parents, world)
    rest_rotations, rest_translations = _local(parents, rest[None])
    return SkeletalMotion(
        names, parents, rotations, translations, rest_rotations[0], rest_translations[0], fps, metres_per_unit,
        notes=notes,
    )  # fmt: skip


def _local(parents: list[int], world: Float) -> tuple[Float, Float]:
    turned, places = _orthonormal(world[..., :3, :3]), world[..., :3, 3]
    rotations, translations = turned.copy(), places.copy()
    for node, parent in enumerate(parents):
        if parent >= 0:
            back = transpose(turned[:, parent])
            rotations[:, node] = back @ turned[:, node]
            translations[:, node] = rotate(back, places[:, node] - places[:, parent])
    return rotations, translations


def _orthonormal(linear: Float) -> Float:
    """The nearest rotations; a mirrored or flat transform is one without its mirror image."""
    u, _, v = np.linalg.svd(linear)
    sign = np.linalg.det(u @ v)
    u[..., :, 2] *= sign[..., None]
    return np.asarray(u @ v)
