"""Physical plausibility of joint motion, by the formulas of the published leaderboard, vectorised.

Joints are (T, 22, 3) in metres, Y up; every difference is per frame (no frame rate enters), so values compare only at
equal rates: 30 fps on the board. Feet are the toes, joints 10 and 11; the floor is the lowest toe of the clip.

    Jitter   mean |second difference| of joints, plus the same of joints relative to the pelvis
    Dynamic  mean |first difference| of joints, plus the same relative to the pelvis; closer to real is better
    Slide    horizontal toe movement during contact (toe slower than 0.01, or lower than 0.02 above the floor)
    Float    share of frames that look unsupported, a sum of three rules (not capped at 1)
    Penet    depth below the floor; 0 by construction, as the floor is the lowest toe
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.array import expect_shape
from hftrainer.motion.representation import motion272

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]

KEYS = ("Jitter", "Dynamic", "Penet", "Float", "Slide")
_TABLE_SCALE = {"Jitter": 1000.0, "Dynamic": 1000.0, "Penet": 1000.0, "Float": 100.0, "Slide": 1000.0}
_TOES = (10, 11)
_CONTACT_SPEED = 0.01
_CONTACT_HEIGHT = 0.02
_PENETRATION = 0.005
_ROOT_STILL = 0.001
_FOOT_STILL = 1.2e-4
_SHORTEST_INTERVAL = 4
_EPS = 1e-6


def compute_physical_metrics(joints: Any) -> dict[str, float]:
    """The five metrics of one clip (T, 22, 3), T at least 4, unscaled."""
    joints = _checked(joints)
    root = joints[:, 0]
    relative = joints - root[:, None]
    steps, relative_steps = np.diff(joints, axis=0), np.diff(relative, axis=0)

    toes = joints[:, _TOES]
    height = toes[..., 1] - toes[..., 1].min()
    toe_steps = _hold_last(np.diff(toes, axis=0))
    contact = (np.linalg.norm(toe_steps, axis=-1) < _CONTACT_SPEED) | (height < _CONTACT_HEIGHT)
    below = height < -_PENETRATION
    slide = np.linalg.norm(toe_steps[..., [0, 2]], axis=-1) * contact
    return {
        "Jitter": _mean_norm(np.diff(steps, axis=0)) + _mean_norm(np.diff(relative_steps, axis=0)),
        "Dynamic": _mean_norm(steps) + _mean_norm(relative_steps),
        "Penet": float(np.abs(height[below]).mean()) if below.any() else 0.0,
        "Float": _floating(root, toes, contact),
        "Slide": float((slide.sum(axis=0) / (contact.sum(axis=0) + _EPS)).mean()),
    }


def physical_metrics_from_motion(motion: Any, representation: str) -> dict[str, float]:
    """The metrics of a clip given as "ms272" (stored positions), "joints" (T, 22, 3) or "joints66" (T, 66)."""
    motion = np.asarray(motion)
    if representation == "ms272":
        return compute_physical_metrics(motion272.to_joints(motion))
    if representation == "joints66":
        return compute_physical_metrics(motion.reshape(len(motion), 22, 3))
    if representation == "joints":
        return compute_physical_metrics(motion)
    raise ValueError(f"representation must be 'ms272', 'joints66' or 'joints', got {representation!r}")


def aggregate_physical_metrics(rows: Iterable[Mapping[str, float] | None]) -> dict[str, float]:
    """Means over clips, and their number "n"; a row of None (a clip that could not be measured) is left out."""
    kept = [row for row in rows if row is not None]
    if not kept:
        raise ValueError("there is no clip to average over")
    return {"n": float(len(kept)), **{key: float(np.mean([row[key] for row in kept])) for key in KEYS}}


def table_scaled_physical_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The units of the leaderboard's table: Slide in mm a frame, Float in percent, the others times 1000."""
    return {key: value * _TABLE_SCALE.get(key, 1.0) for key, value in metrics.items()}


# --- Float ------------------------------------------------------------------------------------------------------------


def _floating(root: Float, toes: Float, contact: Bool) -> float:
    """(frames without valid support + half the frames a foot hangs still + frames both feet swing) / frames."""
    root_speed = np.linalg.norm(_hold_last(np.diff(root, axis=0)), axis=-1)
    toe_speed = np.linalg.norm(_hold_last(np.diff(toes, axis=0)), axis=-1)
    relative_speed = np.linalg.norm(_hold_last(np.diff(toes - root[:, None], axis=0)), axis=-1)
    rate = relative_speed / (root_speed[:, None] + _EPS)
    moving = root_speed >= _ROOT_STILL
    unsupported = _unsupported(rate, toe_speed, root_speed, contact, moving)
    hanging = sum(_hanging(rate[:, foot], contact[:, foot], moving) for foot in (0, 1))
    return float((unsupported + hanging / 2 + _swinging(toes[:, 0], contact)) / len(root))


def _unsupported(rate: Float, toe_speed: Float, root_speed: Float, contact: Bool, moving: Bool) -> int:
    """Frames in which every foot that touches the floor moves against the body in a way that cannot carry it."""
    drags = (rate < 0.6) & (toe_speed > _FOOT_STILL)
    slips = (rate > 1.75) & (toe_speed > _FOOT_STILL) & (root_speed[:, None] > _FOOT_STILL)
    bad = (drags | slips) & moving[:, None]
    both = contact.all(axis=1)
    one = contact.any(axis=1) & ~both
    return int(((both & bad.all(axis=1)) | (one & (bad & contact).any(axis=1))).sum())


def _hanging(rate: Float, contact: Bool, moving: Bool) -> int:
    """Frames in which an airborne foot goes along with a moving body."""
    total = 0
    for start, end in _runs(~contact):
        if end - start >= _SHORTEST_INTERVAL and (~moving[start:end]).mean() <= 0.5:
            total += int((rate[start:end] < 0.4).sum())
    return total


def _swinging(left: Float, contact: Bool) -> int:
    """Frames of intervals with both feet in the air in which the left foot's direction swings to and fro."""
    lengths = 0
    for left_start, left_end in _runs(~contact[:, 0]):
        for right_start, right_end in _runs(~contact[:, 1]):
            start, end = max(left_start, right_start), min(left_end, right_end)
            if end - start >= _SHORTEST_INTERVAL and _peaks(_angles(left[start:end])) > 2:
                lengths += end - start
    return lengths


def _angles(path: Float) -> Float:
    """Degrees between each displacement from the start and the displacement to the end."""
    moved, baseline = path[1:] - path[0], path[-1] - path[0]
    norms = np.linalg.norm(moved, axis=-1) * np.linalg.norm(baseline)
    cosine = (moved @ baseline) / np.maximum(norms, 1e-12)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _peaks(values: Float) -> int:
    """Local maxima, a plateau counting once; as scipy.signal.find_peaks without conditions."""
    distinct = values[np.concatenate([[True], np.diff(values) != 0])] if len(values) else values
    middle = distinct[1:-1]
    return int(((middle > distinct[:-2]) & (middle > distinct[2:])).sum())


def _runs(mask: Bool) -> list[tuple[int, int]]:
    """Stretches (start, end) where `mask` (T,) is True, end not included."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


# --- small things -----------------------------------------------------------------------------------------------------


def _checked(joints: Any) -> Float:
    joints = np.asarray(joints)
    expect_shape(joints, ("T", 22, 3), "joints")
    if joints.ndim != 3:
        raise ValueError(f"one clip at a time: joints must have shape (T, 22, 3), got {joints.shape}")
    if len(joints) < 4:
        raise ValueError(f"At least four frames are needed for second differences and contacts, got {len(joints)}")
    if not np.isfinite(joints).all():
        raise ValueError("joints hold NaN or infinite values")
    return np.asarray(joints, dtype=np.float32)


def _hold_last(steps: Float) -> Float:
    return np.concatenate([steps, steps[-1:]], axis=0)


def _mean_norm(vectors: Float) -> float:
    return float(np.linalg.norm(vectors, axis=-1).mean())
