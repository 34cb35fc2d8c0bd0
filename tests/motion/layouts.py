"""Bodies in the layouts of real motion files, written down from those files and not from the maps that read them.

A layout has the joints of the spine, of an arm and of a leg by name (``%`` is the side), the role of each by number,
the unit, how far the arms of the zero pose hang, and which way it faces. `write_pose` writes a marching body in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hftrainer.motion.rotation import axis_angle_to_matrix

Array = np.ndarray


@dataclass
class Layout:
    """`spine` from the pelvis to the head; `arm` from collar to thumb; `leg` from hip to toe, None where there is none.

    `extra` are joints of no length before a joint: {joint: name of the one before}.
    """

    map: str
    spine: str
    arm: str
    leg: str
    unit: float = 0.01
    prefix: str = ""
    sides: tuple[str, str] = ("Left", "Right")
    hang: float = 0.0  # degrees below the horizontal
    faces: float = 0.0  # degrees about +Y in the zero pose
    channels: str = "Zrotation Xrotation Yrotation"
    six: bool = False
    end: str = "End Site"


LAYOUTS = [
    Layout("mixamo", "Hips Spine Spine1 Spine2 Neck Head", "%Shoulder %Arm %ForeArm %Hand %HandThumb1",
           "%UpLeg %Leg %Foot %ToeBase", prefix="mixamorig7:"),
    Layout("mixamo", "hips spine spine1 spine2 neck head", "%shoulder %arm %forearm %hand %handthumb1",
           "%upleg %leg %foot", prefix="Character1:mixamorig:", sides=("left", "right"), hang=50),
    Layout("cmu-3dsmax", "Hips ToSpine Spine Spine1 Neck Head", "%Shoulder %Arm %ForeArm %Hand %HandThumb",
           "%UpLeg %LowLeg %Foot %ToeBase", unit=0.0564444),
    Layout("daz", "hip abdomen chest neck head", "%Collar %Shldr %ForeArm %Hand %Thumb1", "%Thigh %Shin %Foot",
           sides=("l", "r")),
    Layout("xsens", "Hips Chest Chest2 Chest3 Chest4 Neck Head", "%Collar %Shoulder %Elbow %Wrist %Thumb",
           "%Hip %Knee %Ankle %Toe", unit=1.0, channels="Yrotation Xrotation Zrotation"),
    Layout("100style", "Hips Chest Chest2 Chest3 Chest4 Neck Head", "%Collar %Shoulder %Elbow %Wrist %Thumb",
           "%Hip %Knee %Ankle %Toe", channels="Yrotation Xrotation Zrotation"),
    Layout("xsens-mvn", "Pelvis L5 L3 T12 T8 Neck Head", "%Shoulder %UpperArm %ForeArm %Hand %FirstMC",
           "%UpperLeg %LowerLeg %Foot %Toe"),
    Layout("rokoko", "Hips Spine1 Spine2 Spine3 Spine4 Neck Head", "%Shoulder %Arm %ForeArm %Hand %Finger1Proximal",
           "%Thigh %Shin %Foot %Toe"),
    Layout("perception-neuron", "Hips Spine Spine1 Spine2 Spine3 Neck Head",
           "%Shoulder %Arm %ForeArm %Hand %HandThumb1", "%UpLeg %Leg %Foot", six=True,
           channels="Yrotation Xrotation Zrotation"),
    Layout("vicon", "Hips Spine Spine1 Spine2 Spine3 Neck Neck1 Head", "%Shoulder %Arm %ForeArm %Hand %HandThumb1",
           "%UpLeg %Leg %Foot %ToeBase", unit=0.001, prefix="Solving:"),
    Layout("optitrack", "Hip Ab Chest Neck Head", "%Shoulder %UArm %FArm %Hand %Thumb1", "%Thigh %Shin %Foot %Toe",
           unit=1.0, prefix="Skeleton1_", sides=("L", "R")),
    Layout("unreal", "pelvis spine_01 spine_02 spine_03 neck_01 head",
           "clavicle_% upperarm_% lowerarm_% hand_% thumb_01_%", "thigh_% calf_% foot_% ball_%", sides=("l", "r"),
           hang=45),
    Layout("makehuman", "root spine05 spine04 spine03 spine02 spine01 neck01 neck02 head",
           "clavicle.% upperarm01.% lowerarm01.% wrist.% finger1-1.%", "upperleg01.% lowerleg01.% foot.% toe1-1.%",
           unit=0.1, sides=("L", "R"), hang=40),
    Layout("reallusion", "CC_Base_Hip CC_Base_Waist CC_Base_Spine01 CC_Base_Spine02 CC_Base_NeckTwist01 CC_Base_Head",
           "CC_Base_%_Clavicle CC_Base_%_Upperarm CC_Base_%_Forearm CC_Base_%_Hand CC_Base_%_Thumb1",
           "CC_Base_%_Thigh CC_Base_%_Calf CC_Base_%_Foot CC_Base_%_ToeBase", sides=("L", "R"), hang=30),
    Layout("vrm", "J_Bip_C_Hips J_Bip_C_Spine J_Bip_C_Chest J_Bip_C_UpperChest J_Bip_C_Neck J_Bip_C_Head",
           "J_Bip_%_Shoulder J_Bip_%_UpperArm J_Bip_%_LowerArm J_Bip_%_Hand J_Bip_%_Thumb1",
           "J_Bip_%_UpperLeg J_Bip_%_LowerLeg J_Bip_%_Foot J_Bip_%_ToeBase", unit=1.0, sides=("L", "R"), faces=180),
    Layout("vrm", "hips spine chest neck head", "%Shoulder %UpperArm %LowerArm %Hand %ThumbProximal",
           "%UpperLeg %LowerLeg %Foot %Toes", unit=1.0, sides=("left", "right")),
    Layout("smpl", "Pelvis Spine1 Spine2 Spine3 Neck Head", "%_Collar %_Shoulder %_Elbow %_Wrist %_palm",
           "%_Hip %_Knee %_Ankle %_Foot", unit=1.0, sides=("L", "R"), prefix="m_avg_"),
]  # fmt: skip


@dataclass
class Pose:
    """What was written: world rotation of each role from the T-pose, and world positions, metres; ours +Y up, +Z on."""

    turns: dict[str, Array]
    places: dict[str, Array]


def about(axis: str, degrees: float) -> Array:
    """Rotation (3, 3)."""
    return np.asarray(axis_angle_to_matrix(np.radians(degrees) * np.eye(3)["XYZ".index(axis)]))


def marching() -> dict[str, Array]:
    """World rotations of a body that marches towards 30 degrees left of +Z: a lifted knee, bent elbows, a twist."""
    body = about("Y", 30)
    chest = body @ about("Y", -10) @ about("X", 12)
    turns = {"pelvis": body, "chest": chest, "head": chest @ about("X", 15)}
    for side, hip, knee, elbow in (("left", -65, 80, 75), ("right", 10, 25, 50)):
        sign = 1 if side == "left" else -1
        turns[f"{side}_hip"] = body @ about("X", hip)  # the knee goes forward and up
        turns[f"{side}_knee"] = turns[f"{side}_hip"] @ about("X", knee)
        turns[f"{side}_ankle"] = turns[f"{side}_knee"] @ about("X", -20)
        turns[f"{side}_collar"] = chest
        turns[f"{side}_shoulder"] = chest @ about("Z", -sign * 60)  # down from the T-pose
        turns[f"{side}_elbow"] = turns[f"{side}_shoulder"] @ about("Y", -sign * elbow)  # the hand comes forward
        turns[f"{side}_wrist"] = turns[f"{side}_elbow"] @ about("X", 20)
    return turns


def write_pose(layout: Layout, path: Path, turns: dict[str, Array] | None = None, frames: int = 12) -> Pose:
    """Write the body of `layout` in the pose `turns` (default marching), held still; what was written."""
    turns = turns or marching()
    names, parents, roles, bones = _joints(layout)
    faces = about("Y", layout.faces)
    # zero pose: arms lowered by `hang` in the body's plane, everything turned to where the layout faces
    zero = [faces @ _lowered(role, layout.hang) for role in roles]
    world = [turns[_segment(role, turns)] @ _lowered(role, layout.hang).T @ faces.T for role in roles]
    places: list[Array] = []
    for joint, parent in enumerate(parents):
        t_pose = bones[joint]
        at = np.array([0.3, 0.95, -0.2]) if parent < 0 else places[parent] + world[parent] @ zero[parent] @ t_pose
        places.append(at)
    text, order = _hierarchy(layout, names, parents, roles, bones, zero)
    row = []
    for joint in order:
        local = world[joint] if parents[joint] < 0 else world[parents[joint]].T @ world[joint]
        if parents[joint] < 0:
            row += list(places[joint] / layout.unit)
        elif layout.six:
            row += list(zero[parents[joint]] @ bones[joint] / layout.unit)
        row += list(_euler(local, layout.channels))
    line = " ".join(f"{value:.6f}" for value in row)
    path.write_text(text + f"MOTION\nFrames: {frames}\nFrame Time: 0.033333\n" + f"{line}\n" * frames)
    by_role = {role: np.asarray(place) for role, place in zip(roles, places, strict=True)}
    return Pose(turns, by_role)


def _joints(layout: Layout) -> tuple[list[str], list[int], list[str], list[Array]]:
    """Names, parents, roles and bones in the T-pose (metres, +X left, +Y up, +Z forward), parents first."""
    names, parents, roles, bones = [], [], [], []
    spine = layout.spine.split()
    middle = len(spine) - 2  # joints of the spine with the neck
    for number, name in enumerate(spine):
        last = number == len(spine) - 1
        roles.append("pelvis" if number == 0 else "head" if last else f"spine {number}")
        names.append(name)
        parents.append(number - 1)
        bones.append(np.array([0, 0.95, 0]) if number == 0 else np.array([0, 0.1 if last else 0.5 / middle, 0.01]))
    chest = max(1, len(spine) - 3 - ("neck02" in spine or "Neck1" in spine))
    arm = [(0.06, 0.1, 0), (0.12, 0.0, -0.01), (0.27, 0, 0), (0.25, 0, 0), (0.04, -0.01, 0.06)]
    leg = [(0.09, -0.06, 0), (0.01, -0.4, 0.01), (0, -0.41, -0.02), (0, -0.06, 0.13)]
    for side, sign, word in zip(("left", "right"), (1, -1), layout.sides, strict=True):
        for start, chain, shape, parts in (
            (chest, layout.arm, arm, ("collar", "shoulder", "elbow", "wrist", "thumb")),
            (0, layout.leg, leg, ("hip", "knee", "ankle", "foot")),
        ):
            parent = start
            for name, bone, part in zip(chain.split(), shape, parts, strict=False):
                names.append(name.replace("%", word))
                parents.append(parent)
                roles.append(f"{side}_{part}")
                bones.append(np.array(bone) * [sign, 1, 1])
                parent = len(names) - 1
    return names, parents, roles, bones


def _lowered(role: str, hang: float) -> Array:
    side, _, part = role.partition("_")
    if part in ("shoulder", "elbow", "wrist", "thumb") and hang:
        return about("Z", -hang if side == "left" else hang)
    return np.eye(3)


def _segment(role: str, turns: dict[str, Array]) -> str:
    """Whose rotation a joint has: spine joints the chest's, a thumb the wrist's, toes the foot's."""
    side, _, part = role.partition("_")
    return role if role in turns else {"thumb": f"{side}_wrist", "foot": f"{side}_ankle"}.get(part, "chest")


def _euler(rotation: Array, channels: str) -> Array:
    from scipy.spatial.transform import Rotation

    order = "".join(word[0] for word in channels.split())
    return np.asarray(Rotation.from_matrix(rotation).as_euler(order, degrees=True))


def _hierarchy(
    layout: Layout, names: list[str], parents: list[int], roles: list[str], bones: list[Array], zero: list[Array]
) -> tuple[str, list[int]]:
    lines, order = ["HIERARCHY"], []

    def emit(joint: int, depth: int) -> None:
        pad = " " * depth
        order.append(joint)
        offset = (zero[parents[joint]] @ bones[joint] if depth else np.zeros(3)) / layout.unit
        six = depth == 0 or layout.six
        lines.append(f"{pad}{'JOINT' if depth else 'ROOT'} {layout.prefix}{names[joint]}")
        lines.append(pad + "{")
        lines.append(f"{pad} OFFSET {offset[0]:.6f} {offset[1]:.6f} {offset[2]:.6f}")
        places = "Xposition Yposition Zposition " if six else ""
        lines.append(f"{pad} CHANNELS {6 if six else 3} {places}{layout.channels}")
        children = [child for child, parent in enumerate(parents) if parent == joint]
        for child in children:
            emit(child, depth + 1)
        if not children:
            tip = np.array([0, -0.06, 0.13]) if roles[joint].endswith("ankle") else np.array([0, 0, 0.05])
            tip = zero[joint] @ tip / layout.unit
            lines.extend([f"{pad} {layout.end}", pad + " {", f"{pad}  OFFSET {tip[0]} {tip[1]} {tip[2]}", pad + " }"])
        lines.append(pad + "}")

    emit(0, 0)
    return "\n".join(lines) + "\n", order
