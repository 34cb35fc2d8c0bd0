"""An added T-pose and a jump at the start are found; a T-pose that is left by moving is not."""

from __future__ import annotations

import numpy as np

from hftrainer.data.synthetic.motions import OFFSETS, make_motion
from hftrainer.motion.first_frames import frames_to_skip, is_t_pose
from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.representation import motion272
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.skeleton import forward_kinematics
from hftrainer.motion.skeleton_map import load_map

WALK = motion272.to_joints(make_motion("walk", 90, 3))
T_POSE = forward_kinematics(np.broadcast_to(np.eye(3), (1, 22, 3, 3)), np.array([[0.0, 0.9, 0.0]]), OFFSETS)


def test_a_t_pose_is_one():
    assert is_t_pose(T_POSE[0])
    assert not is_t_pose(WALK[0])


def test_added_frames_are_counted():
    assert frames_to_skip(WALK, 30) == 0
    for held in (1, 2, 60):
        assert frames_to_skip(np.concatenate([np.repeat(T_POSE, held, axis=0), WALK]), 30) == held


def test_a_first_frame_that_is_off_is_skipped():
    off = WALK.copy()
    off[0, 20] += [0.0, 0.2, 0.0]  # what a filter leaves of an added pose
    assert frames_to_skip(off, 30) == 1


def test_a_t_pose_that_the_actor_leaves_is_motion():
    blend = np.linspace(0, 1, 40)[:, None, None] ** 2
    leaving = T_POSE * (1 - blend) + WALK[:1] * blend
    assert frames_to_skip(np.concatenate([np.repeat(T_POSE, 20, axis=0), leaving, WALK]), 30) == 0


def test_a_real_file_loses_its_added_t_pose(shared):
    bvh = read_bvh(shared / "cases" / "import" / "tpose_first" / "cmu_07_01_head.bvh")
    clip = retarget(bvh, load_map("cmu"))
    assert clip.skipped == 1
    assert len(retarget(bvh, load_map("cmu"), RetargetOptions(skip_first=0)).root) == len(clip.root) + 1
    assert np.linalg.norm(np.diff(clip.joints, axis=0), axis=-1).max() * clip.fps < 6.0  # m/s
