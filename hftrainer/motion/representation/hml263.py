"""The 263-dim representation of HumanML3D: 22 SMPL joints, 20 fps, metres, Y up; made from joint positions only.

    channel           dims     content, for frames t = 0 ... T - 2 of T joint frames
    root_turn         0:1      arcsin of the y component of q[t+1] q[t]^-1: half the turn to the next frame
    root_velocity     1:3      pelvis displacement (x, z) to the next frame, seen with q[t+1]
    root_height       3:4      pelvis height above the floor
    joint_positions   4:67     joints 1 ... 21, x and z relative to the pelvis, seen with q[t]
    joint_rotations   67:193   bone rotations of joints 1 ... 21 as two matrix columns
    joint_velocities  193:259  displacement of 22 joints to the next frame, seen with q[t]
    contacts          259:263  left ankle, left toes, right ankle, right toes: 1 while nearly still

q[t] is the yaw that turns the body's facing to +Z. Every body is first given the bones of one subject (`uniform`).
The rotation of a joint turns the bone that *ends* in it: this is not SMPL's, BVH's or motion272's convention.
Source: HumanML3D (Guo et al., CVPR 2022), motion_representation at 9176e8fb, with what its code does (see `facing`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.array import Array, astype, expect_shape, like, namespace, widen
from hftrainer.motion.plausible import Problem, below_floor, frozen_problem, unit_length_problem
from hftrainer.motion.representation.base import Body, Representation
from hftrainer.motion.representation.spec import HML263
from hftrainer.motion.resample import resample_body
from hftrainer.motion.rotation import between_vectors, rotate, to_columns_6d, transpose, yaw
from hftrainer.motion.skeleton import CHAINS, FEET, MIRROR, N_JOINTS, PARENTS
from hftrainer.registry import REPRESENTATIONS

# Directions and lengths (m) of the bones that end in joints 1 ... 21: HumanML3D's axes, and its clip 000021's body.
_AXES = {"+x": (1.0, 0, 0), "-x": (-1.0, 0, 0), "+y": (0, 1.0, 0), "-y": (0, -1.0, 0), "+z": (0, 0, 1.0)}
BONE_DIRECTIONS = tuple(
    _AXES[axis] for axis in "+x -x +y -y -y +y -y -y +y +z +z +y +x -x +z -y -y -y -y -y -y".split()
)
BONE_LENGTHS = (
    0.1030739695, 0.1098833680, 0.1315682381, 0.3936232626, 0.3901882172, 0.1431902200, 0.4324331284, 0.4256435037,
    0.0573647358, 0.1433817595, 0.1494190246, 0.2193600535, 0.1374867707, 0.1433828324, 0.1030392274, 0.1316139847,
    0.1229843721, 0.2568399906, 0.2630918622, 0.2660117149, 0.2698763907,
)  # fmt: skip
CONTACT_THRESHOLD = 0.002  # squared metres to the next frame, at 20 fps

# Inverse kinematics walks these chains, each from the pelvis's rotation, also those of the arms, which start in spine3.
_BEFORE = tuple(0 if joint in {chain[1] for chain in CHAINS} else PARENTS[joint] for joint in range(1, N_JOINTS))
_LEG = (5, 8)  # right knee and ankle: the bones whose lengths give a body's scale
_SMOOTH = 20.0  # frames, standard deviation of the Gaussian over the facing direction
_RADIUS = 80


def from_joints(
    joints: Array,
    *,
    contact_threshold: float = CONTACT_THRESHOLD,
    bone_lengths: tuple[float, ...] | None = BONE_LENGTHS,
) -> Array:
    """Encode joints (..., T, 22, 3) at 20 fps, any heading and place, as (..., T - 1, 263); T at least 2.

    `bone_lengths`: the 21 lengths that every body is given; None leaves the body as it is.
    """
    _check_joints(joints)
    xp = namespace(joints)
    world = widen(joints)
    if bone_lengths is not None:
        world = uniform(world, bone_lengths)
    world = canonical(world)

    half = _half_turn(_smoothed(_across_as_released(world)))
    # frame 0 faces +Z by definition, whatever the smoothed direction says
    half = xp.concatenate([xp.zeros_like(half[..., :1]), half[..., 1:]], axis=-1)
    turn = yaw(2 * half)
    root = world[..., 0, :]
    steps = world[..., 1:, :, :] - world[..., :-1, :, :]
    local = rotate(turn[..., None, :, :], world - root[..., None, :] * like([1.0, 0.0, 1.0], world))
    root_velocity = rotate(turn[..., 1:, :, :], steps[..., 0, :])
    velocities = rotate(turn[..., :-1, None, :, :], steps)
    feet = steps[..., list(FEET), :]
    frames = (*world.shape[:-3], world.shape[-3] - 1)
    features = [
        xp.arcsin(xp.sin(half[..., 1:] - half[..., :-1]))[..., None],
        root_velocity[..., [0, 2]],
        root[..., :-1, 1:2],
        local[..., :-1, 1:, :].reshape(*frames, 3 * (N_JOINTS - 1)),
        to_columns_6d(_bone_rotations(world, turn))[..., :-1, :, :].reshape(*frames, 6 * (N_JOINTS - 1)),
        velocities.reshape(*frames, 3 * N_JOINTS),
        astype((feet * feet).sum(axis=-1) < contact_threshold, world),
    ]
    return astype(xp.concatenate(features, axis=-1), joints)


def to_joints(motion: Array) -> Array:
    """Joint positions (..., T, 22, 3) at 20 fps from the turn, velocity, height and position channels of (..., T, 263).

    What HumanML3D calls recovery from ric: first heading +Z, first pelvis over the origin.
    """
    expect_shape(motion, ("T", HML263.width), "hml263")
    if motion.shape[-2] < 1:
        raise ValueError("a motion needs at least one frame, got none")
    xp = namespace(motion)
    wide = widen(motion)

    def after(steps: Array) -> Array:
        """Sums over the frames before each frame."""
        return xp.concatenate([xp.zeros_like(steps[..., :1, :]), xp.cumsum(steps, axis=-2)[..., :-1, :]], axis=-2)

    unturn = yaw(-2 * after(wide[..., HML263["root_turn"]])[..., 0])
    flat = wide[..., HML263["root_velocity"]]
    step = xp.stack([flat[..., 0], xp.zeros_like(flat[..., 0]), flat[..., 1]], axis=-1)
    # the step of frame t was seen with the turn of frame t + 1
    path = xp.cumsum(rotate(unturn[..., 1:, :, :], step[..., :-1, :]), axis=-2)
    path = xp.concatenate([xp.zeros_like(step[..., :1, :]), path], axis=-2)
    height = wide[..., HML263["root_height"]] * like([0.0, 1.0, 0.0], wide)
    local = wide[..., HML263["joint_positions"]].reshape(*motion.shape[:-1], N_JOINTS - 1, 3)
    joints = rotate(unturn[..., None, :, :], local) + path[..., None, :]
    return astype(xp.concatenate([(path + height)[..., None, :], joints], axis=-2), motion)


def uniform(joints: Array, bone_lengths: tuple[float, ...] = BONE_LENGTHS) -> Array:
    """(..., T, 22, 3) with every bone's direction kept and its length set; the path is scaled with the legs.

    The release does this by inverse and forward kinematics over its bone rotations; that is the same thing.
    """
    expect_shape(joints, ("T", N_JOINTS, 3), "joints")
    if len(bone_lengths) != N_JOINTS - 1:
        raise ValueError(f"expected {N_JOINTS - 1} bone lengths, one for each joint but the pelvis: {bone_lengths}")
    xp = namespace(joints)
    bones = joints[..., 1:, :] - joints[..., list(PARENTS[1:]), :]
    length = xp.linalg.norm(bones, axis=-1, keepdims=True)
    bones = bones / xp.clip(length, 1e-12, None) * like(bone_lengths, joints)[:, None]
    leg = length[..., :1, [joint - 1 for joint in _LEG], 0].sum(axis=-1)
    scale = sum(bone_lengths[joint - 1] for joint in _LEG) / xp.clip(leg, 1e-12, None)
    out = [joints[..., 0, :] * scale[..., None]]
    for joint in range(1, N_JOINTS):
        out.append(out[PARENTS[joint]] + bones[..., joint - 1, :])
    return xp.stack(out, axis=-2)


def canonical(joints: Array) -> Array:
    """(..., T, 22, 3) with the clip's lowest joint at height 0, the first pelvis over the origin, first facing +Z."""
    expect_shape(joints, ("T", N_JOINTS, 3), "joints")
    xp = namespace(joints)
    heights = joints[..., 1].reshape(*joints.shape[:-3], -1)
    floor = xp.amin(heights, axis=-1)[..., None]
    first = joints[..., 0, 0, :] * like([1.0, 0.0, 1.0], joints) + floor * like([0.0, 1.0, 0.0], joints)
    turn = yaw(2 * _half_turn(facing(joints[..., :1, :, :])))
    return rotate(turn[..., None, :, :], joints - first[..., None, None, :])


def facing(joints: Array) -> Array:
    """The horizontal direction (..., T, 3) in which hips and shoulders face, not of unit length."""
    return _forward(_unit(_hips(joints) + _shoulders(joints)))


def _across_as_released(joints: Array) -> Array:
    """`facing` as the release's inverse kinematics has it: it reads the hips' indices the wrong way round.

    The hips then pull against the shoulders. Published features have this, so it has to be kept.
    """
    return _forward(_unit(_shoulders(joints) - _hips(joints)))


def _hips(joints: Array) -> Array:
    return joints[..., 2, :] - joints[..., 1, :]


def _shoulders(joints: Array) -> Array:
    return joints[..., 17, :] - joints[..., 16, :]


def _forward(across: Array) -> Array:
    """+Y x across, `across` pointing from left to right."""
    xp = namespace(across)
    return xp.stack([across[..., 2], xp.zeros_like(across[..., 0]), -across[..., 0]], axis=-1)


def _unit(vector: Array) -> Array:
    xp = namespace(vector)
    return vector / xp.clip(xp.linalg.norm(vector, axis=-1, keepdims=True), 1e-12, None)


def _half_turn(forward: Array) -> Array:
    """Half the yaw (...) that turns `forward` (..., 3) to +Z, in (-pi/2, pi/2]: the quaternion has w >= 0.

    Half-turns on two sides of a body facing -Z differ by pi, and the arcsin of `root_turn` then has the wrong sign for
    that one frame. The release does the same.
    """
    return -namespace(forward).arctan2(forward[..., 0], forward[..., 2]) / 2


def _smoothed(values: Array) -> Array:
    """Gaussian over time (axis -2), ends repeated, cut at four standard deviations, as scipy.ndimage has it."""
    xp = namespace(values)
    offsets = like(list(range(-_RADIUS, _RADIUS + 1)), values)
    kernel = xp.exp(-0.5 * (offsets / _SMOOTH) ** 2)
    kernel = kernel / kernel.sum()
    last = values.shape[-2] - 1
    padded = values[..., [min(max(t, 0), last) for t in range(-_RADIUS, last + _RADIUS + 1)], :]
    if xp.__name__ == "numpy":
        return xp.lib.stride_tricks.sliding_window_view(padded, 2 * _RADIUS + 1, axis=-2) @ kernel
    return padded.unfold(-2, 2 * _RADIUS + 1, 1) @ kernel


def _bone_rotations(joints: Array, turn: Array) -> Array:
    """Rotation (..., T, 21, 3, 3) of each bone relative to the one before it; the pelvis's is `turn` (not inverted)."""
    xp = namespace(joints)
    bones = _unit(joints[..., 1:, :] - joints[..., list(PARENTS[1:]), :])
    rest = like(BONE_DIRECTIONS, joints) + xp.zeros_like(bones)
    world = xp.concatenate([turn[..., None, :, :], between_vectors(rest, bones)], axis=-3)
    return transpose(world[..., list(_BEFORE), :, :]) @ world[..., 1:, :, :]


def _check_joints(joints: Array) -> None:
    expect_shape(joints, ("T", N_JOINTS, 3), "joints")
    if joints.shape[-3] < 2:
        raise ValueError(f"hml263 needs at least 2 joint frames at 20 fps, got {joints.shape[-3]}")


@REPRESENTATIONS.register("hml263")
class HumanML263(Representation):
    """This module's functions as a `Representation`.

    A clip of T frames at 30 fps has ``floor((T - 1) / 1.5)`` frames of features: for lengths with T % 3 == 2 that is
    one fewer than in data converted by Motius, which rounds the number of joint frames to the nearest.
    """

    spec = HML263
    root = ("root_turn", "root_velocity", "root_height")
    positions, velocities = "joint_positions", "joint_velocities"

    def to_joints(self, motion: Array, **options: Any) -> Array:
        """Joints from the stored positions; first heading +Z."""
        return to_joints(motion)

    def from_body(self, body: Body, *, contact_threshold: float = CONTACT_THRESHOLD, **options: Any) -> Array:
        """HumanML3D's recipe at 20 fps; a body at another frame rate is interpolated first."""
        frames = body.joints.shape[-3]
        joints = resample_body(Body(body.joints, body.fps), self.fps).joints
        if joints.shape[-3] < 2:
            raise ValueError(
                f"{frames} frames at {body.fps:g} fps are {joints.shape[-3]} at {self.fps:g} fps; "
                f"{self.name} needs at least 2"
            )
        return from_joints(joints, contact_threshold=contact_threshold)

    def mirror(self, motion: Array) -> Array:
        """Left and right exchanged, bones included.

        HumanML3D's released mirrored clips (M) are mirrored before the uniform body is put on, whose sides differ by up
        to 9 mm a bone; here that body is mirrored too.
        """
        self.check(motion)
        xp, shape = namespace(motion), motion.shape[:-1]
        side, flip = like([-1.0, 1.0, 1.0], motion), like([1.0, -1.0, -1.0, -1.0, 1.0, 1.0], motion)
        others = [joint - 1 for joint in MIRROR[1:]]

        def swapped(block: str, size: int, order: list[int], signs: Array) -> Array:
            each = motion[..., HML263[block]].reshape(*shape, len(order), size)[..., order, :]
            return (each * signs).reshape(*shape, len(order) * size)

        return xp.concatenate(
            [
                -motion[..., HML263["root_turn"]],
                motion[..., HML263["root_velocity"]] * like([-1.0, 1.0], motion),
                motion[..., HML263["root_height"]],
                swapped("joint_positions", 3, others, side),
                swapped("joint_rotations", 6, others, flip),
                swapped("joint_velocities", 3, list(MIRROR), side),
                swapped("contacts", 2, [1, 0], like([1.0, 1.0], motion)),
            ],
            axis=-1,
        )

    def rest(self, last: Array) -> Array:
        """The same pose, feet on the floor as they are, no velocity and no turn.

        The last frame's own step leads to the first frame at rest: velocities here are those *to* the next frame.
        """
        rest = last + namespace(last).zeros_like(last)  # a copy, for both kinds of array
        for block in ("root_turn", "root_velocity", "joint_velocities"):
            rest[..., HML263[block]] = 0.0
        rest[..., HML263["contacts"]] = 1.0
        return rest

    def feature_problems(self, motion: NDArray[np.float64]) -> list[Problem]:
        """Rotations have unit columns, the floor is at height 0."""
        found = unit_length_problem(motion[:, HML263["joint_rotations"]].reshape(len(motion), N_JOINTS - 1, 2, 3))
        return found or frozen_problem(motion) or below_floor(np.asarray(to_joints(motion)))

    def statistics_problem(self, mean: NDArray[Any], std: NDArray[Any]) -> str | None:
        """The mean pelvis height tells them from another representation's, or from mean and std exchanged."""
        height = float(mean[HML263["root_height"]][0])
        if 0.0 < height < 3.0:
            return None
        return f"the mean pelvis height (channel {HML263['root_height'].start}) is {height:.3g} m, expected about 0.9"
