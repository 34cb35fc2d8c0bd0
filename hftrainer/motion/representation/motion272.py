"""The 272-dim representation of MotionStreamer and MotionMillion: 22 SMPL joints, 30 fps, metres, Y up.

    channel           dims     content
    root_velocity     0:2      pelvis displacement (x, z) from the frame before, seen from that frame's heading
    heading_change    2:8      rotation from the heading of the frame before to this one, as two matrix rows
    joint_positions   8:74     joints, heading removed, x and z relative to the pelvis, y above the floor
    joint_velocities  74:140   difference of joint_positions to the frame before (metres a frame)
    joint_rotations   140:272  local rotations as two matrix rows; the pelvis's is global with heading removed

Heading is the yaw of the pelvis's own +Z axis. The first frame has no frame before it: its velocities are 0 and its
heading change is the identity. A clip forgets where it stood and which way it first faced, nothing else.
Source: 272-dim-Motion-Representation (Xiao et al. 2025), verified against its outputs (tests/golden).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.array import Array, astype, expect_shape, like, namespace, widen
from hftrainer.motion.plausible import Problem, below_floor, frozen_problem, unit_length_problem
from hftrainer.motion.representation.base import Body, Representation
from hftrainer.motion.representation.spec import MOTION272
from hftrainer.motion.resample import resample_body
from hftrainer.motion.rotation import (
    from_rows_6d,
    heading,
    matrix_to_axis_angle,
    rotate,
    running_product,
    to_rows_6d,
    transpose,
    yaw,
)
from hftrainer.motion.skeleton import MIRROR, N_JOINTS, forward_kinematics
from hftrainer.registry import REPRESENTATIONS

_VELOCITY = MOTION272["root_velocity"]
_TURN = MOTION272["heading_change"]
_POSITIONS = MOTION272["joint_positions"]
_JOINT_VELOCITIES = MOTION272["joint_velocities"]
_ROTATIONS = MOTION272["joint_rotations"]
_HEIGHT = _POSITIONS.start + 1
_NO_TURN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_VELOCITY_OFF = 0.02  # metres a frame on average; 0 in encoded motion, a few millimetres in decoded
_ROOT_OFF = 0.02  # metres; 0 in encoded motion, a few millimetres in decoded


def from_joints_and_rotations(joints: Array, rotations: Array) -> Array:
    """Encode world joints (..., T, 22, 3) and local rotations (..., T, 22, 3, 3) as (..., T, 272).

    Joint 0 of `rotations` is the pelvis in the world. The lowest joint of the clip is put at height 0.
    """
    expect_shape(joints, ("T", N_JOINTS, 3), "joints")
    expect_shape(rotations, ("T", N_JOINTS, 3, 3), "rotations")
    xp = namespace(joints)
    _need_frames(joints.shape[-3])

    root = joints[..., 0, :]
    unturn = yaw(-heading(rotations[..., 0, :, :]))
    up = like([0.0, 1.0, 0.0], joints)
    floor = joints[..., 1].reshape(*joints.shape[:-3], -1)
    floor = (floor.amin(axis=-1) if xp.__name__ == "torch" else floor.min(axis=-1))[..., None, None, None]
    centred = joints - root[..., None, :] * (1 - up) - floor * up
    positions = rotate(unturn[..., None, :, :], centred)

    moved = rotate(unturn[..., :-1, :, :], root[..., 1:, :] - root[..., :-1, :])
    turned = unturn[..., 1:, :, :] @ transpose(unturn[..., :-1, :, :])
    first_turn = like(_NO_TURN, joints) + xp.zeros_like(to_rows_6d(unturn[..., :1, :, :]))
    local = xp.concatenate([(unturn @ rotations[..., 0, :, :])[..., None, :, :], rotations[..., 1:, :, :]], axis=-3)

    flat = positions.reshape(*positions.shape[:-2], 3 * N_JOINTS)
    return xp.concatenate(
        [
            _from_second_frame(moved[..., [0, 2]]),
            xp.concatenate([first_turn, to_rows_6d(turned)], axis=-2),
            flat,
            _from_second_frame(flat[..., 1:, :] - flat[..., :-1, :]),
            to_rows_6d(local).reshape(*local.shape[:-3], 6 * N_JOINTS),
        ],
        axis=-1,
    )


def to_joints(motion: Array) -> Array:
    """World joint positions (..., T, 22, 3) from the position channel of (..., T, 272); the first heading is +Z."""
    wide = widen(motion)
    turn, path = _trajectory(wide)
    local = wide[..., _POSITIONS].reshape(*motion.shape[:-1], N_JOINTS, 3)
    return astype(rotate(transpose(turn)[..., None, :, :], local) + path[..., None, :], motion)


def to_rotations(motion: Array) -> tuple[Array, Array]:
    """Local rotations (..., T, 22, 3, 3), joint 0 global, and pelvis positions (..., T, 3), of (..., T, 272).

    The second value is where the pelvis joint is. A body model's translation parameter is that minus the model's
    own rest pelvis.
    """
    xp = namespace(motion)
    wide = widen(motion)
    turn, path = _trajectory(wide)
    local = from_rows_6d(wide[..., _ROTATIONS].reshape(*motion.shape[:-1], N_JOINTS, 6))
    pelvis = transpose(turn) @ local[..., 0, :, :]
    height = wide[..., _HEIGHT : _HEIGHT + 1] * like([0.0, 1.0, 0.0], wide)
    rotations = xp.concatenate([pelvis[..., None, :, :], local[..., 1:, :, :]], axis=-3)
    return astype(rotations, motion), astype(path + height, motion)


def to_smpl85(motion: Array) -> Array:
    """(..., T, 85): 22 rotation vectors (66), 6 zeros for the hands, pelvis position (3), 10 zero betas."""
    xp = namespace(motion)
    rotations, root = to_rotations(motion)
    vectors = astype(matrix_to_axis_angle(widen(rotations)), motion).reshape(*motion.shape[:-1], 3 * N_JOINTS)
    zeros = xp.zeros_like(motion[..., :10])
    return xp.concatenate([vectors, zeros[..., :6], root, zeros], axis=-1)


def pad_at_rest(motion: Array, frames: int) -> Array:
    """Hold the last pose of (..., T, 272) until there are `frames` frames.

    Repeating the last vector would repeat its velocities, and the decoded body would glide and turn; here they are 0.
    """
    return Motion272().pad_at_rest(motion, frames)


def mirror(motion: Array) -> Array:
    """Left and right exchanged: the clip as seen in a mirror that stands along the body's plane of symmetry.

    The body is mirrored too. HumanML3D's released mirrored clips (names with M) keep the subject's own body and mirror
    only its movement, so they differ from this by the little by which that body's sides differ.
    """
    _check(motion)
    xp = namespace(motion)
    swap = list(MIRROR)
    side = like([-1.0, 1.0, 1.0], motion)
    # A rotation R becomes M R M with M = diag(-1, 1, 1): entries with one index on x change sign.
    flip = like([1.0, -1.0, -1.0, -1.0, 1.0, 1.0], motion)
    shape = motion.shape[:-1]

    def vectors(channel: slice) -> Array:
        points = motion[..., channel].reshape(*shape, N_JOINTS, 3)[..., swap, :] * side
        return points.reshape(*shape, 3 * N_JOINTS)

    rotations = motion[..., _ROTATIONS].reshape(*shape, N_JOINTS, 6)[..., swap, :] * flip
    return xp.concatenate(
        [
            motion[..., _VELOCITY] * like([-1.0, 1.0], motion),
            motion[..., _TURN] * flip,
            vectors(_POSITIONS),
            vectors(_JOINT_VELOCITIES),
            rotations.reshape(*shape, 6 * N_JOINTS),
        ],
        axis=-1,
    )


def _trajectory(motion: Array) -> tuple[Array, Array]:
    """Rotation that removes the heading (..., T, 3, 3), and the pelvis path on the floor (..., T, 3), y = 0."""
    _check(motion)
    xp = namespace(motion)
    turn = running_product(from_rows_6d(motion[..., _TURN]))
    flat = motion[..., _VELOCITY]
    step = xp.stack([flat[..., 0], xp.zeros_like(flat[..., 0]), flat[..., 1]], axis=-1)
    later = rotate(transpose(turn[..., :-1, :, :]), step[..., 1:, :])
    path = xp.cumsum(xp.concatenate([step[..., :1, :], later], axis=-2), axis=-2)
    return turn, path * like([1.0, 0.0, 1.0], motion)


def _from_second_frame(values: Array) -> Array:
    """Put a row of zeros before (..., T - 1, D): the first frame has no frame before it."""
    xp = namespace(values)
    shape = (*values.shape[:-2], 1, values.shape[-1])
    zeros = xp.zeros(shape, dtype=values.dtype)
    return xp.concatenate([zeros.to(values.device) if xp.__name__ == "torch" else zeros, values], axis=-2)


def _check(motion: Array) -> None:
    expect_shape(motion, ("T", MOTION272.width), "motion272")
    _need_frames(motion.shape[-2])


def _need_frames(frames: int) -> None:
    if frames < 1:
        raise ValueError("a motion needs at least one frame, got none")


@REPRESENTATIONS.register("motion272")
class Motion272(Representation):
    """This module's functions as a `Representation`; `offsets` (22, 3) poses the stored rotations on other bones."""

    spec = MOTION272
    root = ("root_velocity", "heading_change")
    positions, velocities = "joint_positions", "joint_velocities"
    needs_rotations = holds_rotations = True

    def to_joints(self, motion: Array, *, offsets: Array | None = None, **options: Any) -> Array:
        """The stored positions, or the stored rotations on `offsets`; the two differ in generated clips."""
        if offsets is None:
            return to_joints(motion)
        return forward_kinematics(*to_rotations(motion), like(offsets, motion))

    def to_rotations(self, motion: Array, **options: Any) -> tuple[Array, Array]:
        """The stored rotations and path."""
        return to_rotations(motion)

    def from_body(self, body: Body, **options: Any) -> Array:
        """Encoded at 30 fps; a body at another frame rate is interpolated first."""
        body = resample_body(body, self.fps)
        if body.rotations is None:
            raise ValueError(f"{self.name} needs joint rotations, a body would have to be fitted to these joints")
        return from_joints_and_rotations(body.joints, body.rotations)

    def mirror(self, motion: Array) -> Array:
        """Left and right exchanged, bones included."""
        return mirror(motion)

    def rest(self, last: Array) -> Array:
        """The same pose with no velocity and no turn."""
        rest = last + namespace(last).zeros_like(last)  # a copy, for both kinds of array
        rest[..., _VELOCITY] = 0.0
        rest[..., _TURN] = like(_NO_TURN, last)
        rest[..., _JOINT_VELOCITIES] = 0.0
        return rest

    def feature_problems(self, motion: NDArray[np.float64]) -> list[Problem]:
        """Rotations have unit rows, the root is over its own origin, the floor is at height 0."""
        if found := unit_length_problem(motion[:, _TURN].reshape(len(motion), 2, 3)):
            return found
        if (off := float(np.abs(motion[:, _POSITIONS][:, [0, 2]]).max())) > _ROOT_OFF:
            text = f"its root is up to {off:.3g} m from the origin of its own frame; is it {self.name}?"
            return [Problem("root", text)]
        return (
            self._velocity_problem(motion)
            or frozen_problem(motion)
            or below_floor(motion[:, _POSITIONS].reshape(len(motion), N_JOINTS, 3))
        )

    def _velocity_problem(self, motion: NDArray[np.float64]) -> list[Problem]:
        off = motion[1:, _JOINT_VELOCITIES] - np.diff(motion[:, _POSITIONS], axis=0)
        mean = float(np.abs(off).mean()) if len(off) else 0.0
        if mean <= _VELOCITY_OFF:
            return []
        return [Problem("velocities", f"its joint velocities are {mean:.3g} m/frame different from its positions")]

    def statistics_problem(self, mean: NDArray[Any], std: NDArray[Any]) -> str | None:
        """The mean pelvis height tells them from z-scores', another representation's, or mean and std exchanged."""
        height = float(mean[_HEIGHT])
        if 0.0 < height < 3.0:
            return None
        return f"the mean pelvis height (channel {_HEIGHT}) is {height:.3g} m, expected about 0.9"
