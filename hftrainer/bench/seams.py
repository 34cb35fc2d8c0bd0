"""How fast joints move where parts of a timeline meet, against real motion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.representation.base import Representation

Floats = NDArray[np.float64]
WINDOW = 8  # frames to each side of a seam: the decoder spreads a new code over that many and more


def fastest_joint(motion: NDArray[Any], form: Representation) -> tuple[Floats, Floats]:
    """Speed (t - 1,) in m/s of the fastest joint at each step between frames, and acceleration (t - 2,) in m/s^2."""
    joints = np.asarray(form.to_joints(motion), dtype=np.float64)
    steps = np.diff(joints, axis=0) * form.fps
    turns = np.diff(steps, axis=0) * form.fps
    return np.linalg.norm(steps, axis=-1).max(axis=1), np.linalg.norm(turns, axis=-1).max(axis=1)


def real_limits(motions: Iterable[NDArray[Any]], form: Representation, percentile: float = 99.0) -> dict[str, float]:
    """Percentiles of `fastest_joint` over all frames of real motions, and how many frames that were."""
    speeds, accelerations, clips = [], [], 0
    for motion in motions:
        if len(motion) > 2:
            speed, acceleration = fastest_joint(motion, form)
            speeds.append(speed)
            accelerations.append(acceleration)
            clips += 1
    if not clips:
        raise ValueError("no real motion to compare with: no clip has three frames")
    speed, acceleration = np.concatenate(speeds), np.concatenate(accelerations)
    return {
        "clips": clips,
        "frames": len(speed) + clips,
        "percentile": percentile,
        "speed": float(np.percentile(speed, percentile)),
        "acceleration": float(np.percentile(acceleration, percentile)),
    }


def at_seams(motion: NDArray[Any], seams: Sequence[int], form: Representation) -> list[dict[str, float]]:
    """The fastest joint within `WINDOW` frames of each seam (the number of the first frame after it)."""
    speed, acceleration = fastest_joint(motion, form)
    return [
        {
            "frame": seam,
            "speed": float(speed[max(0, seam - WINDOW) : seam + WINDOW].max()),
            "acceleration": float(acceleration[max(0, seam - WINDOW) : seam + WINDOW].max()),
        }
        for seam in seams
    ]


def elsewhere(motion: NDArray[Any], seams: Sequence[int], form: Representation) -> dict[str, float]:
    """Medians of the same over windows of as many frames that no seam is in: what the motion does by itself."""
    every = range(WINDOW, len(motion) - WINDOW, 2 * WINDOW)
    away = [frame for frame in every if all(abs(frame - seam) >= 2 * WINDOW for seam in seams)]
    found = at_seams(motion, away, form)
    return {name: float(np.median([one[name] for one in found])) for name in ("speed", "acceleration")}
