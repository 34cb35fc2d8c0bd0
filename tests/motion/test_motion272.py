"""The 272 representation against the reference, and what must hold whatever the reference says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.spec import MOTION272
from hftrainer.motion.rotation import axis_angle_to_matrix, rotate, yaw
from hftrainer.motion.skeleton import (
    JOINTS,
    MIRROR,
    PARENTS,
    bone_offsets,
    forward_kinematics,
    global_rotations,
    local_rotations,
)

KINDS = {"numpy": np.asarray, "torch": torch.from_numpy}
CLIPS = ("c0", "c1", "c2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", CLIPS)
def test_encoding_equals_the_reference(golden, clip, kind):
    want = golden("representation_pub")
    make = KINDS[kind]
    joints = make(want[f"{clip}_joints"].astype(np.float64))
    rotations = axis_angle_to_matrix(make(want[f"{clip}_axis_angle"].astype(np.float64)))
    got = motion272.from_joints_and_rotations(joints, rotations)
    assert type(got) is type(joints)
    np.testing.assert_allclose(got, want[f"{clip}_272"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", CLIPS)
def test_both_decodings_equal_the_reference(golden, clip, kind, dtype):
    want = golden("representation_pub")
    motion = KINDS[kind](want[f"{clip}_272"].astype(dtype))
    joints, smpl = motion272.to_joints(motion), motion272.to_smpl85(motion)
    assert joints.dtype == motion.dtype
    np.testing.assert_allclose(joints, want[f"{clip}_joints_from_positions"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(smpl, want[f"{clip}_smpl85_from_rotations"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("clip", CLIPS)
def test_skeleton_equals_the_reference(golden, clip):
    want = golden("representation_pub")
    assert want["parents"].tolist() == list(PARENTS)
    motion = want[f"{clip}_272"]
    rotations, root = motion272.to_rotations(motion)
    joints = motion272.to_joints(motion)
    offsets = bone_offsets(joints, rotations)
    np.testing.assert_allclose(offsets[1:], want["offsets"][1:], atol=1e-6)
    np.testing.assert_allclose(forward_kinematics(rotations, root, offsets), joints, atol=1e-6)


def test_turning_and_moving_the_body_does_not_change_the_features(golden):
    want = golden("representation_pub")
    joints = want["c0_joints"].astype(np.float64)
    rotations = axis_angle_to_matrix(want["c0_axis_angle"].astype(np.float64))
    turn = yaw(np.array(1.2))
    turned = np.concatenate([(turn @ rotations[:, 0])[:, None], rotations[:, 1:]], axis=1)
    moved = rotate(turn, joints) + np.array([3.0, 0.5, -2.0])
    got = motion272.from_joints_and_rotations(moved, turned)
    np.testing.assert_allclose(got, want["c0_272"], atol=1e-6)


def test_leading_dimensions_are_clips(golden):
    motion = golden("representation_pub")["c1_272"]
    batch = np.stack([motion, motion272.mirror(motion)])[None]
    np.testing.assert_array_equal(motion272.to_joints(batch)[0, 0], motion272.to_joints(motion))
    rotations, root = motion272.to_rotations(batch)
    assert rotations.shape == (1, 2, 61, 22, 3, 3)
    again = motion272.from_joints_and_rotations(motion272.to_joints(batch), rotations)
    np.testing.assert_allclose(again[0, 0, 1:], motion[1:], atol=1e-6)
    assert root.shape == (1, 2, 61, 3)


def test_rest_padding_stands_still_where_repeating_glides(golden):
    motion = golden("representation_pub")["c0_272"]
    rest = motion272.to_joints(motion272.pad_at_rest(motion, 120))
    np.testing.assert_allclose(rest[90:], np.broadcast_to(rest[89], (30, 22, 3)), atol=1e-9)
    repeated = motion272.to_joints(np.concatenate([motion, np.repeat(motion[-1:], 30, axis=0)]))
    assert np.linalg.norm(repeated[-1, 0] - repeated[89, 0]) > 0.05  # what the rule is there to prevent
    assert motion272.pad_at_rest(motion, 50) is motion


@pytest.mark.parametrize("make", KINDS.values())
def test_mirror_exchanges_left_and_right(golden, make):
    motion = make(golden("representation_pub")["c2_272"])
    mirrored = motion272.mirror(motion)
    np.testing.assert_array_equal(motion272.mirror(mirrored), motion)
    seen = np.asarray(motion272.to_joints(motion))[:, list(MIRROR)] * [-1, 1, 1]
    np.testing.assert_allclose(motion272.to_joints(mirrored), seen, atol=1e-9)
    rotations, root = motion272.to_rotations(mirrored)
    joints = motion272.to_joints(mirrored)
    rebuilt = forward_kinematics(rotations, root, bone_offsets(joints, rotations))
    np.testing.assert_allclose(rebuilt, joints, atol=1e-6)


def test_gradients_reach_every_channel_that_joints_depend_on():
    motion = torch.from_numpy(make_motion("walk", 30, 0)).requires_grad_()
    (motion272.to_joints(motion) * torch.randn(30, 22, 3)).sum().backward()
    grad = motion.grad.abs().sum(0)
    assert (grad[MOTION272["joint_positions"]] > 0).all()
    assert grad[MOTION272["root_velocity"]].min() > 0
    assert (grad[MOTION272["joint_velocities"]] == 0).all()


def test_global_and_local_rotations_are_inverse():
    local = axis_angle_to_matrix(np.random.default_rng(0).normal(size=(5, 22, 3)))
    np.testing.assert_allclose(local_rotations(global_rotations(local)), local, atol=1e-12)


def test_channels_cover_the_vector():
    assert MOTION272.width == 272
    assert MOTION272["joint_velocities"] == slice(74, 140)
    with pytest.raises(KeyError, match="no channel 'contacts'"):
        MOTION272["contacts"]
    assert len(JOINTS) == len(PARENTS) == 22


@pytest.mark.parametrize("shape", [(10, 263), (272,), (0, 272)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"272|frame"):
        motion272.to_joints(np.zeros(shape))
