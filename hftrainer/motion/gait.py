"""Frame rates show in how people walk and fall: a walk played at double speed is faster than anyone walks."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hftrainer.motion.skeleton import JOINTS

Float = NDArray[np.float64]
_ANKLES = [JOINTS.index("left_ankle"), JOINTS.index("right_ankle")]
_PELVIS = 0
_LEG = ("left_knee", "left_ankle")
_WINDOW = 1.5  # seconds of steady walking that are looked for
_ON_FLOOR = 0.04  # metres: less than an ankle rises in a run's flight


def walking(joints: Float, offsets: Float, fps: float) -> tuple[float, float] | None:
    """Speed in m/s and steps a second where the clip walks, as of legs of 0.85 m; None where it does not.

    Walking: the pelvis moves steadily, feet pass each other, and the lower ankle never leaves the floor, as it does
    in every run. Speeds go with the square root of the leg's length (Froude number), and rates against it.
    """
    frames = round(_WINDOW * fps)
    if len(joints) < frames + 1:
        return None
    root = joints[:, _PELVIS][:, [0, 2]]
    covered = root[frames:] - root[:-frames]
    speed = np.linalg.norm(covered, axis=-1) / _WINDOW
    ankles = joints[:, _ANKLES]
    lower = sliding_window_view(ankles[..., 1].min(axis=-1), frames)[: len(speed)]
    apart = (ankles[:, 0] - ankles[:, 1])[:, [0, 2]]
    ahead = np.sign(
        np.einsum("tki,ti->tk", sliding_window_view(apart, frames, axis=0)[: len(speed)].swapaxes(1, 2), covered)
    )
    steps = (np.diff(ahead, axis=1) != 0).sum(axis=1)
    walked = (np.ptp(lower, axis=1) < _ON_FLOOR) & (steps >= 2) & (speed > 0.4)
    if not walked.any():
        return None
    leg = sum(float(np.linalg.norm(offsets[JOINTS.index(joint)])) for joint in _LEG)
    scale = float(np.sqrt(0.85 / max(leg, 0.1)))
    return float(np.percentile(speed[walked], 90)) * scale, float(np.median(steps[walked])) / _WINDOW / scale


def airborne_gravity(joints: Float, fps: float) -> float | None:
    """Downward acceleration (m/s2) of the body while it jumps, median of its jumps; None without a clear one.

    A jump: both ankles more than 20 cm above where they were half a second before, the pelvis on a parabola.
    """
    height = joints[..., 1]
    ankles = height[:, _ANKLES].min(axis=-1)
    floor = np.percentile(ankles, 20)
    up = ankles > floor + 0.12
    edges = np.flatnonzero(np.diff(np.concatenate([[0], up.astype(int), [0]])))
    found = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        seconds = (end - start) / fps
        if end - start < 5 or seconds > 1.0 or start == 0 or end == len(up):
            continue
        t = np.arange(end - start) / fps
        middle = height[start:end].mean(axis=-1)  # of all joints: close to the centre of mass
        curve, residual, *_ = np.polyfit(t, middle, 2, full=True)
        if residual.size and np.sqrt(residual[0] / len(t)) < 0.01 and curve[0] < 0:
            found.append(-2 * curve[0])
    return float(np.median(found)) if found else None
