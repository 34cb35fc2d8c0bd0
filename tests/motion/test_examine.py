"""Nonsense is refused, oddities are doubted with a remedy, and a person's motion passes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hftrainer.data.prepare.check_import import check_import, table
from hftrainer.data.prepare.convert_motion import ImportSettings, convert_motion
from hftrainer.motion.examine import examine
from hftrainer.motion.gait import airborne_gravity, walking
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.plausible import DISPROPORTION, disproportion
from hftrainer.motion.retarget import RetargetOptions
from hftrainer.motion.skeleton import JOINTS, forward_kinematics
from hftrainer.motion.skeleton_map import load_map
from tests.motion.layouts import LAYOUTS, Layout, about, write_pose

AT = {joint: index for index, joint in enumerate(JOINTS)}
# a body of SMPL's proportions
OFFSETS = np.array(
    [[0, 0, 0], [0.07, -0.09, 0], [-0.07, -0.09, 0], [0, 0.11, -0.03], [0.03, -0.38, 0], [-0.03, -0.38, 0],
     [0, 0.13, 0], [-0.01, -0.4, -0.04], [0.01, -0.4, -0.04], [0, 0.05, 0.02], [0.03, -0.06, 0.12],
     [-0.03, -0.06, 0.12], [0, 0.21, -0.04], [0.08, 0.12, -0.03], [-0.08, 0.12, -0.03], [0, 0.07, 0.05],
     [0.09, 0.03, 0], [-0.09, 0.03, 0], [0.26, 0, 0], [-0.26, 0, 0], [0.25, 0, 0], [-0.25, 0, 0]]
)  # fmt: skip


def stride(fps=30.0, speed=1.2, steps=1.8, seconds=6.0, knees=1.0):
    """A stiff walk along +Z: rotations, root, offsets, joints."""
    t = np.arange(round(seconds * fps)) / fps
    phase = np.pi * steps * t
    rotations = np.broadcast_to(np.eye(3), (len(t), 22, 3, 3)).copy()
    for frame, p in enumerate(phase):
        for side, shift in (("left", 0.0), ("right", np.pi)):
            rotations[frame, AT[f"{side}_hip"]] = about("X", -25 * np.sin(p + shift))
            rotations[frame, AT[f"{side}_knee"]] = about("X", knees * (20 + 20 * np.sin(p + shift)))
    root = np.stack([0 * t, 0.9 + 0 * t, speed * t], axis=-1)
    joints = forward_kinematics(rotations, root, OFFSETS)
    root[:, 1] -= joints[:, [AT["left_ankle"], AT["right_ankle"]], 1].min(axis=-1) - 0.08
    return rotations, root, OFFSETS, forward_kinematics(rotations, root, OFFSETS)


def look(fps=30.0, turns=None, **kind):
    return examine(*stride(fps, **kind), fps, turns)


def test_a_walk_passes():
    found = look()
    assert found.refused == found.doubts == []
    assert 1.3 < found.measures["height"] < 1.7
    assert abs(found.measures["walking_speed"] - 1.2) < 0.1


def test_a_walk_at_double_speed_is_doubted_with_the_remedy():
    rotations, root, offsets, joints = stride()
    found = examine(rotations[::2], root[::2], offsets, joints[::2], 30.0)
    assert "try --fps" in found.doubts[0]
    assert walking(joints[:20], offsets, 30.0) is None  # too short to tell


def test_a_fall_at_double_speed_is_doubted():
    t = np.arange(0, 0.6, 1 / 30)
    flight = np.maximum(0, 2.4 * t - 9.81 * t**2 / 2)
    height = np.concatenate([np.zeros(60), flight, np.zeros(60)])
    joints = forward_kinematics(
        np.broadcast_to(np.eye(3), (len(height), 22, 3, 3)), np.zeros((len(height), 3)), OFFSETS
    )
    joints = joints + height[:, None, None] * [0, 1, 0]
    assert airborne_gravity(joints, 30.0) == pytest.approx(9.81, rel=0.05)
    assert airborne_gravity(joints, 60.0) == pytest.approx(4 * 9.81, rel=0.05)
    turns = np.broadcast_to(np.eye(3), (len(height), 22, 3, 3))
    assert any("falls with" in doubt for doubt in examine(turns, joints[:, 0], OFFSETS, joints, 60.0).doubts)


@pytest.mark.parametrize(("factor", "remedy"), [(0.01, "--units m"), (10.0, "--units mm"), (1 / 2.54, "--units in")])
def test_bodies_of_another_unit_are_refused_with_the_unit(factor, remedy):
    rotations, root, offsets, joints = stride()
    found = examine(rotations, factor * root, factor * offsets, factor * joints, 30.0)
    assert remedy in found.refused[0] + "".join(found.doubts)


def broken(change):
    rotations, root, offsets, _ = (np.array(part) for part in stride())
    change(rotations, root, offsets)
    return examine(rotations, root, offsets, forward_kinematics(rotations, root, offsets), 30.0)


def knees_forwards(rotations, root, offsets):
    for side in ("left", "right"):
        rotations[:, AT[f"{side}_knee"]] = np.swapaxes(rotations[:, AT[f"{side}_knee"]], -1, -2)


def left_on_the_right(rotations, root, offsets):
    offsets[:, 0] *= -1


def toes_backwards(rotations, root, offsets):
    offsets[[AT["left_foot"], AT["right_foot"]], 2] *= -1


def folded_spine(rotations, root, offsets):
    for joint in ("spine1", "spine2", "spine3", "neck"):
        offsets[AT[joint]] = [0, 0, np.linalg.norm(offsets[AT[joint]])]


def no_bones(rotations, root, offsets):
    offsets[:] = 0


def not_finite(rotations, root, offsets):
    root[3] = np.inf


def flickering(rotations, root, offsets):
    root[::3, 0] += 2.0


@pytest.mark.parametrize(
    ("change", "said"),
    [(knees_forwards, "knee bends forwards"), (left_on_the_right, "lies to the right"), (not_finite, "not finite"),
     (toes_backwards, "toes of the rest pose point backwards"), (folded_spine, "off the vertical"),
     (no_bones, "have no length"), (flickering, "faster than 15 m/s")],
)  # fmt: skip
def test_nonsense_is_refused(change, said):
    assert any(said in text for text in broken(change).refused)


def one_glitch(rotations, root, offsets):
    root[30, 0] += 2.0


def lying(rotations, root, offsets):
    rotations[:, 0] = about("X", 90)


def frozen(rotations, root, offsets):
    rotations[:], root[:] = rotations[0], root[0]


@pytest.mark.parametrize(("change", "said"), [(one_glitch, "in 2 frames, first at 1.0 s"), (lying, "--up"),
                                              (frozen, "nothing moves")])  # fmt: skip
def test_oddities_are_doubted(change, said):
    found = broken(change)
    assert not found.refused
    assert any(said in text for text in found.doubts)


def test_rest_poses_that_are_none_are_refused_or_doubted():
    assert "--rest-frame" in look(turns={"left_hip": 90.0}).refused[0]
    assert "off a T-pose" in look(turns={"left_hip": 50.0}).doubts[0]
    assert look(turns={"left_shoulder": 85.0}).doubts == []  # arms that hang
    assert look(seconds=1 / 30).refused == ["has only one frame, which is not a motion"]


def settings(**options):
    return ImportSettings(load_map("mixamo"), RetargetOptions(**options))


def test_refusals_can_be_overridden_by_options(tmp_path):
    path = tmp_path / "small.bvh"
    write_pose(Layout(**{**vars(LAYOUTS[0]), "unit": 1.0}), path)  # the map says centimetres
    with pytest.raises(MotionFileError, match="try --units m"):
        convert_motion(path, settings())
    assert 1.2 < convert_motion(path, settings(metres_per_unit=1.0)).measures["height"] < 1.7
    taken = convert_motion(path, ImportSettings(load_map("mixamo"), accept=True))
    assert "try --units m" in taken.doubts[0]
    assert convert_motion(path, settings(metres_per_unit=1.0, recorded_fps=60.0)).measures["fps"] == 60.0
    assert len(convert_motion(path, settings(metres_per_unit=1.0, skip_first=4)).motion) == 8


def test_a_file_that_stands_along_z_is_put_upright(tmp_path):
    """The root turned as programs with Z up turn it: doubted as lying, right with --up."""
    from hftrainer.motion.io.bvh import read_bvh

    lying = {role: about("X", 88) @ turn for role, turn in write_pose(LAYOUTS[0], tmp_path / "y.bvh").turns.items()}
    write_pose(LAYOUTS[0], tmp_path / "z.bvh", lying, frames=20)
    assert any("--up" in doubt for doubt in convert_motion(tmp_path / "z.bvh", settings()).doubts)
    stood = convert_motion(tmp_path / "z.bvh", settings(up="+Z"))
    assert not any("--up" in doubt for doubt in stood.doubts)
    assert stood.measures["up"] > 0.9
    assert read_bvh(tmp_path / "z.bvh").frames == 20


def test_the_table_shows_every_file(tmp_path):
    write_pose(LAYOUTS[0], tmp_path / "good.bvh")
    (tmp_path / "bad.bvh").write_text("no motion")
    found = check_import(tmp_path, settings())
    lines = list(table(found))
    assert "REFUSED: not a BVH file" in lines[1]
    assert lines[2].startswith("good.bvh")
    assert "nothing moves" in lines[3]


@pytest.mark.parametrize("name", ["body_1cm.bvh", "body_zero.bvh", "two_hands.bvh"])
def test_reviewed_nonsense_is_refused(shared, name):
    with pytest.raises(MotionFileError):
        convert_motion(shared / "cases" / "import" / name, settings())


@pytest.mark.parametrize("name", ["ok_mixamo.bvh", "surplus_row.bvh", "channel_case.bvh", "frames_nospace.bvh",
                                  "comment_first.bvh", "UPPER.BVH"])  # fmt: skip
def test_reviewed_dialects_are_read(shared, name):
    made = convert_motion(shared / "cases" / "import" / name, settings())
    assert made.doubts == []
    assert len(made.motion) in (9, 10)


def test_a_frame_time_of_zero_is_mended_by_the_rate_that_is_given(tmp_path):
    path = tmp_path / "zero.bvh"
    write_pose(LAYOUTS[0], path, frames=20)
    path.write_text(re.sub("Frame Time: .*", "Frame Time: 0", path.read_text()))
    with pytest.raises(MotionFileError, match="no usable frame rate; give it with --fps"):
        convert_motion(path, settings())
    assert convert_motion(path, settings(recorded_fps=60.0)).measures["fps"] == 60.0


def test_import_doubts_the_proportions_that_verify_calls_wrong(shared):
    assert disproportion(np.linalg.norm(OFFSETS[1:], axis=-1)) < 0.05
    path = shared / "cases" / "import" / "tpose_first" / "cmu_07_01_head.bvh"
    real = convert_motion(path, ImportSettings(load_map("cmu")))
    assert not any("proportions" in doubt for doubt in real.doubts)
    assert real.measures["disproportion"] < DISPROPORTION
    rotations, root, offsets, _ = stride()
    odd = offsets * np.where(np.isin(np.arange(22), [12, 13, 14, 15]), 5.0, 1.0)[:, None]
    found = examine(rotations, root, odd, forward_kinematics(rotations, root, odd), 30.0)
    assert any("other proportions" in doubt for doubt in found.doubts)


def test_an_axis_with_a_minus_is_an_argument():
    from hftrainer.cli import _parse

    for words in (["--up", "-Y"], ["--up=-Y"]):
        assert _parse(["data", "check-import", "x", "--skeleton", "cmu", *words]).up == "-Y"


def test_a_root_in_another_unit_than_the_bones_is_doubted():
    rotations, root, offsets, _ = stride()
    far = root * [10.0, 1.0, 10.0]
    found = examine(rotations, far, offsets, forward_kinematics(rotations, far, offsets), 30.0)
    assert any("feet slide" in doubt for doubt in found.doubts)
    assert not any("feet slide" in doubt for doubt in look().doubts)
