"""BVH in and out: any layout, the joint maps, the round trip, and an independent reader."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.prepare.convert_motion import ImportSettings, convert_motion
from hftrainer.data.synthetic.motions import OFFSETS, make_motion
from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.io.bvh_write import format_bvh
from hftrainer.motion.representation import motion272
from hftrainer.motion.rest_pose import LIMBS, rest_direction
from hftrainer.motion.retarget import retarget
from hftrainer.motion.rotation import angle_between, axis_angle_to_matrix, rotate, transpose
from hftrainer.motion.skeleton import JOINTS, PARENTS, bone_offsets, forward_kinematics, global_rotations
from hftrainer.motion.skeleton_map import SHIPPED, SkeletonMap, load_map, shipped_maps
from tests.clips import write_clip

WALK = make_motion("turn-left", 90, 3)


def test_export_opens_again_with_the_same_joints(tmp_path):
    write_clip(tmp_path / "walk.bvh", WALK)
    clip = retarget(read_bvh(tmp_path / "walk.bvh"), load_map("smpl22"))
    assert 1000 * np.abs(clip.joints - motion272.to_joints(WALK)).max() < 0.1  # mm
    again = convert_motion(tmp_path / "walk.bvh", ImportSettings(load_map("smpl22"))).motion
    np.testing.assert_allclose(again, WALK, atol=1e-4)


# --- other skeletons: a body written as if by another program, and put back ---------------------------------------


def first_choice(skeleton: SkeletonMap, joint: str) -> str | None:
    return skeleton.choices[joint][0]


def foreign_bvh(tmp_path, skeleton: SkeletonMap, motion, *, order="ZXY", scale=None, fps=30.0, extra=""):
    """`motion` written with the joint names, local axes and units of `skeleton`; no code of the importer is used."""
    rotations, root = motion272.to_rotations(motion)
    joints = motion272.to_joints(motion)
    offsets = bone_offsets(joints, rotations)
    offsets[0] = 0
    names, parents, kept = [], [], []
    for index, joint in enumerate(JOINTS):
        if first_choice(skeleton, joint) is None:
            continue
        above = PARENTS[index]
        while above >= 0 and first_choice(skeleton, JOINTS[above]) is None:
            offsets[index] = offsets[index] + offsets[above]
            above = PARENTS[above]
        kept.append(index)
        names.append(skeleton.prefixes[0] + first_choice(skeleton, joint))
        parents.append(kept.index(above) if above >= 0 else -1)
    rest = np.stack([rest_frame(skeleton, JOINTS[i]) for i in kept])  # local axes in the T-pose
    world = global_rotations(rotations)[:, kept] @ rest
    local = np.stack(
        [world[:, i] if p < 0 else transpose(world[:, p]) @ world[:, i] for i, p in enumerate(parents)], axis=1
    )
    seen = np.stack(
        [rotate(rest[p].T, offsets[i]) if p >= 0 else offsets[i] for i, p in zip(kept, parents, strict=True)]
    )
    text = format_bvh(local, root, seen, names=tuple(names), parents=tuple(parents), fps=fps,
                      scale=scale or 1 / skeleton.units[0])  # fmt: skip
    path = tmp_path / f"{skeleton.name}.bvh"
    path.write_text(ends_without_joints(text))
    return path


def ends_without_joints(text: str) -> str:
    """A last joint `Name@end` becomes what it is in real files: an End Site of its parent, without channels."""
    head, _, tail = text.partition("MOTION\n")
    lines, kept, columns = head.splitlines(), [], []
    while lines:
        line = lines.pop(0)
        if line.strip().startswith("JOINT") and line.endswith("@end"):
            kept += [line.partition("JOINT")[0] + "End Site", lines.pop(0), lines.pop(0)]
            columns += [False] * 3
            del lines[:5]  # its channels and its own End Site
            continue
        kept.append(line)
        if "CHANNELS" in line:
            columns += [True] * int(line.split()[1])
    rows = tail.splitlines()
    rows[2:] = [" ".join(v for v, keep in zip(row.split(), columns, strict=True) if keep) for row in rows[2:]]
    return "\n".join([*kept, "MOTION", *rows]) + "\n"


def rest_frame(skeleton: SkeletonMap, joint: str) -> np.ndarray:
    axes = {"X": 0, "Y": 1, "Z": 2}
    given = {}
    for key, value in skeleton.rest.get(joint, {"x": "+X", "y": "+Y"}).items():
        vector = np.zeros(3)
        if isinstance(value, str):
            vector[axes[value[1]]] = 1.0 if value[0] == "+" else -1.0
        else:
            vector[:] = np.array(value) / np.linalg.norm(value)
        given[key] = vector
    third = ({"x", "y", "z"} - set(given)).pop()
    left, right = {"x": "yz", "y": "zx", "z": "xy"}[third]
    given[third] = np.cross(given[left], given[right])
    return np.stack([given["x"], given["y"], given["z"]], axis=1)


def on_limbs(motion, target="smpl"):
    """The clip on a skeleton whose arms and legs lie as the rest pose `target` has them, spine2 unbent."""
    rotations, root = motion272.to_rotations(motion)
    for joint in ("spine2", "left_foot", "right_foot"):
        rotations[:, JOINTS.index(joint)] = np.eye(3)
    offsets = OFFSETS.copy()
    for joint, child, _ in LIMBS:
        index = JOINTS.index(child)
        offsets[index] = np.linalg.norm(offsets[index]) * rest_direction(joint, target)
    offsets[JOINTS.index("spine2")] = offsets[JOINTS.index("spine3")]  # evenly spaced, as null joints are put
    return motion272.from_joints_and_rotations(forward_kinematics(rotations, root, offsets), rotations)


ON_THE_WAY = {"cmu", "cmu-asf"}  # maps that put joints where the files have none


@pytest.mark.parametrize("name", sorted(set(shipped_maps()) - ON_THE_WAY))
def test_each_map_gives_back_joints_and_rotations(tmp_path, name):
    motion = on_limbs(WALK)
    skeleton = load_map(name)
    clip = retarget(read_bvh(foreign_bvh(tmp_path, skeleton, motion)), skeleton)
    assert 1000 * np.abs(clip.joints - motion272.to_joints(motion)).max() < 0.1  # mm
    rotations, _ = motion272.to_rotations(motion)
    joints = [i for i, joint in enumerate(JOINTS) if first_choice(skeleton, joint) is not None]
    apart = np.degrees(angle_between(global_rotations(clip.rotations), global_rotations(rotations)))
    assert apart[:, joints].max() < 0.01  # twist included


def test_left_stays_left_and_the_body_walks_where_it_faces(tmp_path):
    motion = on_limbs(make_motion("walk", 60, 0))
    skeleton = load_map("bandai-namco")
    encoded = convert_motion(foreign_bvh(tmp_path, skeleton, motion), ImportSettings(skeleton)).motion
    joints = motion272.to_joints(encoded)
    assert (joints[:, JOINTS.index("left_hip"), 0] > joints[:, JOINTS.index("right_hip"), 0]).all()
    assert joints[-1, 0, 2] > 1.0  # forward is +Z
    assert abs(joints[..., 1].min()) < 1e-6  # feet touch the floor


def test_positions_agree_with_rotations_for_a_bent_in_between_joint(tmp_path):
    """A file with a joint that the map leaves out: FK of the stored rotations still gives the stored positions."""
    skeleton = load_map("smpl22")
    skeleton.joints["spine2"] = None
    write_clip(tmp_path / "walk.bvh", WALK)
    encoded = convert_motion(tmp_path / "walk.bvh", ImportSettings(skeleton)).motion.astype(np.float64)
    rotations, root = motion272.to_rotations(encoded)
    joints = motion272.to_joints(encoded)
    rebuilt = forward_kinematics(rotations, root, bone_offsets(joints, rotations))
    assert 1000 * np.abs(rebuilt - joints).max() < 0.01  # mm


def test_frame_rates_are_brought_to_30(tmp_path):
    fast = make_motion("wave", 121, 0)
    path = foreign_bvh(tmp_path, load_map("smpl22"), fast, fps=60.0)
    clip = retarget(read_bvh(path), load_map("smpl22"))
    assert len(clip.root) == 61
    np.testing.assert_allclose(clip.joints, motion272.to_joints(fast)[::2], atol=1e-5)


def test_up_and_forward_axes_and_units_are_the_maps(tmp_path):
    """The same walk written Z up, facing -Y, in inches."""
    rotations, root = motion272.to_rotations(WALK)
    offsets = bone_offsets(motion272.to_joints(WALK), rotations)
    to_file = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # our x, y, z -> file's -x, z, -y
    to_file = np.stack([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    world = np.concatenate([(to_file @ rotations[:, 0])[:, None], rotations[:, 1:]], axis=1)
    text = format_bvh(world, rotate(to_file, root), offsets, names=JOINTS, parents=PARENTS, fps=30, scale=1 / 0.0254)
    (tmp_path / "z_up.bvh").write_text(text)
    skeleton = load_map("smpl22")
    skeleton.up, skeleton.forward, skeleton.metres_per_unit = "+Z", "-Y", 0.0254
    # the file's bones are given in our axes, so the rest pose is ours too
    skeleton.rest = {joint: {"x": "+X", "y": "+Y"} for joint in JOINTS}
    clip = retarget(read_bvh(tmp_path / "z_up.bvh"), skeleton)
    encoded = motion272.from_joints_and_rotations(clip.joints, clip.rotations)
    np.testing.assert_allclose(encoded, WALK, atol=1e-4)


def test_an_a_pose_is_straightened(tmp_path):
    """Arms that hang 45 degrees in the file's rest pose come out as if it had been a T-pose."""
    skeleton = load_map("mixamo")
    motion = on_limbs(WALK)
    rotations, root = motion272.to_rotations(motion)
    offsets = bone_offsets(motion272.to_joints(motion), rotations)
    world = global_rotations(rotations)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        hang = axis_angle_to_matrix(np.array([0, 0, sign * np.pi / 4]))
        for joint in ("shoulder", "elbow", "wrist"):
            index = JOINTS.index(f"{side}_{joint}")
            world[:, index] = world[:, index] @ hang.T
            if joint != "shoulder":
                offsets[index] = hang @ offsets[index]
    local = np.stack(
        [world[:, i] if p < 0 else transpose(world[:, p]) @ world[:, i] for i, p in enumerate(PARENTS)], axis=1
    )
    names = tuple("mixamorig:" + first_choice(skeleton, joint) for joint in JOINTS)
    (tmp_path / "a.bvh").write_text(format_bvh(local, root, offsets, names=names, parents=PARENTS, fps=30))
    clip = retarget(read_bvh(tmp_path / "a.bvh"), skeleton)
    assert np.degrees(angle_between(clip.rotations, rotations)).max() < 0.01
    assert 1000 * np.abs(clip.joints - motion272.to_joints(motion)).max() < 0.1


# --- real files ------------------------------------------------------------------------------------------------------


def test_real_motion_capture_keeps_its_joints(shared, tmp_path):
    """Clips of the Bandai-Namco data: FK within a millimetre of the file's own joints, left left, feet down."""
    import tarfile

    with tarfile.open(shared / "data" / "bandai-namco-motion.tar.xz", "r:xz") as archive:
        wanted = []
        for member in archive:
            if member.name.endswith(".bvh"):
                wanted.append(member)
            if len(wanted) == 3:
                break
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not before Python 3.11.4
        archive.extractall(tmp_path, members=wanted, **safely)
    skeleton = load_map("bandai-namco")
    for path in tmp_path.rglob("*.bvh"):
        bvh = read_bvh(path)
        clip = retarget(bvh, skeleton)
        _, places = bvh.global_transforms()
        mapped = [i for i, joint in enumerate(JOINTS) if skeleton.joints[joint]]
        original = np.stack([places[:, bvh.names.index(skeleton.joints[JOINTS[i]])] for i in mapped], axis=1) / 100
        assert 1000 * np.linalg.norm(clip.joints[:, mapped] - original, axis=-1).max() < 1.0
        encoded = motion272.from_joints_and_rotations(clip.joints, clip.rotations)
        joints = motion272.to_joints(encoded)
        assert joints[0, JOINTS.index("left_hip"), 0] > joints[0, JOINTS.index("right_hip"), 0]
        assert abs(joints[..., 1].min()) < 1e-9


# --- maps ------------------------------------------------------------------------------------------------------------


def test_every_shipped_map_loads():
    assert shipped_maps() == sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    assert {"bandai-namco", "cmu", "mixamo", "lafan1"} <= set(shipped_maps())
    for name in shipped_maps():
        load_map(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": {"pelvi": "Hips"}}, "unknown SMPL joints"),
        ({"metres_per_unit": 0}, "metres_per_unit is 0; expected a positive number"),
        ({"up": "+W"}, "up is '.W'; expected one of"),
        ({"rest": {"pelvis": {"x": "+Y"}}}, "rest of pelvis is .* expected two of x, y and z"),
    ],
)
def test_wrong_maps_are_refused(tmp_path, change, message):
    fields = {**vars(load_map("smpl22")), **change}
    with pytest.raises(ValueError, match=message):
        retarget(read_bvh(foreign_bvh(tmp_path, load_map("smpl22"), WALK)), SkeletonMap(**fields))


def test_unknown_map_names_are_refused():
    with pytest.raises(ValueError, match="included: 100style, bandai-namco"):
        load_map("bandai")
