"""Two-bone inverse kinematics: a leg reaches a place for its ankle, the knee stays in its plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.rotation import between_vectors, rotate

Float = NDArray[np.float64]


def reach(
    hip: Float, target: Float, thigh: Float, shin: Float, world: tuple[Float, Float], ahead: Float, limit: Float
) -> tuple[Float, Float]:
    """World rotations (T, 3, 3) of hip and knee that put the ankle at `target` (T, 3).

    `thigh` and `shin` (3,): the bones in the rest pose; `world`: the present rotations of hip and knee. A leg whose
    length does not change keeps its bend; what it has to bend more goes towards `ahead` (T, 3). The ankle gets no
    farther from `hip` (T, 3) than `limit` (T,) metres and stays short of what is farther.
    """
    upper, lower = rotate(world[0], thigh), rotate(world[1], shin)
    a, b = np.linalg.norm(thigh), np.linalg.norm(shin)
    away = target - hip
    distance = np.linalg.norm(away, axis=-1)
    along = away / np.maximum(distance, 1e-9)[:, None]
    distance = np.clip(distance, abs(a - b) + 1e-4, limit)
    cosine = np.clip((a**2 + distance**2 - b**2) / (2 * a * distance), -1.0, 1.0)
    height = a * np.sqrt(1 - cosine**2)  # of the knee over the line from hip to target

    bend = _across(rotate(np.asarray(between_vectors(upper + lower, along)), upper), along)
    forward = _unit(_across(ahead, along))
    side = _unit(bend + (height - np.linalg.norm(bend, axis=-1))[:, None] * forward + 1e-6 * forward)
    knee = (a * cosine)[:, None] * along + height[:, None] * side
    ankle = distance[:, None] * along
    return (
        np.asarray(between_vectors(upper, knee) @ world[0]),
        np.asarray(between_vectors(lower, ankle - knee) @ world[1]),
    )


def _across(v: Float, along: Float) -> Float:
    """The part of `v` at right angles to the unit vector `along`."""
    return np.asarray(v - (v * along).sum(-1, keepdims=True) * along)


def _unit(v: Float) -> Float:
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9))
