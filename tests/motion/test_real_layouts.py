"""Maps whose zero pose is folded up or whose joints lie on one another, on bodies with the numbers of real files."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.rotation import euler_to_matrix
from hftrainer.motion.skeleton import JOINTS, global_rotations
from hftrainer.motion.skeleton_map import load_map

AT = {joint: index for index, joint in enumerate(JOINTS)}

# Hierarchies as in the published files, lengths rounded. LAFAN1: bones along local +X.
LAFAN1 = {
    "Hips": (None, (0, 0, 0)), "LeftUpLeg": ("Hips", (0.1, 1.9, 10.5)), "LeftLeg": ("LeftUpLeg", (43.5, 0, 0)),
    "LeftFoot": ("LeftLeg", (42.4, 0, 0)), "LeftToe": ("LeftFoot", (17, 0, 0)),
    "RightUpLeg": ("Hips", (0.1, 1.9, -10.5)), "RightLeg": ("RightUpLeg", (43.5, 0, 0)),
    "RightFoot": ("RightLeg", (42.4, 0, 0)), "RightToe": ("RightFoot", (17, 0, 0)),
    "Spine": ("Hips", (6.9, -2.6, 0)), "Spine1": ("Spine", (12.6, 0, 0)), "Spine2": ("Spine1", (12.6, 0, 0)),
    "Neck": ("Spine2", (25.8, 0, 0)), "Head": ("Neck", (11.8, 0, 0)),
    "LeftShoulder": ("Spine2", (19.8, -1.5, 6.0)), "LeftArm": ("LeftShoulder", (11.2, 0, 0)),
    "LeftForeArm": ("LeftArm", (33, 0, 0)), "LeftHand": ("LeftForeArm", (25.2, 0, 0)),
    "RightShoulder": ("Spine2", (19.8, -1.5, -6.0)), "RightArm": ("RightShoulder", (11.2, 0, 0)),
    "RightForeArm": ("RightArm", (33, 0, 0)), "RightHand": ("RightForeArm", (25.2, 0, 0)),
}  # fmt: skip
# Angles (Z, Y, X) of one standing frame, rounded, as the files have them: thighs at half a turn, feet bent up.
LAFAN1_STANDING = {
    "Hips": (90, 0, 92), "LeftUpLeg": (176, -4, 173), "LeftLeg": (-16, 1, 2), "LeftFoot": (76, -2, -2),
    "LeftToe": (21, 0, 0), "RightUpLeg": (178, 2, -177), "RightLeg": (-15, 4, 6), "RightFoot": (78, -4, 3),
    "RightToe": (21, 0, 0), "Spine": (5, 0, 0), "Spine1": (1, 0, 1), "Spine2": (1, 0, 1), "Neck": (1, 6, -2),
    "Head": (15, -14, 0), "LeftShoulder": (-65, -84, -118), "LeftArm": (-11, 3, -15), "LeftForeArm": (-8, -10, 0),
    "LeftHand": (13, 2, 18), "RightShoulder": (-83, 80, 100), "RightArm": (-4, -8, 16), "RightForeArm": (-15, 15, -1),
    "RightHand": (12, 10, -8),
}  # fmt: skip

# cgspeed's MotionBuilder-friendly CMU: legs spread by 20 degrees, joints that lie on their parents, units of 5.6 cm.
CMU = {
    "Hips": (None, (0, 0, 0)), "LHipJoint": ("Hips", (0, 0, 0)), "LeftUpLeg": ("LHipJoint", (1.856, -1.739, 0.85)),
    "LeftLeg": ("LeftUpLeg", (2.368, -6.507, 0)), "LeftFoot": ("LeftLeg", (2.533, -6.958, 0)),
    "LeftToeBase": ("LeftFoot", (0.159, -0.438, 1.945)),
    "RHipJoint": ("Hips", (0, 0, 0)), "RightUpLeg": ("RHipJoint", (-1.683, -1.739, 0.85)),
    "RightLeg": ("RightUpLeg", (-2.447, -6.723, 0)), "RightFoot": ("RightLeg", (-2.438, -6.7, 0)),
    "RightToeBase": ("RightFoot", (-0.209, -0.573, 2.022)),
    "LowerBack": ("Hips", (0, 0, 0)), "Spine": ("LowerBack", (-0.016, 2.24, -0.037)),
    "Spine1": ("Spine", (0.055, 2.192, -0.191)), "Neck": ("Spine1", (0, 0, 0)),
    "Neck1": ("Neck", (-0.124, 1.432, 0.276)), "Head": ("Neck1", (0.179, 1.462, -0.326)),
    "LeftShoulder": ("Spine1", (0, 0, 0)), "LeftArm": ("LeftShoulder", (3.277, 0.856, 0.054)),
    "LeftForeArm": ("LeftArm", (4.968, 0, 0)), "LeftHand": ("LeftForeArm", (3.358, 0, 0)),
    "RightShoulder": ("Spine1", (0, 0, 0)), "RightArm": ("RightShoulder", (-3.1, 1.0, 0.05)),
    "RightForeArm": ("RightArm", (-4.9, 0, 0)), "RightHand": ("RightForeArm", (-3.3, 0, 0)),
}  # fmt: skip
CMU_WALKING = {
    "Hips": (2, 10, 3), "LHipJoint": (0, 0, 0), "LeftUpLeg": (-20, 2, -25), "LeftLeg": (-3, 0, 40),
    "LeftFoot": (5, -5, -10), "RightUpLeg": (20, 0, 15), "RightLeg": (4, 0, 20), "RightFoot": (-5, 8, -25),
    "LowerBack": (2, 3, 12), "Spine": (1, -3, 4), "Spine1": (-1, -4, 3), "Neck": (2, -5, -20), "Neck1": (0, 4, 18),
    "Head": (1, 2, 8), "LeftShoulder": (-6, 5, 0), "LeftArm": (-70, 10, 5), "LeftForeArm": (0, -30, 10),
    "LeftHand": (3, 0, -10), "RightShoulder": (5, -4, 0), "RightArm": (72, -8, 6), "RightForeArm": (0, 35, 8),
}  # fmt: skip
# the same numbers under the names of the 3dsMax-friendly layout, which has one joint of the neck
CMU_3DSMAX = {
    {"LowerBack": "ToSpine"}.get(name, name): ({"LowerBack": "ToSpine", "Neck1": "Neck"}.get(parent, parent), offset)
    for name, (parent, offset) in CMU.items()
    if name != "Neck1"
}
BODIES = {
    "cmu-3dsmax": (CMU_3DSMAX, CMU_WALKING, 0.0564444),
    "lafan1": (LAFAN1, LAFAN1_STANDING, 0.01),
    "cmu": (CMU, CMU_WALKING, 0.0564444),
}


def write(path, body, angles, unit):
    """The body in one pose, twice; where its joints are in metres."""
    children = {name: [c for c, (p, _) in body.items() if p == name] for name in body}
    lines, row, places, worlds = ["HIERARCHY"], [], {}, {}

    def emit(name, depth):
        parent, offset = body[name]
        turn = euler_to_matrix(np.radians(np.array(angles.get(name, (0, 0, 0)), dtype=float)), "ZYX")
        worlds[name] = turn if parent is None else worlds[parent] @ turn
        places[name] = (
            np.array([0, 95 * 0.01 / unit, 0]) if parent is None else places[parent] + worlds[parent] @ offset
        )
        row.extend([*(places[name] if parent is None else []), *angles.get(name, (0, 0, 0))])
        lines.extend([f"{'JOINT' if depth else 'ROOT'} {name}", "{", f"OFFSET {offset[0]} {offset[1]} {offset[2]}"])
        moves = "3" if depth else "6 Xposition Yposition Zposition"
        lines.append(f"CHANNELS {moves} Zrotation Yrotation Xrotation")
        for child in children[name]:
            emit(child, depth + 1)
        if not children[name]:
            lines.extend(["End Site", "{", "OFFSET 0 0 0", "}"])
        lines.append("}")

    emit("Hips", 0)
    values = " ".join(map(str, row))
    path.write_text("\n".join([*lines, "MOTION", "Frames: 12", "Frame Time: 0.0333333", *[values] * 12]))
    return {name: place * unit for name, place in places.items()}


@pytest.fixture(params=BODIES)
def imported(request, tmp_path):
    body, angles, unit = BODIES[request.param]
    places = write(tmp_path / "x.bvh", body, angles, unit)
    skeleton = load_map(request.param)
    return request.param, retarget(read_bvh(tmp_path / "x.bvh"), skeleton), places


def test_the_body_is_upright_and_its_limbs_bend_the_right_way(imported):
    _, clip, _ = imported
    joints, world = clip.joints[0], global_rotations(clip.rotations)[0]
    left = joints[AT["left_hip"]] - joints[AT["right_hip"]]
    forward = np.cross(left / np.linalg.norm(left), [0, 1, 0])
    assert world[AT["pelvis"]][:, 2] @ forward > 0.97
    for side, sign in (("left", 1), ("right", -1)):
        for joint in ("hip", "knee"):  # knee caps
            assert world[AT[f"{side}_{joint}"]][:, 2] @ forward > 0.8, (side, joint)
        toes = joints[AT[f"{side}_foot"]] - joints[AT[f"{side}_ankle"]]
        assert toes @ forward > 0.07
        assert world[AT[f"{side}_ankle"]][:, 2] @ forward > 0.7
        shin = world[AT[f"{side}_hip"]].T @ (joints[AT[f"{side}_ankle"]] - joints[AT[f"{side}_knee"]])
        assert shin[2] < 0.02, "a knee bends backwards"
        hand = world[AT[f"{side}_shoulder"]].T @ (joints[AT[f"{side}_wrist"]] - joints[AT[f"{side}_elbow"]])
        assert hand[2] > -0.06, "an elbow bends forwards"
        assert sign * (joints[AT[f"{side}_shoulder"]] - joints[AT["spine3"]]) @ left > 0
    assert world[AT["head"]][:, 1] @ [0, 1, 0] > 0.8


def test_the_body_has_the_size_of_one(imported):
    name, clip, places = imported
    length = np.linalg.norm(clip.offsets, axis=-1)
    assert 1.2 < clip.joints[0, :, 1].max() - clip.joints[0, :, 1].min() < 1.75
    assert 0.12 < length[AT["left_hip"]] + length[AT["right_hip"]] < 0.32
    for joint in JOINTS[1:]:
        assert length[AT[joint]] > 0.03, joint
    if name == "cmu":
        head = np.linalg.norm(clip.joints[0, AT["head"]] - places["Head"])
        arm = np.linalg.norm(clip.joints[0, AT["left_shoulder"]] - places["LeftArm"])
        assert max(head, arm) < 1e-6  # one pose: mean bones are the pose's own


def test_real_files_of_cmu_have_bones_everywhere(shared):
    bvh = read_bvh(shared / "cases" / "import" / "tpose_first" / "cmu_07_01_head.bvh")
    clip = retarget(bvh, load_map("cmu"))
    _, places = bvh.global_transforms()
    length = np.linalg.norm(clip.offsets, axis=-1)
    assert (length[1:] > 0.05).all()
    for joint, name, limit in (
        ("head", "Head", 0.004),
        ("left_shoulder", "LeftArm", 0.01),
        ("left_ankle", "LeftFoot", 1e-3),
    ):
        theirs = places[clip.skipped :: 4, bvh.names.index(name)] * 0.0564444
        off = np.linalg.norm(clip.joints[:, AT[joint]] - theirs[: len(clip.joints)], axis=-1)
        assert off.mean() < limit, (joint, off.mean())


def test_the_added_t_pose_of_cmu_comes_out_as_smpls_rest_pose(shared):
    """Frame 0 of these files is a T-pose; its legs are turned back by 21 degrees, feet with them."""
    bvh = read_bvh(shared / "cases" / "import" / "tpose_first" / "cmu_07_01_head.bvh")
    clip = retarget(bvh, load_map("cmu"), RetargetOptions(skip_first=0))
    world = global_rotations(clip.rotations)[0]
    for joint in (
        "pelvis",
        "spine3",
        "left_ankle",
        "right_ankle",
        "left_foot",
        "right_foot",
        "right_hip",
    ):
        for axis in np.eye(3):  # SMPL's limbs are up to 8 degrees off a T-pose's axes
            assert np.degrees(np.arccos(np.clip(world[AT[joint]] @ axis @ axis, -1, 1))) < 9, joint
    assert np.degrees(np.arccos(world[AT["left_ankle"]][1, 1])) < 3  # the foot stands flat


def test_the_reviewed_lafan1_body_stands_with_its_knees_forward(shared):
    clip = retarget(read_bvh(shared / "cases" / "import" / "lafan1_standing.bvh"), load_map("lafan1"))
    world = global_rotations(clip.rotations)
    for joint in ("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"):
        assert (world[:, AT[joint], 2, 2] > 0.9).all(), joint
