"""Files on one skeleton: BVH for any rig, retargeting, frame rates, in place, loops."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.animation import animate
from hftrainer.motion.body import BodyMotion, measure, smpl_body
from hftrainer.motion.edit import in_place, largest_turn, loop, resample
from hftrainer.motion.fit import pose
from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.io.bvh_write import write_bvh
from hftrainer.motion.representation import motion272
from hftrainer.motion.rigs import find_rig, onto_rig, retarget, rig_names
from hftrainer.motion.rotation import yaw
from hftrainer.motion.skeleton import PARENTS
from hftrainer.render.export import ExportOptions

WALK, TURN, WAVE = (make_motion(kind, 150, 3).astype(np.float64) for kind in ("walk", "turn-left", "wave"))
BODY = measure([(motion272.to_joints(WALK), motion272.to_rotations(WALK)[0])], "walker")


def hierarchy(path):
    return path.read_text().partition("MOTION")[0]


# --- BVH ------------------------------------------------------------------------------------------------------------


def test_every_motion_is_written_on_the_same_skeleton(tmp_path):
    heads = []
    for name, motion in (("walk", WALK), ("turn", TURN), ("wave", WAVE)):
        write_bvh(tmp_path / f"{name}.bvh", pose(motion, BODY))
        heads.append(hierarchy(tmp_path / f"{name}.bvh"))
    assert heads[0] == heads[1] == heads[2]


@pytest.mark.parametrize("root_motion", [False, True])
def test_a_file_has_the_joints_of_the_motion(tmp_path, root_motion):
    motion = pose(TURN, BODY)
    write_bvh(tmp_path / "turn.bvh", animate(motion, root_motion=root_motion, moving_root=True))
    bvh = read_bvh(tmp_path / "turn.bvh")
    _, places = bvh.global_transforms()
    assert bvh.names[:2] == ["root", "pelvis"]
    order = [bvh.names.index(name) for name in find_rig("model").names]
    assert np.abs(places[:, order] / 100 - motion.joints).max() < 1e-4  # metres; six digits of centimetres and degrees
    assert len(set(bvh.names)) == len(bvh.names) == 28  # with names for the five ends


def test_an_independent_reader_sees_the_same_joints(tmp_path):
    bvh_module = pytest.importorskip("pymotion.io.bvh", reason="pip install upc-pymotion")
    from pymotion.ops.skeleton import fk

    motion = pose(TURN, BODY)
    write_bvh(tmp_path / "turn.bvh", motion)
    bvh = bvh_module.BVH()
    bvh.load(str(tmp_path / "turn.bvh"))
    rotations, positions, parents, offsets, _, _ = bvh.get_data()
    joints, _ = fk(rotations, positions[:, 0, :], offsets, parents)
    order = [list(bvh.data["names"]).index(name) for name in find_rig("model").names]
    assert np.abs(joints[:, order] / 100 - motion.joints).max() < 1e-3  # metres


def test_the_rest_pose_is_a_t_pose_on_the_floor(tmp_path):
    write_bvh(tmp_path / "walk.bvh", pose(WALK, BODY))
    bvh = read_bvh(tmp_path / "walk.bvh")
    bvh.values[:] = 0
    place = dict(zip(bvh.names, bvh.global_transforms()[1][0], strict=True))
    assert place["left_wrist"][0] > 45  # centimetres, left on +X
    assert place["right_wrist"][0] < -45
    assert abs(place["left_wrist"][1] - place["left_shoulder"][1]) < 15
    assert min(p[1] for p in place.values()) == pytest.approx(0, abs=1e-4)
    assert place["left_foot_end"][2] > place["left_foot"][2] > place["left_ankle"][2]  # toes forward, +Z


def test_metres_and_z_up(tmp_path):
    motion = pose(TURN, BODY)
    write_bvh(tmp_path / "turn.bvh", motion, scale=1.0, up="z")
    bvh = read_bvh(tmp_path / "turn.bvh")
    _, places = bvh.global_transforms()
    order = [bvh.names.index(name) for name in find_rig("model").names]
    x, y, z = np.moveaxis(motion.joints, -1, 0)
    assert np.abs(places[:, order] - np.stack([x, -z, y], axis=-1)).max() < 1e-4
    with pytest.raises(ValueError, match="up is 'y' or 'z'"):
        write_bvh(tmp_path / "turn.bvh", motion, up="x")


# --- rigs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rig_names())
def test_a_rig_keeps_the_directions_of_limbs(name):
    motion = pose(TURN, BODY)
    moved = onto_rig(motion, find_rig(name))
    assert len(set(find_rig(name).names)) == 22
    for joint in (18, 19, 20, 21, 15):  # arms and head; legs are locked to the floor again
        ours, theirs = (
            (m.joints[:, joint] - m.joints[:, PARENTS[joint]]) / m.body.lengths[joint] for m in (motion, moved)
        )
        assert (ours * theirs).sum(-1).min() > 0.97, name  # the chest turns along where collars point elsewhere
    assert moved.joints[..., 1].min() > -0.005


def test_an_a_pose_is_only_a_rest_pose():
    motion = pose(WALK, BODY)
    unreal = onto_rig(motion, find_rig("unreal"))
    rest = unreal.body.rest_joints
    assert rest[20, 1] < rest[16, 1] - 0.3
    flat = BodyMotion(np.tile(np.eye(3), (5, 22, 1, 1)), np.tile(BODY.rest_joints[0], (5, 1)), BODY)
    arms = retarget(flat, unreal.body).joints[:, [16, 20]]
    assert np.abs(arms[:, 0, 1] - arms[:, 1, 1]).max() < 0.02  # a T-pose stays a T-pose


def test_unknown_rigs_name_the_near_one():
    with pytest.raises(ValueError, match="did you mean 'mixamo'; choose one of model, smpl"):
        find_rig("mixam")


# --- edits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [24, 60])
def test_another_frame_rate_keeps_the_motion(fps):
    motion = pose(TURN, BODY)
    other = resample(motion, fps)
    assert abs(other.seconds - motion.seconds) < 2 / 24
    back = resample(other, 30)
    frames = min(len(back), len(motion)) - 2
    assert np.abs(back.joints[1:frames] - motion.joints[1:frames]).max() < 0.01
    assert largest_turn(other) < largest_turn(motion) * 30 / fps * 1.3


def test_in_place_stays_at_the_origin_and_keeps_its_turns():
    motion = pose(TURN, BODY)
    spot = in_place(motion)
    assert np.linalg.norm(spot.root[:, [0, 2]], axis=-1).max() < 0.1 < np.ptp(motion.root[:, 2])
    np.testing.assert_array_equal(spot.rotations, motion.rotations)


def test_a_loop_closes_position_and_velocity():
    for motion in (pose(WALK, BODY), pose(TURN, BODY), in_place(pose(WALK, BODY))):
        cycle = loop(motion)
        assert cycle.position_gap < 0.003  # metres; 1e-9 before feet are locked
        assert loop(motion, lock=False).position_gap < 1e-6
        assert cycle.motion.joints[..., 1].min() > -0.005
        assert cycle.velocity_step < 1.1 * cycle.usual_step
        assert 18 <= len(cycle.motion) <= len(motion)
        body = cycle.motion.joints - cycle.motion.root[:, None]
        inside = np.linalg.norm(np.diff(body, axis=0), axis=-1).max()
        assert inside < 1.5 * np.linalg.norm(np.diff(motion.joints - motion.root[:, None], axis=0), axis=-1).max()


@pytest.mark.parametrize("fps", [None, 60.0])
def test_a_loop_in_place_on_another_rig_and_at_another_frame_rate_closes(fps):
    options = ExportOptions(skeleton="mixamo", fps=fps, in_place=True, loop=True)
    found = options.looped(pose(WALK, BODY))
    cycle = options.apply(pose(WALK, BODY))
    np.testing.assert_array_equal(cycle.joints, found.motion.joints)  # what is measured is what is written
    assert cycle.fps == (fps or 30)
    steps = np.linalg.norm(np.diff(cycle.joints, axis=0), axis=-1).max(axis=1)
    seam = np.linalg.norm(cycle.joints[0] - cycle.joints[-1], axis=-1).max()
    assert 0.2 * steps.min() < seam < 1.2 * steps.max()  # the seam is a step like the others: one frame, no jump
    assert found.position_gap < 0.003  # metres, as for a loop on the model's own body
    assert found.velocity_step < 1.1 * found.usual_step


def test_feet_are_locked_before_the_path_is_removed():
    motion = pose(WALK, BODY)
    moved = onto_rig(motion, find_rig("mixamo"))
    spot = ExportOptions(skeleton="mixamo", in_place=True).apply(motion)
    np.testing.assert_allclose(spot.joints, in_place(moved).joints, atol=1e-12)  # the same numbers in the same order


def test_a_loop_of_a_clip_without_a_cycle_is_still_closed():
    rng = np.random.default_rng(0)
    motion = pose(WAVE, BODY)
    drift = np.tile(np.linspace(0, 0.6, len(motion))[:, None, None, None], (1, 1, 1, 1))
    bent = motion.rotations.copy()
    bent[:, 3] = np.asarray(yaw(drift[:, 0, 0, 0])) @ bent[:, 3]
    cycle = loop(BodyMotion(bent, motion.root + rng.normal(0, 1e-4, motion.root.shape), BODY))
    assert cycle.position_gap < 0.001


def test_short_clips_do_not_loop():
    with pytest.raises(ValueError, match="too short to loop"):
        loop(pose(WALK[:10], BODY))


def test_smpl_proportions_scale_the_path():
    motion = pose(WALK, BODY)
    moved = retarget(motion, smpl_body())
    scale = smpl_body().leg / BODY.leg
    assert np.ptp(moved.root[:, 2]) == pytest.approx(scale * np.ptp(motion.root[:, 2]), rel=1e-6)
