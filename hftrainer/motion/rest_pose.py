"""Rest poses that arms and legs are turned onto, so that clips of all sources have rotations of one meaning.

``smpl`` has the bone directions of SMPL's neutral body at zero shape, as the released 272 files have: arms a little
back, legs spread by about 5 degrees. ``axes`` has arms along X and legs along -Y. ``off`` leaves the file's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.rotation import axis_angle_to_matrix, between_vectors

Float = NDArray[np.float64]

# (joint, its child, joints that move along): an A-pose's hands hang with its arms; feet stand flat whatever legs do
LIMBS = tuple(
    limb
    for side in ("left", "right")
    for limb in (
        (f"{side}_shoulder", f"{side}_elbow", (f"{side}_elbow", f"{side}_wrist")),
        (f"{side}_elbow", f"{side}_wrist", (f"{side}_wrist",)),
        (f"{side}_hip", f"{side}_knee", ()),
        (f"{side}_knee", f"{side}_ankle", ()),
    )
)

# Metres, from the joint to its child. Source: OFFSETs of the BVH files of 272-dim-Motion-Representation.
_SMPL: dict[str, tuple[float, float, float]] = {
    "left_hip": (0.034277, -0.375199, -0.004496), "right_hip": (-0.038290, -0.382569, -0.008850),
    "left_knee": (-0.013596, -0.397960, -0.043693), "right_knee": (0.015774, -0.398415, -0.042312),
    "left_shoulder": (0.259612, -0.012772, -0.027456), "right_shoulder": (-0.253742, -0.013329, -0.021401),
    "left_elbow": (0.249234, 0.008986, -0.001171), "right_elbow": (-0.255298, 0.007772, -0.005559),
}  # fmt: skip
_AXES: dict[str, tuple[float, float, float]] = {
    f"{side}_{joint}": bone
    for side, x in (("left", 1.0), ("right", -1.0))
    for joint, bone in (("shoulder", (x, 0, 0)), ("elbow", (x, 0, 0)), ("hip", (0, -1, 0)), ("knee", (0, -1, 0)))
}
_BONES = {"smpl": _SMPL, "axes": _AXES}
TARGETS = (*_BONES, "off")
_IN_PLANE = 0.3  # a bone with less of its length across +Z points forward; its angle about +Z means nothing


def rest_direction(joint: str, target: str) -> Float:
    """Unit vector (3,) from `joint` to its child in the rest pose `target`."""
    bone = np.asarray(_BONES[target][joint], dtype=np.float64)
    return np.asarray(bone / np.linalg.norm(bone))


def turn_onto(bone: Float, aim: Float) -> Float:
    """Rotation (3, 3) that brings `bone` into the direction `aim`, both (3,).

    First about +Z, because an A-pose is a T-pose whose arms were lowered, and whose legs were spread, in the body's
    own plane; then by the smallest rotation.
    """
    first = np.eye(3)
    if min(np.hypot(*bone[:2]) / np.linalg.norm(bone), np.hypot(*aim[:2])) > _IN_PLANE:
        angle = np.arctan2(aim[1], aim[0]) - np.arctan2(bone[1], bone[0])
        first = axis_angle_to_matrix(np.array([0.0, 0.0, angle]))
    return np.asarray(between_vectors(first @ bone, aim) @ first)


FOOT = {"left_foot": "left_ankle", "right_foot": "right_ankle"}
_SMPL_FOOT = {"left_foot": (0.026358, -0.055791, 0.119288), "right_foot": (-0.025372, -0.048144, 0.123348)}
_SMPL_SHIN = 0.4  # metres, about, of the body that has those feet


def made_up_foot(foot: str, shin: Float) -> Float:
    """A bone (3,) from the ankle to the ball of the foot in the rest pose, SMPL's, in proportion to a shin (3,)."""
    return np.asarray(_SMPL_FOOT[foot]) * float(np.linalg.norm(shin)) / _SMPL_SHIN
