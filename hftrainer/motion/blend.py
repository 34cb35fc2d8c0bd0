"""Joining clips: find where one can pass into another, turn and move the second to meet the first, and cross-fade.

A passage is chosen as in motion graphs (Kovar et al. 2002): heading-free poses of two short windows are compared at
every pair of places, and the closest pair wins. So "walks forward, then waves" leaves the walk in a stride that the
other clip can take up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.spec import MOTION272
from hftrainer.motion.rotation import (
    heading,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotate,
    slerp,
    yaw,
)
from hftrainer.motion.skeleton import N_JOINTS, bone_offsets, forward_kinematics

Array = NDArray[np.floating]

TRANSITION = 12  # frames (0.4 s) over which one clip fades into the other


def join(
    first: Array,
    second: Array,
    *,
    leave: tuple[int, int] | None = None,
    enter: tuple[int, int] | None = None,
    transition: int = TRANSITION,
) -> tuple[Array, int]:
    """One clip (T, 272) that plays `first`, then `second`, and the frame at which the cross-fade starts.

    `leave` and `enter` are the frames (from, to) among which the passage is looked for; by default the last second of
    `first` and the first second of `second`. Both clips need the same skeleton; the result has that of `first`.
    """
    out_at, in_at, _ = find_passage(first, second, leave=leave, enter=enter, transition=transition)
    return join_at(first, second, out_at, in_at, transition=transition), out_at


def join_at(first: Array, second: Array, out_at: int, in_at: int, *, transition: int = TRANSITION) -> Array:
    """Cross-fade from frame `out_at` of `first` to frame `in_at` of `second` over `transition` frames."""
    for name, clip, at in (("first", first, out_at), ("second", second, in_at)):
        if not 0 <= at <= len(clip) - transition:
            raise ValueError(
                f"the {name} clip has {len(clip)} frames; a transition of {transition} cannot start at frame {at}"
            )
    (rot_a, root_a), (rot_b, root_b) = motion272.to_rotations(first), motion272.to_rotations(second)
    offsets = bone_offsets(motion272.to_joints(first), rot_a)
    rot_b, root_b = rot_b[in_at:], root_b[in_at:]

    # Turn and move the second clip so that the middles of the two windows meet.
    middle = transition // 2
    facing = heading(rot_a[out_at + middle, 0]) - heading(rot_b[middle, 0])
    turn = yaw(np.asarray(facing))
    rot_b = np.concatenate([(turn @ rot_b[:, 0])[:, None], rot_b[:, 1:]], axis=1)
    root_b = rotate(turn, root_b)
    root_b = root_b + (root_a[out_at + middle] - root_b[middle]) * np.array([1.0, 0.0, 1.0])

    t = _ease(transition)
    a, b = slice(out_at, out_at + transition), slice(0, transition)
    faded = slerp(
        matrix_to_quaternion(rot_a[a]),
        matrix_to_quaternion(rot_b[b]),
        np.broadcast_to(t[:, None], (transition, N_JOINTS)),
    )
    rotations = np.concatenate([rot_a[:out_at], quaternion_to_matrix(faded), rot_b[transition:]])
    root = np.concatenate([root_a[:out_at], root_a[a] + (root_b[b] - root_a[a]) * t[:, None], root_b[transition:]])
    joints = forward_kinematics(rotations, root, offsets)
    return motion272.from_joints_and_rotations(joints, rotations).astype(first.dtype)  # type: ignore[no-any-return]


def find_passage(
    first: Array,
    second: Array,
    *,
    leave: tuple[int, int] | None = None,
    enter: tuple[int, int] | None = None,
    transition: int = TRANSITION,
) -> tuple[int, int, float]:
    """Where to leave `first` and enter `second`, and the mean joint distance (metres) over the transition there."""
    second_of = int(MOTION272.fps)
    a = _places(len(first), leave or (len(first) - second_of - transition, len(first)), transition, "first")
    b = _places(len(second), enter or (0, second_of), transition, "second")
    features = [_passage_features(clip) for clip in (first, second)]
    windows = [
        np.stack([f[i : i + transition : 3].ravel() for i in places])
        for f, places in zip(features, (a, b), strict=True)
    ]
    distance = np.linalg.norm(windows[0][:, None] - windows[1][None], axis=-1)
    i, j = np.unravel_index(int(distance.argmin()), distance.shape)
    samples = len(range(0, transition, 3)) * N_JOINTS
    return int(a[i]), int(b[j]), float(distance[i, j] / samples**0.5)


def shorten(motion: Array, frames: int, *, keep: int = 45, transition: int = TRANSITION) -> Array:
    """Cut frames out of the middle of a clip, where it comes back to a pose, to about `frames`; both ends stay.

    For repeating actions (waving): `keep` frames at each end are left alone. A clip that is short enough already is
    returned as it is.
    """
    surplus = len(motion) - frames
    if surplus <= 0:
        return motion
    low, high = keep, len(motion) - keep - transition
    best: tuple[float, int, int] | None = None
    features = _passage_features(motion)
    for out_at in range(low, high):
        in_at = out_at + surplus
        if in_at > high:
            break
        for jump in range(max(in_at - 10, out_at + 1), min(in_at + 10, high) + 1):
            apart = float(np.linalg.norm(features[out_at : out_at + transition] - features[jump : jump + transition]))
            if best is None or apart < best[0]:
                best = (apart, out_at, jump)
    if best is None:
        raise ValueError(f"a clip of {len(motion)} frames cannot be shortened to {frames} with {keep} kept at each end")
    return join_at(motion, motion, best[1], best[2], transition=transition)


def _passage_features(motion: Array) -> Array:
    """Heading-free joint positions, and root velocity scaled so that 1 cm a frame counts as much as 10 cm apart."""
    positions = motion[:, MOTION272["joint_positions"]]
    velocity = motion[:, MOTION272["root_velocity"]] * 10.0 * N_JOINTS**0.5
    return np.concatenate([positions, velocity], axis=1)


def _places(frames: int, wanted: tuple[int, int], transition: int, name: str) -> NDArray[np.int64]:
    low, high = max(0, wanted[0]), min(frames - transition, wanted[1])
    if high < low:
        raise ValueError(f"the {name} clip has {frames} frames, too few for a transition of {transition} in {wanted}")
    return np.arange(low, high + 1)


def _ease(count: int) -> Array:
    """From just above 0 to just below 1, slow at both ends."""
    t = (np.arange(count) + 1.0) / (count + 1.0)
    return np.asarray(t * t * (3 - 2 * t))
