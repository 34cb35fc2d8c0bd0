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
from hftrainer.motion.representation.base import get_representation

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]

KEYS = ("Jitter", "Dynamic", "Penet", "Float", "Slide")
_TABLE_SCALE = {"Jitter": 1000.0, "Dynamic": 1000.0, "Penet": 1000.0, "Float": 100.0, "Slide": 1000.0}
_PUBLISHED = {"ms272": "motion272"}
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
    joints = checked_joints(joints)
    root = joints[:, 0]
    relative = joints - root[:, None]
    steps, relative_steps = joints[1:] - joints[:-1], relative[1:] - relative[:-1]

    toes = joints[:, _TOES]
    height = toes[..., 1] - toes[..., 1].min()
    toe_steps = _hold_last(toes[1:] - toes[:-1])
    contact = (vector_norm(toe_steps) < _CONTACT_SPEED) | (height < _CONTACT_HEIGHT)
    below = height < -_PENETRATION
    slide = vector_norm(toe_steps[..., [0, 2]]) * contact
    return {
        "Jitter": float(vector_norm(steps[1:] - steps[:-1]).mean())
        + float(vector_norm(relative_steps[1:] - relative_steps[:-1]).mean()),
        "Dynamic": float(vector_norm(steps).mean()) + float(vector_norm(relative_steps).mean()),
        "Penet": float(np.abs(height[below]).mean()) if below.any() else 0.0,
        "Float": _floating(root, toes, contact),
        "Slide": float((slide.sum(axis=0) / (contact.sum(axis=0) + _EPS)).mean()),
    }


def physical_metrics_from_motion(motion: Any, representation: str, **options: Any) -> dict[str, float]:
    """The metrics of a clip in a representation by name; see `joints_of`."""
    return compute_physical_metrics(joints_of(motion, representation, **options))


def joints_of(motion: Any, representation: str, **options: Any) -> Float:
    """Joints (T, 22, 3) of a clip of a registered representation; "ms272" is the published name of motion272.

    Stored positions, where there are some. motion135 is posed on a skeleton: `options` are ``offsets``, ``layout`` and
    ``rotation_space`` of `motion135.to_joints`. Values of clips on different skeletons do not compare: a longer leg is
    a faster toe.
    """
    found = get_representation(_PUBLISHED.get(representation, representation))
    if options and (found.positions is not None or not found.holds_rotations):
        raise ValueError(f"{', '.join(options)}: not applicable, because {found.name} stores positions")
    return np.asarray(found.to_joints(np.asarray(motion), **options))


def aggregate_physical_metrics(rows: Iterable[Mapping[str, float] | None]) -> dict[str, float]:
    """Means over clips, and their number "n"; a row of None (a clip that could not be measured) is left out."""
    kept = [row for row in rows if row is not None]
    if not kept:
        raise ValueError("no clip to average over")
    return {"n": float(len(kept)), **{key: float(np.mean([row[key] for row in kept])) for key in KEYS}}


def table_scaled_physical_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The units of the leaderboard's table: Slide in mm a frame, Float in percent, the others times 1000."""
    return {key: value * _TABLE_SCALE.get(key, 1.0) for key, value in metrics.items()}


# --- Float ------------------------------------------------------------------------------------------------------------


def _floating(root: Float, toes: Float, contact: Bool) -> float:
    """(frames without valid support + half the frames a foot hangs still + frames both feet swing) / frames."""
    root_speed = vector_norm(_hold_last(np.diff(root, axis=0)))
    toe_speed = vector_norm(_hold_last(np.diff(toes, axis=0)))
    relative_speed = vector_norm(_hold_last(np.diff(toes - root[:, None], axis=0)))
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
    starts, ends = runs(~contact)
    slow, still = _before(rate < 0.4), _before(~moving)
    lengths = ends - starts
    counted = (lengths >= _SHORTEST_INTERVAL) & (2 * (still[ends] - still[starts]) <= lengths)
    return int((slow[ends] - slow[starts])[counted].sum())


def _swinging(left: Float, contact: Bool) -> int:
    """Frames of intervals with both feet in the air in which the left foot's direction swings to and fro.

    The direction is the angle between the displacement since the interval's start and that until its end.
    """
    starts, ends = runs(np.asarray(~contact.any(axis=1)))
    long = ends - starts >= _SHORTEST_INTERVAL
    starts, ends = starts[long], ends[long]
    if not len(starts):
        return 0
    steps = ends - starts - 1
    interval = np.repeat(np.arange(len(starts)), steps)
    frames = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps) + starts[interval] + 1
    moved = left[frames] - left[starts[interval]]
    baseline = (left[ends - 1] - left[starts])[interval]
    cosine = np.einsum("ti,ti->t", moved, baseline) / np.maximum(vector_norm(moved) * vector_norm(baseline), 1e-12)
    angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return int((ends - starts)[_peaks(angles, interval, len(starts)) > 2].sum())


def _peaks(values: Float, part: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Local maxima within each part, a plateau counting once; as scipy.signal.find_peaks without conditions."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = (np.diff(values) != 0) | (np.diff(part) != 0)
    values, part = values[new], part[new]
    inside = (part[1:-1] == part[:-2]) & (part[1:-1] == part[2:])
    top = inside & (values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])
    return np.bincount(part[1:-1][top], minlength=parts)


def runs(mask: Bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends (not included) of the stretches where `mask` (T,) is True."""
    padded = np.zeros(len(mask) + 2, dtype=np.int8)
    padded[1:-1] = mask
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return edges[::2], edges[1::2]


def _before(mask: Bool) -> NDArray[np.int64]:
    """How often `mask` (T,) was True before each frame, and in all (T + 1,)."""
    return np.concatenate([[0], np.cumsum(mask)])


# --- small things -----------------------------------------------------------------------------------------------------


def checked_joints(joints: Any) -> Float:
    """One clip (T, 22, 3) of at least 4 frames in float32, as the published metrics are computed."""
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


def vector_norm(vectors: Float) -> Float:
    """Lengths over the last axis; over three numbers this is several times faster than numpy's norm."""
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)))
