"""Which foot stands on the floor when: from the height and the speed of its heel and toes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import Body

Float = NDArray[np.float64]

ANKLES, TOES = (7, 8), (10, 11)
# (surely standing, surely not): a smooth passage between the two
HEIGHT = (0.020, 0.060)  # metres above the height at rest
SPEED = (0.35, 1.10)  # metres a second
_WINDOW = 5  # frames over which a speed is measured


def contacts(joints: Float, body: Body, *, fps: float) -> Float:
    """How surely (T, 4) left ankle, right ankle, left toes and right toes stand on the floor, 0 to 1.

    `joints` (T, 22, 3): metres, the floor at height 0, where the toes of `body` are when it stands.
    """
    feet = joints[:, [*ANKLES, *TOES]]
    above = feet[..., 1] - body.rest_joints[[*ANKLES, *TOES], 1]
    return _passage(np.maximum(above, 0.0), HEIGHT) * _passage(speeds(feet, fps), SPEED)


def speeds(points: Float, fps: float) -> Float:
    """Speeds (T, N) of points (T, N, 3), metres a second: the mean over a short window around each frame."""
    frames = len(points)
    if frames < 2:
        return np.zeros(points.shape[:2])
    half = min(_WINDOW // 2, frames - 1)
    at = np.arange(frames)
    before, after = np.maximum(at - half, 0), np.minimum(at + half, frames - 1)
    moved = np.linalg.norm(points[after] - points[before], axis=-1)
    return np.asarray(moved * fps / (after - before)[:, None])


def _passage(values: Float, limits: tuple[float, float]) -> Float:
    """1 below the first limit, 0 above the second, smooth between."""
    t = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0.0, 1.0)
    return np.asarray(1 - t * t * (3 - 2 * t))
