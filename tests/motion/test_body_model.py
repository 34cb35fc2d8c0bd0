"""Rest skeletons of body models, and what FID-refk's reference is: real clips re-posed on one."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.motion.body_model import body_model_offsets
from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.convert import motion272_with_skeleton
from hftrainer.motion.skeleton import PARENTS


@pytest.fixture
def model(tmp_path):
    """Arrays as in SMPL's: more joints than 22, a template whose regressed joints are not at the origin."""
    rng = np.random.default_rng(0)
    template, regressor = rng.normal(size=(100, 3)), rng.random((52, 100))
    regressor /= regressor.sum(axis=1, keepdims=True)
    np.savez(tmp_path / "model.npz", v_template=template, J_regressor=regressor, f=np.zeros((5, 3), np.uint32))
    return tmp_path / "model.npz", regressor @ template


def test_offsets_are_differences_of_the_regressed_joints(model):
    path, joints = model
    offsets = body_model_offsets(path)
    assert (offsets[0] == 0).all()
    for joint in range(1, 22):
        np.testing.assert_allclose(offsets[joint], joints[joint] - joints[PARENTS[joint]], atol=1e-12)


@pytest.mark.parametrize("clip", ["c0", "c1", "c2"])
def test_the_reposed_clip_equals_a_body_posed_joint_by_joint(golden, model, clip):
    """refk, the slow way: rest pelvis plus path, rigid kinematics by hand, the encoder of the golden test."""
    path, rest = model
    content = golden("representation_pub")
    motion = content[f"{clip}_272"]
    rotations, root = motion272.to_rotations(motion)
    joints = np.zeros((len(motion), 22, 3))
    for t in range(len(motion)):
        world = [rotations[t, 0]]
        joints[t, 0] = rest[0] + root[t]
        for joint in range(1, 22):
            parent = PARENTS[joint]
            joints[t, joint] = joints[t, parent] + world[parent] @ (rest[joint] - rest[parent])
            world.append(world[parent] @ rotations[t, joint])
    want = motion272.from_joints_and_rotations(joints, rotations)
    np.testing.assert_allclose(motion272_with_skeleton(motion, body_model_offsets(path)), want, atol=1e-9)
    # the control: on the clip's own skeleton nothing changes
    own = motion272_with_skeleton(motion, np.concatenate([np.zeros((1, 3)), content["offsets"][1:]]))
    assert np.abs(own - motion).max() / np.abs(motion).max() < 1e-6


def test_other_files_are_refused(model, tmp_path):
    np.savez(tmp_path / "other.npz", v_template=np.zeros((5, 3)))
    with pytest.raises(ValueError, match="J_regressor"):
        body_model_offsets(tmp_path / "other.npz")
    np.savez(tmp_path / "odd.npz", v_template=np.zeros((5, 3)), J_regressor=np.zeros((22, 6)))
    with pytest.raises(ValueError, match="they do not fit"):
        body_model_offsets(tmp_path / "odd.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="not a body model"):
        body_model_offsets(tmp_path / "text.npz")
