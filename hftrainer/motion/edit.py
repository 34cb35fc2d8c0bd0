"""What is done to a motion before it is written: another frame rate, on the spot, closed to a loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import BodyMotion
from hftrainer.motion.lock import lock_feet
from hftrainer.motion.resample import resampled_frames
from hftrainer.motion.rotation import (
    angle_between,
    axis_angle_to_matrix,
    heading,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotate,
    transpose,
    yaw,
)

Float = NDArray[np.float64]

_SMOOTH_SECONDS = 1.0  # over which a path is averaged, so that the sway of steps stays with the pelvis
_SHORTEST_LOOP = 0.6  # seconds
_BLEND_SECONDS = 0.5
_SETTLED_SECONDS = 3.0


def resample(motion: BodyMotion, fps: float) -> BodyMotion:
    """`motion` at another frame rate, by cubic curves through its frames (Catmull-Rom); both ends stay."""
    if not 1 <= fps <= 480:
        raise ValueError(f"a frame rate must lie between 1 and 480, got {fps:g}")
    if fps == motion.fps or len(motion) < 2:
        return BodyMotion(motion.rotations, motion.root, motion.body, fps)
    at = np.arange(resampled_frames(len(motion), motion.fps, fps)) * (motion.fps / fps)
    turns = continuous(np.asarray(matrix_to_quaternion(motion.rotations)))
    rotations = quaternion_to_matrix(_cubic(turns, at))
    return BodyMotion(np.asarray(rotations), _cubic(motion.root, at), motion.body, fps)


def continuous(quaternions: Float) -> Float:
    """Quaternions (T, ..., 4) with the signs that make them a curve: each in the half-space of the one before."""
    dot = (quaternions[1:] * quaternions[:-1]).sum(-1, keepdims=True)
    signs = np.cumprod(np.where(dot < 0, -1.0, 1.0), axis=0)
    return np.concatenate([quaternions[:1], quaternions[1:] * signs])


def ground_path(motion: BodyMotion) -> tuple[Float, Float]:
    """The path on the floor (T, 3) and the heading (T,) in radians that a root bone carries: both smooth."""
    turn = np.unwrap(np.asarray(heading(motion.rotations[:, 0])))
    window = max(1, round(_SMOOTH_SECONDS * motion.fps))
    path = _averaged(motion.root * [1.0, 0.0, 1.0], window)
    return path, _averaged(turn[:, None], window)[:, 0]


def in_place(motion: BodyMotion) -> BodyMotion:
    """`motion` on the spot: its smooth path is taken away, the sway and the turns stay."""
    path, _ = ground_path(motion)
    return BodyMotion(motion.rotations, motion.root - path, motion.body, motion.fps)


@dataclass(frozen=True)
class Loop:
    """A motion whose last frame leads into its first: frame T would be frame 0, `travel` metres and `turn` farther.

    `position_gap` (metres): the largest mismatch of a joint over the seam. `velocity_step` (metres a second): the
    largest change of a joint's velocity from frame to frame there, and `usual_step` the largest inside the motion.
    """

    motion: BodyMotion
    first: int
    last: int
    position_gap: float
    velocity_step: float
    usual_step: float


def loop(motion: BodyMotion, *, lock: bool = True, on_the_spot: bool = False) -> Loop:
    """The longest good cycle of `motion`, its end blended so that position and velocity meet its start.

    Poses are compared without place and heading, so a walk loops with its step length as root motion. With `lock` the
    feet are held again, which the blend moves: over several rounds, of which the middle one is taken. `on_the_spot`
    then removes the path as `in_place` does, also over several rounds. Raises ``ValueError`` for clips that are too
    short to hold a cycle.
    """
    shortest = round(_SHORTEST_LOOP * motion.fps)
    if len(motion) < shortest + 4:
        raise ValueError(
            f"a motion of {motion.seconds:.1f} s is too short to loop; at least {_SHORTEST_LOOP + 4 / motion.fps:.1f} s"
        )
    first, last = _best_cycle(motion, shortest)
    closed = _closed(motion, first, last)
    if lock or on_the_spot:
        frames = len(closed) - 2
        before = -(-round(_SETTLED_SECONDS * motion.fps) // frames)  # rounds until the corrections repeat themselves
        rounds = _rounds(closed, 2 * before + 1)
        rounds = lock_feet(rounds) if lock else rounds
        rounds = in_place(rounds) if on_the_spot else rounds
        middle = slice(before * frames, (before + 1) * frames + 2)
        closed = BodyMotion(rounds.rotations[middle], rounds.root[middle], motion.body, motion.fps)
    cycle = BodyMotion(closed.rotations[:-2], closed.root[:-2], motion.body, motion.fps)
    return Loop(cycle, first, last, *_seam(closed))


def _rounds(closed: BodyMotion, count: int) -> BodyMotion:
    """The cycle so many times, each round carried on from where the one before ended."""
    turn = np.asarray(heading(closed.rotations[-2, 0]) - heading(closed.rotations[0, 0]))
    flat = np.array([1.0, 0.0, 1.0])
    rotations, roots = [], []
    carried, place = np.eye(3), np.zeros(3)
    for _ in range(count):
        turned = closed.rotations[:-2].copy()
        turned[:, 0] = carried @ turned[:, 0]
        rotations.append(turned)
        roots.append(rotate(carried, closed.root[:-2] - closed.root[0] * flat) + place)
        place = place + rotate(carried, (closed.root[-2] - closed.root[0]) * flat)
        carried = np.asarray(yaw(turn)) @ carried
    return BodyMotion(np.concatenate(rotations), np.concatenate(roots), closed.body, closed.fps)


def _best_cycle(motion: BodyMotion, shortest: int) -> tuple[int, int]:
    """Frames (a, b): b is most like a, in pose and speed; longer cycles are preferred a little."""
    turn = yaw(-np.asarray(heading(motion.rotations[:, 0])))
    local = rotate(turn[:, None], motion.joints - motion.root[:, None] * [1.0, 0.0, 1.0])
    speed = rotate(turn[:-1], np.diff(motion.root, axis=0))
    features = np.concatenate(
        [local[:-1].reshape(len(local) - 1, -1), 4 * np.diff(local, axis=0).reshape(len(local) - 1, -1), 20 * speed],
        axis=1,
    )
    count = len(features) - 1  # one more frame is needed after b, for its velocity
    squares = (features[:count] ** 2).sum(1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * features[:count] @ features[:count].T, 0.0))
    a, b = np.arange(count)[:, None], np.arange(count)
    cost = (apart + 0.05) / (0.25 + np.clip((b - a) / count, 0.0, 1.0))
    cost = np.where(b - a >= shortest, cost, np.inf)
    place = int(np.argmin(cost))
    return place // count, place % count


def _closed(motion: BodyMotion, first: int, last: int) -> BodyMotion:
    """Frames first ... last + 1 with the last two brought to the first two, carried along by the cycle's own travel."""
    rotations, root = motion.rotations[first : last + 2].copy(), motion.root[first : last + 2].copy()
    frames = len(root)
    width = min(frames - 2, max(2, round(_BLEND_SECONDS * motion.fps)))
    turn = np.asarray(heading(rotations[-2, 0]) - heading(rotations[0, 0]))
    carried = yaw(turn)
    goal = rotations[:2].copy()
    goal[:, 0] = carried @ goal[:, 0]
    steps = rotate(carried, root[:2] - root[0])
    place = root[-2] * [1.0, 0.0, 1.0] + root[0] * [0.0, 1.0, 0.0] + steps
    off = np.asarray(matrix_to_axis_angle(goal @ transpose(rotations[-2:])))
    gap = place - root[-2:]
    weights = _hermite(width)
    for k in range(1, width + 1):  # from the start of the blend to the frame that has to meet frame 0
        value, slope = weights[k]
        frame = frames - 2 - width + k
        rotations[frame] = axis_angle_to_matrix(value * off[0] + slope * (off[1] - off[0])) @ rotations[frame]
        root[frame] += value * gap[0] + slope * (gap[1] - gap[0])
    rotations[-1], root[-1] = goal[1], place[1]
    return BodyMotion(rotations, root, motion.body, motion.fps)


def _hermite(width: int) -> Float:
    """Weights (width + 1, 2) of an end value and an end slope (a frame) for a curve that starts with 0 and slope 0."""
    u = np.arange(width + 1) / width
    return np.stack([u * u * (3 - 2 * u), (u**3 - u * u) * width], axis=1)


def _seam(closed: BodyMotion) -> tuple[float, float, float]:
    """Gap of position, and steps of velocity at the seam and inside, of any joint.

    The last two frames stand for the first two of the next round.
    """
    turn = yaw(np.asarray(heading(closed.rotations[-2, 0]) - heading(closed.rotations[0, 0])))
    moved = rotate(turn, closed.joints[0] - closed.root[0] * [1.0, 0.0, 1.0]) + closed.root[-2] * [1.0, 0.0, 1.0]
    position = np.linalg.norm(closed.joints[-2] - moved, axis=-1).max()
    steps = np.linalg.norm(np.diff(closed.joints, n=2, axis=0), axis=-1).max(axis=1) * closed.fps
    return float(position), float(steps[-2:].max()), float(steps[:-2].max())


def largest_turn(motion: BodyMotion) -> float:
    """The largest rotation of a joint between two frames, degrees."""
    if len(motion) < 2:
        return 0.0
    return float(np.degrees(np.asarray(angle_between(motion.rotations[1:], motion.rotations[:-1])).max()))


def _cubic(values: Float, at: NDArray[np.floating[Any]]) -> Float:
    """`values` (T, ...) at frames `at` by Catmull-Rom, continued by reflection at the ends."""
    padded = np.concatenate([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    below = np.minimum(at.astype(np.int64), len(values) - 2)
    t = (at - below).reshape(-1, *([1] * (values.ndim - 1)))
    p0, p1, p2, p3 = (padded[below + k] for k in range(4))
    return np.asarray(p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))))


def _averaged(values: Float, window: int) -> Float:
    """A moving average (Hann weights) over `window` frames, continued by point reflection at the ends."""
    half = min(window // 2, len(values) - 1)
    if half < 1:
        return values.copy()
    kernel = np.hanning(2 * half + 3)[1:-1]
    start, end = 2 * values[:1] - values[half:0:-1], 2 * values[-1:] - values[-2 : -half - 2 : -1]
    padded = np.concatenate([start, values, end])
    return np.stack([np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T], axis=1)
