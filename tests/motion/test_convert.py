"""Conversions that meet at joints and rotations: motion135, skeletons, routes by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hftrainer.motion.representation import convert, motion135, motion272
from hftrainer.motion.representation.convert import (
    Options,
    motion135_to_motion272,
    motion272_to_joints,
    motion272_to_motion135,
    motion272_with_skeleton,
)
from hftrainer.motion.rotation import axis_angle_to_matrix
from hftrainer.motion.skeleton import PARENTS, forward_kinematics, global_rotations

CLIPS = ("c0", "c1", "c2")
KINDS = {"numpy": np.asarray, "torch": torch.from_numpy}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", CLIPS)
def test_joints_of_positions_and_of_rotations_equal_the_reference(golden, clip, kind):
    want = golden("representation_pub")
    motion = KINDS[kind](want[f"{clip}_272"])
    stored = motion272_to_joints(motion)
    rebuilt = motion272_to_joints(motion, offsets=np.concatenate([np.zeros((1, 3)), want["offsets"][1:]]))
    assert type(stored) is type(rebuilt) is type(motion)
    np.testing.assert_allclose(stored, want[f"{clip}_joints_from_positions"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(rebuilt, want[f"{clip}_joints_from_positions"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", motion135.LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", CLIPS)
def test_135_holds_the_references_rotations_and_root(golden, clip, kind, layout):
    want = golden("representation_pub")
    got = motion272_to_motion135(KINDS[kind](want[f"{clip}_272"]), layout=layout)
    smpl = want[f"{clip}_smpl85_from_rotations"].astype(np.float64)
    np.testing.assert_allclose(got[:, :3], smpl[:, 72:75], atol=1e-6)
    six = np.asarray(got[:, 3:]).reshape(-1, 22, 6)
    matrices = axis_angle_to_matrix(smpl[:, :66].reshape(-1, 22, 3))
    order = {"columns": lambda m: np.concatenate([m[..., 0], m[..., 1]], -1),
             "columns_interleaved": lambda m: m[..., :2].reshape(*m.shape[:-2], 6)}[layout]  # fmt: skip
    np.testing.assert_allclose(six, order(matrices), atol=1e-6)
    rotations, root = motion135.to_rotations(got, layout=layout)
    np.testing.assert_allclose(rotations, matrices, atol=1e-6)
    np.testing.assert_array_equal(root, got[:, :3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", CLIPS)
def test_272_comes_back_from_135_on_the_clips_skeleton(golden, clip, kind):
    want = golden("representation_pub")
    motion = KINDS[kind](want[f"{clip}_272"])
    offsets = np.concatenate([np.zeros((1, 3)), want["offsets"][1:]])
    for layout in motion135.LAYOUTS:
        middle = motion272_to_motion135(motion, layout=layout)
        again = motion135_to_motion272(middle, offsets=offsets, layout=layout)
        np.testing.assert_allclose(again, motion, atol=1e-6)
    np.testing.assert_allclose(motion272_with_skeleton(motion, offsets), motion, atol=1e-6)


def test_another_skeleton_keeps_rotations_and_path(golden):
    motion = golden("representation_pub")["c0_272"]
    other = motion272_with_skeleton(motion, np.array(motion135.CANON272_OFFSETS))
    np.testing.assert_allclose(other[:, 140:], motion[:, 140:], atol=1e-6)
    np.testing.assert_allclose(other[:, :8], motion[:, :8], atol=1e-6)
    assert np.abs(other[:, 8:74] - motion[:, 8:74]).max() > 0.01
    bones = other[:, 8:74].reshape(-1, 22, 3)
    lengths = np.linalg.norm(bones[:, 1:] - bones[:, list(PARENTS[1:])], axis=-1)
    wanted = np.linalg.norm(np.array(motion135.CANON272_OFFSETS)[1:], axis=-1)
    np.testing.assert_allclose(lengths, np.tile(wanted, (90, 1)), atol=1e-9)
    np.testing.assert_allclose(motion135_to_motion272(motion272_to_motion135(motion)), other, atol=1e-9)


def test_layouts_are_not_interchangeable(golden):
    """A wrong layout gives a body, but not this one; that is why it has to be named."""
    motion = golden("representation_pub")["c0_272"]
    wrong = motion135.to_joints(motion272_to_motion135(motion), layout="columns")
    right = motion135.to_joints(motion272_to_motion135(motion))
    assert np.abs(wrong - right).max() > 0.1


def test_global_rotations_are_taken_apart(golden):
    motion = golden("representation_pub")["c1_272"]
    rotations, root = motion272.to_rotations(motion)
    world = motion135.from_rotations(global_rotations(rotations), root)
    got, _ = motion135.to_rotations(world, rotation_space="global")
    np.testing.assert_allclose(got, rotations, atol=1e-9)
    joints = motion135.to_joints(world, rotation_space="global")
    offsets = np.array(motion135.CANON272_OFFSETS)
    np.testing.assert_allclose(joints, forward_kinematics(rotations, root, offsets), atol=1e-9)


def test_leading_dimensions_and_types(golden):
    motion = golden("representation_pub")["c1_272"].astype(np.float32)
    batch = np.stack([motion, motion272.mirror(motion)])[None]
    out = motion135_to_motion272(motion272_to_motion135(batch))
    assert out.shape == (1, 2, 61, 272)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[0, 0], motion135_to_motion272(motion272_to_motion135(motion)))
    assert motion272_to_motion135(torch.from_numpy(motion)).dtype == torch.float32


def test_every_route_by_name_is_its_function(golden):
    motion = golden("representation_pub")["c0_272"]
    joints = motion272_to_joints(motion)
    middle = motion272_to_motion135(motion, layout="columns")
    features = convert.motion272_to_hml263(motion)
    given = Options(fps=30.0, layout="columns")
    inputs = {"motion272": motion, "joints": joints, "motion135": middle, "hml263": features}
    wanted = {
        ("motion272", "joints"): (joints, 30), ("motion272", "motion135"): (middle, 30),
        ("motion272", "hml263"): (features, 20), ("joints", "hml263"): (features, 20),
        ("hml263", "joints"): (convert.hml263_to_joints(features), 20),
        ("motion135", "joints"): (motion135.to_joints(middle, layout="columns"), 30),
        ("motion135", "motion272"): (motion135_to_motion272(middle, layout="columns"), 30),
        ("motion135", "hml263"): (
            convert.joints_to_hml263(motion135.to_joints(middle, layout="columns"), fps=30), 20,
        ),
    }  # fmt: skip
    for source in inputs:
        for target in inputs:
            if (source, target) not in wanted:
                if source == target:
                    with pytest.raises(ValueError, match="are both"):
                        convert.check_route(source, target)
                else:
                    assert convert.makes_up_rotations(source, target)
            else:
                assert not convert.makes_up_rotations(source, target)
                got = convert.convert(inputs[source], source, target, given)
                np.testing.assert_allclose(got.values, wanted[source, target][0], atol=1e-9)
                assert got.fps == wanted[source, target][1]
    flat = convert.convert(joints.reshape(len(joints), 66), "joints", "hml263")
    np.testing.assert_array_equal(flat.values, features)


@pytest.mark.parametrize("source", ["joints", "hml263"])
def test_joints_are_posed_where_rotations_are_needed(golden, source):
    """Positions stay; rotations are those of a body that follows them, the real ones but for twists."""
    motion = golden("representation_pub")["c0_272"]
    given = motion272_to_joints(motion) if source == "joints" else convert.motion272_to_hml263(motion)
    made = convert.convert(given, source, "motion272")
    assert made.fps == 30
    frames = min(len(motion), len(made.values))
    if source == "joints":
        got, wanted = (motion272.to_joints(values) for values in (made.values, motion))
        np.testing.assert_allclose(got[..., 1], wanted[..., 1], atol=1e-9)
        # the first frame's heading is taken from the posed pelvis, so the clip may be turned as a whole
        lengths = [np.linalg.norm(joints - joints[:1, :1], axis=-1) for joints in (got, wanted)]
        np.testing.assert_allclose(*lengths, atol=1e-9)
    rotations, _ = motion272.to_rotations(made.values)
    real, _ = motion272.to_rotations(motion)
    bones = forward_kinematics(rotations, np.zeros((len(rotations), 3)), np.array(motion135.CANON272_OFFSETS))
    theirs = forward_kinematics(real, np.zeros((len(real), 3)), np.array(motion135.CANON272_OFFSETS))
    # golden bodies have other proportions than the canonical one: limbs point the same way, to some centimetres
    assert np.abs(bones[:frames] - theirs[:frames]).mean() < 0.06
    middle = convert.convert(given, source, "motion135")
    assert middle.values.shape[1] == 135


def test_what_cannot_be_converted_says_why(golden):
    with pytest.raises(ValueError, match="a body cannot be posed to joints whose bones are"):
        convert.convert(np.zeros((5, 263)), "hml263", "motion272")
    with pytest.raises(ValueError, match=r"no representation called 'hml262'\. Did you mean 'hml263'"):
        convert.check_route("hml262", "joints")
    with pytest.raises(ValueError, match="layout must be one of"):
        motion272_to_motion135(golden("representation_pub")["c0_272"], layout="row")
    with pytest.raises(ValueError, match="rotation_space"):
        motion135.to_rotations(np.zeros((3, 135)), rotation_space="world")
    with pytest.raises(ValueError, match=r"offsets\[0\] must be 0"):
        motion135.to_joints(np.zeros((3, 135)), offsets=np.ones((22, 3)))


def test_rest_joints_become_offsets():
    offsets = np.array(motion135.CANON272_OFFSETS)
    rest = forward_kinematics(np.broadcast_to(np.eye(3), (22, 3, 3)), np.array([0.1, 0.9, 0.2]), offsets)
    np.testing.assert_allclose(motion135.rest_offsets(rest), offsets, atol=1e-12)
