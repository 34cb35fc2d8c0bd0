"""Frames at the start of a file that are not of the motion: an added T-pose, or a jump that a filter left of one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.skeleton import JOINTS

Float = NDArray[np.float64]

_LONGEST_HOLD = 5.0  # seconds that an added T-pose may be held
_TIMES_FASTER = 1.7  # a jump is so much faster than what comes after it
_SLOWEST_JUMP = 0.6  # m/s; smaller ones do no harm
_AFTER = 5  # steps that a jump is compared with
_STILL = 0.05  # m/s; an added T-pose is held
_BURST = 0.2  # seconds over which filters spread the jump out of one
_FASTER_THAN_ANYONE = 8.0  # m/s; nobody leaves a T-pose at this speed


def frames_to_skip(joints: Float, fps: float) -> int:
    """How many leading frames of `joints` (T, 22, 3), metres, Y up, belong to no motion.

    The first frame alone if its step is a jump; a motionless T-pose and the burst out of it, which filters may have
    spread over some frames. A T-pose that the actor left by moving is part of the motion.
    """
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=-1) * fps
    burst = _burst(speed, fps)
    if burst and is_t_pose(joints[0]):
        return burst
    after = speed[1 : 1 + _AFTER]
    jumps = len(after) > 1 and speed[0] >= max(_SLOWEST_JUMP, _TIMES_FASTER * float(np.median(after)))
    return 1 if jumps else 0


def _burst(speed: Float, fps: float) -> int:
    """Frames up to the end of the first burst of speed, if nothing moved before it and no actor could do it; else 0."""
    held = int(np.argmax(speed > _STILL)) if (speed > _STILL).any() else 0
    end = held + int(np.ceil(_BURST * fps))
    calm = speed[end : end + max(_AFTER, int(_BURST * fps))]
    if held > _LONGEST_HOLD * fps or len(calm) < 2:
        return 0
    usual = float(np.median(calm))
    if speed[held:end].max(initial=0.0) < max(_FASTER_THAN_ANYONE, _TIMES_FASTER * usual):
        return 0
    fast = np.flatnonzero(speed[held:end] > max(2 * _SLOWEST_JUMP, _TIMES_FASTER * usual))
    return held + int(fast[-1]) + 1


def is_t_pose(joints: Float, within: float = 25.0) -> bool:
    """Arms level to the sides and legs straight down, to `within` degrees; `joints` (22, 3), +Y up."""
    at = {joint: joints[index] for index, joint in enumerate(JOINTS)}
    across = at["left_hip"] - at["right_hip"]
    limbs = [
        (at[f"{side}_{end}"] - at[f"{side}_{start}"], aim)
        for side, sign in (("left", 1.0), ("right", -1.0))
        for start, end, aim in (
            ("shoulder", "elbow", sign * across),
            ("elbow", "wrist", sign * across),
            ("hip", "ankle", np.array([0.0, -1.0, 0.0])),
        )
    ]
    return all(_degrees(bone, aim) <= within for bone, aim in limbs)


def _degrees(a: Float, b: Float) -> float:
    """Angle between two vectors; 180 if one of them is zero."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(np.clip(a @ b / length, -1.0, 1.0)))) if length > 0 else 180.0
