"""Every shipped map on bodies in the layout of real files: which way knees, toes and palms point, not only where."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.joint_names import find_joints
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.skeleton import JOINTS, global_rotations
from hftrainer.motion.skeleton_map import SHIPPED, load_map, shipped_maps
from hftrainer.readers import read_yaml
from tests.motion.layouts import LAYOUTS, Layout, about, write_pose

AT = {joint: index for index, joint in enumerate(JOINTS)}
# maps that are tested on files of their own: in test_real_layouts.py, test_bvh.py, test_asf.py
ELSEWHERE = {"bandai-namco", "cmu", "cmu-asf", "lafan1", "smpl22"}


def degrees(a, b):
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def test_no_map_is_forgotten():
    assert {layout.map for layout in LAYOUTS} | ELSEWHERE == set(shipped_maps())


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.map}-{layout.prefix}{layout.spine.split()[0]}")
def test_knees_toes_and_palms_point_where_the_file_has_them(tmp_path, layout):
    pose = write_pose(layout, tmp_path / "march.bvh")
    clip = retarget(read_bvh(tmp_path / "march.bvh"), load_map(layout.map))
    joints, world = clip.joints[0], global_rotations(clip.rotations)[0]
    for side in ("left", "right"):
        for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
            turn = pose.turns[f"{side}_{joint}"]
            # knee caps, toes and thumbs point along +Z in a T-pose, the backs of the hands along +Y; SMPL's own limbs
            # lie up to 8 degrees off the axes on which this body's lie
            assert degrees(world[AT[f"{side}_{joint}"]] @ [0, 0, 1], turn @ [0, 0, 1]) < 8.5, joint
            assert degrees(world[AT[f"{side}_{joint}"]] @ [0, 1, 0], turn @ [0, 1, 0]) < 8.5, joint
            assert np.linalg.norm(joints[AT[f"{side}_{joint}"]] - pose.places[f"{side}_{joint}"]) < 1e-4, joint
        toes = joints[AT[f"{side}_foot"]] - joints[AT[f"{side}_ankle"]]
        assert degrees(toes, pose.turns[f"{side}_ankle"] @ [0, -0.06, 0.13]) < 15
        thumb = pose.places[f"{side}_thumb"] - pose.places[f"{side}_wrist"]
        assert degrees(world[AT[f"{side}_wrist"]] @ [0, 0, 1], thumb) < 45
        for joint in ("collar", "foot"):
            bone = clip.offsets[AT[f"{side}_{joint}"]]
            assert np.linalg.norm(bone) > 0.02, joint
    assert degrees(world[AT["pelvis"]] @ [0, 0, 1], pose.turns["pelvis"] @ [0, 0, 1]) < 0.01
    for joint in ("spine1", "spine2", "spine3", "neck", "head"):
        assert np.linalg.norm(clip.offsets[AT[joint]]) > 0.02, joint
    assert np.linalg.norm(joints[AT["head"]] - pose.places["head"]) < 0.02
    assert 1.2 < joints[:, 1].max() - joints[:, 1].min() < 1.8  # metres, whatever the file's unit


MIXAMO = LAYOUTS[0]


def test_a_zero_pose_may_face_any_axis_and_says_so(tmp_path):
    """The same body written with its zero pose turned: the same motion, and a note."""
    write_pose(MIXAMO, tmp_path / "straight.bvh")
    want = retarget(read_bvh(tmp_path / "straight.bvh"), load_map("mixamo"))
    for faces, name in ((90.0, "+X"), (180.0, "-Z"), (-90.0, "-X")):
        write_pose(Layout(**{**vars(MIXAMO), "faces": faces}), tmp_path / "turned.bvh")
        clip = retarget(read_bvh(tmp_path / "turned.bvh"), load_map("mixamo"))
        np.testing.assert_allclose(clip.joints, want.joints, atol=1e-6)
        np.testing.assert_allclose(clip.rotations, want.rotations, atol=1e-6)
        assert clip.faces == name
        assert any(f"faces {name}" in note for note in clip.notes)


def test_a_frame_can_be_the_rest_pose(tmp_path):
    """Zero pose folded up: a T-pose in a frame of the file stands in for it."""
    folded = Layout(**{**vars(MIXAMO), "hang": 80.0})
    t_pose = {role: about("Y", 40) for role in write_pose(folded, tmp_path / "x.bvh").turns}
    write_pose(folded, tmp_path / "t.bvh", t_pose)
    pose = write_pose(folded, tmp_path / "march.bvh")
    march, rest = read_bvh(tmp_path / "march.bvh"), read_bvh(tmp_path / "t.bvh")
    march.values[3] = rest.values[0]
    clip = retarget(march, load_map("mixamo"), RetargetOptions(rest_frame=3, skip_first=0))
    world = global_rotations(clip.rotations)[0]
    for joint in ("left_knee", "right_wrist", "pelvis"):
        assert degrees(world[AT[joint]] @ [0, 0, 1], pose.turns[joint] @ [0, 0, 1]) < 8.5
    with pytest.raises(MotionFileError, match="frame 99 cannot be the rest pose"):
        retarget(march, load_map("mixamo"), RetargetOptions(rest_frame=99))


def test_two_joints_of_a_mapped_name_are_refused(tmp_path):
    write_pose(MIXAMO, tmp_path / "x.bvh")
    text = (tmp_path / "x.bvh").read_text().replace("mixamorig7:RightHandThumb1", "mixamorig7:LeftHand")
    (tmp_path / "x.bvh").write_text(text)
    with pytest.raises(MotionFileError, match="2 joints are called 'mixamorig7:LeftHand', which is left_wrist"):
        retarget(read_bvh(tmp_path / "x.bvh"), load_map("mixamo"))


@pytest.mark.parametrize(("twin", "said"), [("lefthand", "'lefthand' or 'LeftHand'|'LeftHand' or 'lefthand'"),
                                            ("other:LeftHand", "'other:LeftHand'")])  # fmt: skip
def test_twins_of_a_mapped_name_are_refused(twin, said):
    names = [str(choices[0]) for choices in load_map("mixamo").choices.values()]
    assert len(find_joints(names, load_map("mixamo"), [], "x")) == 22
    with pytest.raises(MotionFileError, match=f"2 joints are called .*({said}).*left_wrist"):
        find_joints([*names, twin], load_map("mixamo"), [], "x")


def test_of_the_maps_that_fit_the_likeliest_is_named_first():
    names = [str(choices[0]) for choices in load_map("mixamo").choices.values()]
    with pytest.raises(MotionFileError, match=r"maps 'mixamo', .*'cmu-3dsmax'.* the likeliest first"):
        find_joints(names, load_map("daz"), [], "x")


@pytest.mark.parametrize(
    ("key", "value"),
    [("rest_frame", "x"), ("rest_frame", True), ("rest", {"left_hip": 3}), ("metres_per_unit", True), ("up", 5),
     ("prefixes", "a"), ("feet_follow_legs", 2)],
)  # fmt: skip
def test_a_field_of_a_wrong_type_is_named(tmp_path, key, value):
    fields = read_yaml(SHIPPED / "mixamo.yaml") | {key: value}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(ValueError, match=rf"map\.yaml: skeleton map 'map': {key} .*expected"):
        load_map(tmp_path / "map.yaml")


def test_a_wrong_map_names_one_that_fits(tmp_path):
    write_pose(next(layout for layout in LAYOUTS if layout.map == "daz"), tmp_path / "x.bvh")
    with pytest.raises(MotionFileError, match="map 'daz' has all of its joints there"):
        retarget(read_bvh(tmp_path / "x.bvh"), load_map("mixamo"))


def test_feet_without_toes_or_tips_get_toes(tmp_path):
    layout = Layout(**{**vars(MIXAMO), "leg": "%UpLeg %Leg %Foot"})
    pose = write_pose(layout, tmp_path / "x.bvh")
    bvh = read_bvh(tmp_path / "x.bvh")
    bvh.end_offsets.clear()
    clip = retarget(bvh, load_map("mixamo"))
    toes = clip.joints[0, AT["left_foot"]] - clip.joints[0, AT["left_ankle"]]
    assert 0.08 < np.linalg.norm(toes) < 0.2
    assert degrees(toes, pose.turns["left_ankle"] @ [0, -0.06, 0.13]) < 15
