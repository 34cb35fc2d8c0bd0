"""ASF and AMC as CMU publishes them: against forward kinematics by scipy, and what broken files say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hftrainer.motion.io.asf import read_amc
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.skeleton import JOINTS, global_rotations
from hftrainer.motion.skeleton_map import load_map

AT = {joint: index for index, joint in enumerate(JOINTS)}
# name: parent, direction, length, axis, channels; numbers of CMU's subject 7, rounded
BONES = {
    "lhipjoint": ("root", (0.69, -0.65, 0.32), 2.68, (0, 0, 0), ""),
    "lfemur": ("lhipjoint", (0.34, -0.94, 0), 6.92, (0, 0, 20), "rx ry rz"),
    "ltibia": ("lfemur", (0.34, -0.94, 0), 7.4, (0, 0, 20), "rx"),
    "lfoot": ("ltibia", (0.08, -0.22, 0.97), 2.0, (-90, 0, 20), "rx rz"),
    "ltoes": ("lfoot", (0, 0, 1), 1.0, (-90, 0, 20), "rx"),
    "rhipjoint": ("root", (-0.66, -0.68, 0.33), 2.57, (0, 0, 0), ""),
    "rfemur": ("rhipjoint", (-0.34, -0.94, 0), 7.15, (0, 0, -20), "rx ry rz"),
    "rtibia": ("rfemur", (-0.34, -0.94, 0), 7.13, (0, 0, -20), "rx"),
    "rfoot": ("rtibia", (-0.1, -0.27, 0.96), 2.11, (-90, 0, -20), "rx rz"),
    "rtoes": ("rfoot", (0, 0, 1), 1.06, (-90, 0, -20), "rx"),
    "lowerback": ("root", (0, 1, -0.02), 2.24, (0, 0, 0), "rx ry rz"),
    "upperback": ("lowerback", (0.02, 1, -0.08), 2.2, (0, 0, 0), "rx ry rz"),
    "thorax": ("upperback", (0, 1, 0), 2.25, (0, 0, 0), "rx ry rz"),
    "lowerneck": ("thorax", (-0.08, 0.98, 0.19), 1.46, (0, 0, 0), "rx ry rz"),
    "upperneck": ("lowerneck", (0.12, 0.97, -0.22), 1.5, (0, 0, 0), "rx ry rz"),
    "head": ("upperneck", (0.05, 0.99, -0.1), 1.52, (0, 0, 0), "rx ry rz"),
    "lclavicle": ("thorax", (0.97, 0.25, 0.02), 3.39, (0, 0, 0), "ry rz"),
    "lhumerus": ("lclavicle", (1, 0, 0), 4.97, (180, 30, 90), "rx ry rz"),
    "lradius": ("lhumerus", (1, 0, 0), 3.36, (180, 30, 90), "rx"),
    "lwrist": ("lradius", (1, 0, 0), 1.68, (180, 0, 90), "ry"),
    "lhand": ("lwrist", (1, 0, 0), 0.8, (180, 0, 90), "rx rz"),
    "rclavicle": ("thorax", (-0.96, 0.27, 0.02), 3.4, (0, 0, 0), "ry rz"),
    "rhumerus": ("rclavicle", (-1, 0, 0), 4.9, (180, -30, -90), "rx ry rz"),
    "rradius": ("rhumerus", (-1, 0, 0), 3.3, (180, -30, -90), "rx"),
    "rwrist": ("rradius", (-1, 0, 0), 1.65, (180, 0, -90), "ry"),
    "rhand": ("rwrist", (-1, 0, 0), 0.8, (180, 0, -90), "rx rz"),
}  # fmt: skip


def asf() -> str:
    bones = "".join(
        f"  begin\n    id {number}\n    name {name}\n    direction {d[0]} {d[1]} {d[2]}\n    length {length}\n"
        f"    axis {axis[0]} {axis[1]} {axis[2]}  XYZ\n"
        + (f"    dof {dof}\n    limits ({' (-180 180)' * len(dof.split())})\n" if dof else "")
        + "  end\n"
        for number, (name, (_, d, length, axis, dof)) in enumerate(BONES.items(), 1)
    )
    children: dict[str, list[str]] = {}
    for name, (parent, *_) in BONES.items():
        children.setdefault(parent, []).append(name)
    tree = "".join(f"    {parent} {' '.join(names)}\n" for parent, names in children.items())
    return (
        "# AST/ASF file generated using VICON BodyLanguage\n:version 1.10\n:name VICON\n:units\n  mass 1.0\n"
        "  length 0.45\n  angle deg\n:documentation\n   .ast/.asf automatically generated\n:root\n"
        "   order TX TY TZ RX RY RZ\n   axis XYZ\n   position 0 0 0\n   orientation 0 0 0\n:bonedata\n"
        f"{bones}:hierarchy\n  begin\n{tree}  end\n"
    )


def frames(count: int = 6) -> list[dict[str, list[float]]]:
    rng = np.random.default_rng(3)
    out = []
    for number in range(count):
        frame = {"root": [3.0, 16.5, 0.4 * number, 4.0, 30.0, -2.0]}
        for name, (*_, dof) in BONES.items():
            if dof:
                frame[name] = list(np.round(rng.uniform(-20, 20, len(dof.split())), 4))
        frame["lfemur"], frame["ltibia"] = [-40.0, 3.0, 10.0], [60.0]
        frame["lradius"], frame["rradius"] = [50.0], [40.0]
        out.append(frame)
    return out


def amc(rows) -> str:
    lines = ["#!OML:ASF F:\\VICON\\USERDATA", ":FULLY-SPECIFIED", ":DEGREES"]
    for number, row in enumerate(rows, 1):
        lines += [str(number), *(f"{name} {' '.join(map(str, values))}" for name, values in row.items())]
    return "\r\n".join(lines) + "\r\n"


def independent(row) -> dict[str, np.ndarray]:
    """Where bones start, in metres: scipy's rotations, written from the format's description."""
    turned = {"root": Rotation.from_euler("xyz", row["root"][3:], degrees=True)}
    ends = {"root": np.array(row["root"][:3])}
    starts = {"root": ends["root"]}
    for name, (parent, direction, length, axis, dof) in BONES.items():
        angles = dict.fromkeys(("rx", "ry", "rz"), 0.0) | dict(zip(dof.split(), row.get(name, []), strict=True))
        own = Rotation.from_euler("xyz", axis, degrees=True)
        turned[name] = (
            turned[parent] * own * Rotation.from_euler("xyz", list(angles.values()), degrees=True) * own.inv()
        )
        starts[name] = ends[parent]
        ends[name] = ends[parent] + turned[name].apply(np.array(direction) / np.linalg.norm(direction) * length)
    return {name: place * 0.0254 / 0.45 for name, place in starts.items()}


@pytest.fixture
def trial(tmp_path):
    (tmp_path / "07.asf").write_text(asf())
    (tmp_path / "07_01.amc").write_text(amc(frames()))
    return tmp_path / "07_01.amc"


def test_joints_are_where_independent_kinematics_has_them(trial):
    motion = read_amc(trial)
    _, places = motion.global_transforms()
    for number, row in enumerate(frames()):
        for name, place in independent(row).items():
            mine = places[number, motion.names.index(name)] * motion.metres_per_unit
            np.testing.assert_allclose(mine, place, atol=1e-9)
    assert motion.fps == 120.0
    assert "--fps" in motion.notes[0]


def test_the_body_is_a_person_whose_limbs_bend_the_right_way(trial):
    clip = retarget(read_amc(trial), load_map("cmu-asf"), RetargetOptions(fps=120.0))
    want = independent(frames()[0])
    joints, world = clip.joints[0], global_rotations(clip.rotations)[0]
    for joint, bone in (("left_knee", "ltibia"), ("left_ankle", "lfoot"), ("pelvis", "root")):
        assert np.linalg.norm(joints[AT[joint]] - want[bone]) < 0.005, joint  # root's neighbours are exact
    assert np.linalg.norm(joints[AT["head"]] - want["head"]) < 0.03
    forward = world[AT["pelvis"]][:, 2]
    left = joints[AT["left_hip"]] - joints[AT["right_hip"]]
    assert forward @ np.cross(left / np.linalg.norm(left), [0, 1, 0]) > 0.95
    for side in ("left", "right"):
        toes = joints[AT[f"{side}_foot"]] - joints[AT[f"{side}_ankle"]]
        assert toes @ forward > 0.05
        shin = world[AT[f"{side}_hip"]].T @ (joints[AT[f"{side}_ankle"]] - joints[AT[f"{side}_knee"]])
        assert shin[2] < 0.05, "a knee bends backwards"
    length = np.linalg.norm(clip.offsets, axis=-1)
    assert (length[1:] > 0.04).all()
    assert 1.2 < joints[:, 1].max() - joints[:, 1].min() < 1.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, s: (a.replace("lfemur -40.0", "lfemur nan"), s), "not finite"),
        (lambda a, s: (a.replace("lfemur", "lthigh"), s), "no bone 'lthigh'"),
        (lambda a, s: (a.replace("ltibia 60.0", "ltibia 60.0 3"), s), "2 values, its skeleton 1"),
        (lambda a, s: (a.replace(":DEGREES", ":RADIANS"), s), "radians"),
        (lambda a, s: (a[: a.index("ltibia", a.index("\r\n6\r\n"))], s), "07_01.amc: frame 6 is incomplete"),
        (lambda a, s: (a[: a.index("lfemur", a.index("\r\n6\r\n"))], s), "frame 6 is incomplete"),
        (
            lambda a, s: (a.replace("\r\nrtoes", "\r\n#rtoes", 1), s),
            "frame 1 is incomplete: no values for rtoes",
        ),
        (lambda a, s: (a.replace("\r\n3\r\n", "\r\n"), s), "frame 2 cannot be read .root has two lines"),
        (lambda a, s: (a.replace("\r\n3\r\n", "\r\n4\r\n"), s), "frame 4 follows frame 2"),
        (lambda a, s: (a.replace(":DEGREES\r\n", ""), s), "no :DEGREES line"),
        (lambda a, s: (":FULLY-SPECIFIED\n", s), "holds no frames"),
        (lambda a, s: (a, s.replace(":hierarchy", ":h")), "not a readable ASF skeleton"),
        (lambda a, s: (a, s.replace("length 2.68", "length long")), "not a readable ASF skeleton"),
        (lambda a, s: (a, s.replace("    root lhipjoint", "    root lhipjoint lfemur")), "two parents"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path, change, message):
    motion, skeleton = change(amc(frames()), asf())
    (tmp_path / "07.asf").write_text(skeleton)
    (tmp_path / "07_01.amc").write_text(motion)
    with pytest.raises(MotionFileError, match=message):
        read_amc(tmp_path / "07_01.amc")


def test_a_trial_without_its_skeleton_says_where_it_should_be(trial):
    (trial.parent / "07.asf").rename(trial.parent / "07.txt")
    with pytest.raises(MotionFileError, match=r"beside it, as 07\.asf"):
        read_amc(trial)
