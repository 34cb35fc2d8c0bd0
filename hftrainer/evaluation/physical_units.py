"""Physical plausibility in metres and seconds: what the published metrics (`hftrainer.evaluation.physical`) cannot see.

Theirs are per frame, so that they change with the frame rate; take the lowest toe of a clip for the floor, so that
nothing is ever below it; call a foot in contact that is high but slow, or low but fast; and call every jump floating.
These have other names and are never mixed with them. Joints are (T, 22, 3) in metres, Y up.

    contact        a toe lower than 5 cm above the floor whose vertical speed is below 0.2 m/s; share of toe samples
    skate          mean horizontal speed of toes in contact; and the share of contact in which it is above 0.5 m/s
                   (2.5 cm in 1/20 s: the threshold of Karunratanakul et al., ICCV 2023)
    penetration    depth of the lowest joint below the floor, mean over all frames; share of frames deeper than 1 cm
    floating       share of frames in stretches of at least 0.1 s in which every joint is more than 5 cm above the floor
                   while the pelvis does not fall: its fitted acceleration is above -g / 2, which no jump's is
    speed, acceleration, jerk   mean length of the first, second and third derivative of joints
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftrainer.evaluation.physical import Float, checked_joints, runs, vector_norm

KEYS = (
    "contact_percent", "skate_m_per_s", "skate_percent", "penetration_mm", "penetration_percent", "floating_percent",
    "speed_m_per_s", "acceleration_m_per_s2", "jerk_m_per_s3",
)  # fmt: skip
GRAVITY = 9.81
_TOES = (10, 11)
_CONTACT_HEIGHT = 0.05
_CONTACT_RISE = 0.2
_SKATE_SPEED = 0.5
_DEEP = 0.01
_CLEAR = 0.05
_SHORTEST_FLIGHT = 0.1


def physical_metrics_in_units(joints: Any, *, fps: float, floor: float | str = 0.0) -> dict[str, float]:
    """The metrics of one clip (T, 22, 3) at `fps` frames a second, T at least 4.

    `floor` is its height in metres; 0 is right for motion272, whose clips stand on y = 0. "estimated" takes where the
    lower toe is while it rests (`estimate_floor`). Skate is NaN for a clip without contact.
    """
    joints = checked_joints(joints).astype(np.float64)
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    if isinstance(floor, str):
        if floor != "estimated":
            raise ValueError(f"floor must be a height in metres or 'estimated', got {floor!r}")
        floor = estimate_floor(joints, fps=fps)
    toes = joints[:, _TOES] - [0.0, floor, 0.0]
    velocity = np.gradient(toes, 1 / fps, axis=0)
    contact = (toes[..., 1] < _CONTACT_HEIGHT) & (np.abs(velocity[..., 1]) < _CONTACT_RISE)
    sliding = vector_norm(velocity[..., [0, 2]])[contact]
    depth = np.maximum(floor - joints[..., 1].min(axis=1), 0.0)
    derivatives = [np.diff(joints, n=order, axis=0) * fps**order for order in (1, 2, 3)]
    speed, acceleration, jerk = (float(vector_norm(d).mean()) for d in derivatives)
    return {
        "contact_percent": 100 * float(contact.mean()),
        "skate_m_per_s": float(sliding.mean()) if len(sliding) else float("nan"),
        "skate_percent": 100 * float((sliding > _SKATE_SPEED).mean()) if len(sliding) else float("nan"),
        "penetration_mm": 1000 * float(depth.mean()),
        "penetration_percent": 100 * float((depth > _DEEP).mean()),
        "floating_percent": 100 * _floating(joints, floor, fps),
        "speed_m_per_s": speed,
        "acceleration_m_per_s2": acceleration,
        "jerk_m_per_s3": jerk,
    }


def estimate_floor(joints: Any, *, fps: float) -> float:
    """Height (metres) at which the lower toe of a clip (T, 22, 3) rests.

    The median over frames in which it moves more slowly than 0.2 m/s, so that one frame below the floor does not become
    the floor; over all frames if it never rests.
    """
    toes = checked_joints(joints).astype(np.float64)[:, _TOES]
    speed = vector_norm(np.gradient(toes, 1 / fps, axis=0))
    frames, lower = np.arange(len(toes)), toes[..., 1].argmin(axis=1)
    height, resting = toes[frames, lower, 1], speed[frames, lower] < _CONTACT_RISE
    return float(np.median(height[resting] if resting.any() else height))


def aggregate_physical_metrics_in_units(rows: Any) -> dict[str, float]:
    """Means over clips and their number "n". Skate is averaged over the clips that have contact, "n_with_contact"."""
    rows = list(rows)
    if not rows:
        raise ValueError("no clip to average over")
    table = {key: np.array([row[key] for row in rows]) for key in KEYS}
    with_contact = ~np.isnan(table["skate_m_per_s"])
    out = {"n": float(len(rows)), "n_with_contact": float(with_contact.sum())}
    for key, values in table.items():
        kept = values[with_contact] if key.startswith("skate") else values
        out[key] = float(kept.mean()) if len(kept) else float("nan")
    return out


def _floating(joints: Float, floor: float, fps: float) -> float:
    """Share of frames in the air without falling."""
    frames = 0
    starts, ends = runs(joints[..., 1].min(axis=1) > floor + _CLEAR)
    for start, end in zip(starts, ends, strict=True):
        if end - start < max(4, _SHORTEST_FLIGHT * fps):
            continue
        seconds = np.arange(end - start) / fps
        if 2 * np.polyfit(seconds, joints[start:end, 0, 1], 2)[0] > -GRAVITY / 2:
            frames += end - start
    return frames / len(joints)
