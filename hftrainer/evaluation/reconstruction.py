"""How far reconstructed motions are from the originals."""

from __future__ import annotations

from typing import Any

import numpy as np


def mpjpe(predicted: Any, target: Any) -> Any:
    """Mean per-joint position error (..., T) of each frame, in the unit of the joints (..., T, 22, 3).

    Each frame's own pelvis is subtracted, heading is not removed; the protocol of MotionMillion's and MotionStreamer's
    tokenizer evaluations.
    """
    apart = (predicted - predicted[..., :1, :]) - (target - target[..., :1, :])
    return ((apart * apart).sum(-1) ** 0.5).mean(-1)


def pa_mpjpe(predicted: Any, target: Any) -> Any:
    """`mpjpe` after the best similarity (Procrustes: shift, turn and scale, no mirroring) of each frame.

    Joints are (..., T, J, 3), numpy; the result (..., T). What is left is wrong in the pose itself.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    p, t = p - p.mean(axis=-2, keepdims=True), t - t.mean(axis=-2, keepdims=True)
    u, s, vt = np.linalg.svd(p.swapaxes(-1, -2) @ t)
    sign = np.ones_like(s)
    sign[..., -1] = np.sign(np.linalg.det(u @ vt))
    turn = (u * sign[..., None, :]) @ vt
    spread = (p * p).sum(axis=(-1, -2))
    scale = (s * sign).sum(axis=-1) / np.maximum(spread, 1e-12)
    return np.linalg.norm(scale[..., None, None] * (p @ turn) - t, axis=-1).mean(axis=-1)


def acceleration_error(predicted: Any, target: Any) -> Any:
    """Mean length (..., T - 2) of the difference of joints' second differences; metres a frame squared.

    Of joints in the world (..., T, J, 3): shaking and sliding count, a constant shift or drift does not.
    """
    apart = np.asarray(predicted, dtype=np.float64) - np.asarray(target, dtype=np.float64)
    return np.linalg.norm(np.diff(apart, n=2, axis=-3), axis=-1).mean(axis=-1)


STANDS = 0.15  # metres a second: a foot that moves less stands


def foot_slide(joints: np.ndarray, reference: np.ndarray | None = None, *, fps: float) -> float:
    """Mean horizontal speed (metres a frame) of ankles and toes while the `reference` feet stand.

    A foot stands where it moves less than `STANDS` metres a second at `fps` (5 mm a frame at 30 fps). Without a
    reference the joints (T, 22, 3) are their own.
    """
    feet = [7, 8, 10, 11]
    reference = joints if reference is None else reference
    still = np.linalg.norm(np.diff(reference[:, feet], axis=0), axis=-1) < STANDS / fps
    speed = np.linalg.norm(np.diff(joints[:, feet], axis=0)[..., [0, 2]], axis=-1)
    return float(speed[still].mean()) if still.any() else float("nan")
