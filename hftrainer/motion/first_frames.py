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


def frames_to_skip(joints: Float, fps: float) -> int:
    """How many leading frames of `joints` (T, 22, 3), metres, Y up, belong to no motion.

    The first frame alone if its step is a jump; all frames of a motionless T-pose if the step out of it is one. A
    T-pose that the actor left by moving is part of the motion.
    """
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=-1) * fps
    held = int(np.argmax(speed > _STILL)) if (speed > _STILL).any() else 0
    for step in dict.fromkeys((held, 0)):
        after = speed[step + 1 : step + 1 + _AFTER]
        if len(after) < 2 or speed[step] < max(_SLOWEST_JUMP, _TIMES_FASTER * float(np.median(after))):
            continue
        if step == 0 or (step < _LONGEST_HOLD * fps and is_t_pose(joints[0])):
            return step + 1
    return 0


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
