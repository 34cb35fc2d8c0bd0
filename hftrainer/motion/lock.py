"""Feet that stand still while they stand: small corrections of both feet, legs by inverse kinematics.

A foot's correction over time solves one linear least-squares problem: it should be small, change smoothly, and cancel
the foot's movement in frames of contact (see contacts.py). So there are no hard switches that could be seen as pops,
and a foot that truly turns or slides is only slowed. The pelvis is lowered where a leg would not reach.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import BodyMotion
from hftrainer.motion.contacts import ANKLES, TOES, contacts
from hftrainer.motion.ik import reach
from hftrainer.motion.rotation import between_vectors, rotate, transpose
from hftrainer.motion.skeleton import global_rotations, local_rotations

Float = NDArray[np.float64]

HOLD = 600.0  # weight of a foot's movement in contact, against 1 for its distance from where it was
EVEN = 100.0  # weight of the correction's second difference
STRETCH = 0.99  # of a leg's length: farther only where the motion already was
DEEPEST = 0.06  # metres by which the pelvis is lowered at most
_CHUNK, _OVERLAP = 480, 60  # frames solved at once


def lock_feet(motion: BodyMotion) -> BodyMotion:
    """`motion` with its feet held where they stand, and not below the floor."""
    if len(motion) < 4:
        return motion
    body, joints = motion.body, motion.joints
    contact = contacts(joints, body, fps=motion.fps)
    world = np.asarray(global_rotations(motion.rotations))
    toes, ankles = joints[:, list(TOES)], joints[:, list(ANKLES)]
    toe_goal = toes + _corrections(toes, contact[:, 2:], 0.0)
    ankle_goal = ankles + _corrections(
        ankles, contact[:, :2], float(body.rest_joints[ANKLES[0], 1]), start=toe_goal - toes
    )
    sole = ankle_goal - toe_goal
    length = body.lengths[TOES[0]]
    ankle_goal = toe_goal + sole * (length / np.linalg.norm(sole, axis=-1, keepdims=True))

    stretch = np.maximum(STRETCH * body.leg, np.linalg.norm(ankles - joints[:, [1, 2]], axis=-1))
    hips = joints[:, [1, 2]]
    drop = _pelvis_drop(hips, ankle_goal, stretch, contact[:, :2].max(1) + contact[:, 2:].max(1))
    root = motion.root - drop[:, None] * [0.0, 1.0, 0.0]
    hips = hips - drop[:, None, None] * [0.0, 1.0, 0.0]
    for side, (hip, knee, ankle, toe) in enumerate(((1, 4, 7, 10), (2, 5, 8, 11))):
        ahead = world[:, hip, :, 2]
        carried = transpose(world[:, ankle]) @ world[:, toe]
        world[:, hip], world[:, knee] = reach(
            hips[:, side], ankle_goal[:, side], body.offsets[knee], body.offsets[ankle],
            (world[:, hip], world[:, knee]), ahead, stretch[:, side],
        )  # fmt: skip
        reached = (
            hips[:, side] + rotate(world[:, hip], body.offsets[knee]) + rotate(world[:, knee], body.offsets[ankle])
        )
        foot = rotate(world[:, ankle], body.offsets[toe])
        world[:, ankle] = np.asarray(between_vectors(foot, toe_goal[:, side] - reached)) @ world[:, ankle]
        world[:, toe] = world[:, ankle] @ carried
    return BodyMotion(np.asarray(local_rotations(world)), root, body, motion.fps)


def _corrections(points: Float, contact: Float, height: float, start: Float | None = None) -> Float:
    """What to add to points (T, 2, 3) of both feet; `start`: what is added where nothing stands."""
    start = np.zeros_like(points) if start is None else start
    out = np.empty_like(points)
    for foot in range(2):
        base, weight = start[:, foot], contact[:, foot]
        moved = points[:, foot] + base
        flat = _in_chunks(partial(_held, moved[:, [0, 2]], weight), len(points))
        up = _in_chunks(partial(_lifted, moved[:, 1] - height, weight, height == 0.0), len(points))
        out[:, foot] = base + np.stack([flat[:, 0], up, flat[:, 1]], axis=-1)
    return out


def _held(moved: Float, contact: Float, part: slice) -> Float:
    """Corrections (T, 2) on the floor: minimum of |c|^2 + EVEN |c''|^2 + HOLD contact^2 |c' + moved'|^2."""
    moved, contact = moved[part], contact[part]
    frames = len(moved)
    weight = HOLD * (np.minimum(contact[1:], contact[:-1]) ** 2)
    system = np.eye(frames) + EVEN * _bending(frames)
    first = np.diff(np.eye(frames), axis=0)
    system += first.T @ (weight[:, None] * first)
    return np.asarray(np.linalg.solve(system, -first.T @ (weight[:, None] * np.diff(moved, axis=0))))


def _lifted(height: Float, contact: Float, floor: bool, part: slice) -> Float:
    """Corrections (T,) upwards: to height 0 in contact and, for a `floor`, not below it elsewhere."""
    height, contact = height[part], contact[part]
    frames = len(height)
    system = np.eye(frames) + EVEN * _bending(frames)
    weight = 4.0 * contact**2
    change = np.linalg.solve(system + np.diag(weight), -weight * height)
    for _ in range(3 if floor else 0):
        below = height + change < 0
        if not below.any():
            break
        weight = np.where(below, 200.0, weight)
        change = np.linalg.solve(system + np.diag(weight), -weight * height)
    return np.asarray(change)


def _bending(frames: int) -> Float:
    second = np.diff(np.eye(frames), n=2, axis=0)
    return second.T @ second


def _pelvis_drop(hips: Float, ankles: Float, stretch: Float, contact: Float) -> Float:
    """How far (T,) the pelvis has to come down so that both legs reach, spread smoothly over time."""
    flat = np.linalg.norm((ankles - hips)[..., [0, 2]], axis=-1)
    highest = ankles[..., 1] + np.sqrt(np.maximum(stretch**2 - flat**2, 0.0))
    need = np.clip(hips[..., 1] - highest, 0.0, DEEPEST).max(axis=1) * np.clip(contact, 0.0, 1.0)
    reachable, half = need, 4
    padded = np.pad(need, half, mode="edge")
    reachable = np.max([padded[k : k + len(need)] for k in range(2 * half + 1)], axis=0)
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(reachable, half, mode="edge")
    return np.asarray(np.convolve(padded, kernel / kernel.sum(), mode="valid"))


def _in_chunks(solve: Callable[[slice], Float], frames: int) -> Float:
    """`solve(part)` over overlapping parts of a long clip, cross-faded."""
    if frames <= _CHUNK:
        return solve(slice(0, frames))
    total: Float | None = None
    weight_sum = np.zeros(frames)
    for start in range(0, frames - _OVERLAP, _CHUNK - _OVERLAP):
        part = slice(start, min(start + _CHUNK, frames))
        count = part.stop - part.start
        ramp = np.minimum(1.0, np.minimum(np.arange(count) + 1, np.arange(count, 0, -1)) / _OVERLAP)
        solved = solve(part)
        total = np.zeros((frames, *solved.shape[1:])) if total is None else total
        total[part] += solved * ramp.reshape(-1, *([1] * (solved.ndim - 1)))
        weight_sum[part] += ramp
    assert total is not None
    return total / weight_sum.reshape(-1, *([1] * (total.ndim - 1)))
