"""Skeletons of other programs: their bone names, proportions and rest poses, and how a motion gets onto them.

Every rig has the 22 joints of ours. `smpl`, `mixamo` and `unreal` have a body of their own; `unity` and `vrm` are
humanoid conventions, names and a strict T-pose without proportions: bones keep their lengths. Measures are rounded from
public characters; programs that retarget look at the rest pose and do not mind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import Body, BodyMotion, bend_knees, same_bones, smpl_body
from hftrainer.motion.lock import lock_feet
from hftrainer.motion.rotation import between_vectors
from hftrainer.motion.skeleton import JOINTS, N_JOINTS, PARENTS, global_rotations, local_rotations

Float = NDArray[np.float64]

# The child whose direction a bone's rest orientation is compared by; joints without one follow their parent.
_MAIN_CHILD = {0: 3, 1: 4, 2: 5, 3: 6, 4: 7, 5: 8, 6: 9, 7: 10, 8: 11, 9: 12, 12: 15, 13: 16, 14: 17, 16: 18, 17: 19,
               18: 20, 19: 21}  # fmt: skip


@dataclass(frozen=True)
class Rig:
    """`names` of the 22 joints in our order; `root` of the bone on the floor; its `body` for a motion's own (None:
    the motion's)."""

    name: str
    names: tuple[str, ...]
    root: str = "root"
    body: Callable[[Body], Body] | None = None


def rig_names() -> list[str]:
    """What `find_rig` knows."""
    return list(_RIGS)


def find_rig(name: str) -> Rig:
    """A rig by its name; ``ValueError`` with the near ones."""
    if name not in _RIGS:
        near = get_close_matches(name, _RIGS, n=1)
        hint = f"; did you mean {near[0]!r}" if near else ""
        raise ValueError(f"there is no skeleton {name!r}{hint}; choose one of {', '.join(_RIGS)}")
    return _RIGS[name]


def onto_rig(motion: BodyMotion, rig: Rig, *, lock: bool = True) -> BodyMotion:
    """`motion` on the rig's body, feet locked again; unchanged for a rig without a body of its own."""
    return motion if rig.body is None else retarget(motion, rig.body(motion.body), lock=lock)


def retarget(motion: BodyMotion, body: Body, *, lock: bool = True) -> BodyMotion:
    """`motion` on another body: bones keep their directions, the path is scaled by the legs.

    Rest poses may differ (a T-pose and an A-pose): a joint's rotation is corrected by the smallest turn between its
    bone's rest directions, which adds no twist.
    """
    if same_bones(body, motion.body):
        return motion
    world = np.asarray(global_rotations(motion.rotations))
    turns = rest_turns(motion.body, body)
    root = motion.root * (body.leg / motion.body.leg)
    root[:, 1] = motion.root[:, 1] * (body.rest_joints[0, 1] / motion.body.rest_joints[0, 1])
    moved = BodyMotion(np.asarray(local_rotations(world @ turns)), root, body, motion.fps)
    return lock_feet(moved) if lock else moved


def rest_turns(source: Body, target: Body) -> Float:
    """Rotations (22, 3, 3) from the target's rest orientation of each joint to the source's."""
    turns = np.tile(np.eye(3), (N_JOINTS, 1, 1))
    for joint in range(N_JOINTS):
        child = _MAIN_CHILD.get(joint)
        if joint in (0, 9):  # several bones: pelvis and chest stay as they are
            continue
        if child is None:
            turns[joint] = turns[PARENTS[joint]]
        else:
            turns[joint] = np.asarray(between_vectors(target.offsets[child], source.offsets[child]))
    return turns


def straight_arms(body: Body) -> Body:
    """`body` in a strict T-pose, which humanoid conventions ask for: arms along the X axis, legs as they are."""
    offsets = body.offsets.copy()
    lengths = body.lengths
    for joint in (18, 19, 20, 21):
        offsets[joint] = [lengths[joint] * (1 if joint % 2 == 0 else -1), 0.0, 0.0]
    return Body(body.name, offsets)


def _sided(middle: str, left: str, sides: tuple[str, str]) -> tuple[str, ...]:
    """Names in our order from those of the spine (6) and of a side (8); "@" stands for the side."""
    spine = dict(zip(("pelvis", "spine1", "spine2", "spine3", "neck", "head"), middle.split(), strict=True))
    limbs = dict(
        zip(("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist"), left.split(), strict=True)
    )

    def name(joint: str) -> str:
        side, _, part = joint.partition("_")
        return spine[joint] if joint in spine else limbs[part].replace("@", sides[side == "right"])

    return tuple(name(joint) for joint in JOINTS)


def _body(name: str, spine: Float, side: Float) -> Body:
    """A body from offsets in metres of spine1, spine2, spine3, neck, head and of the left side's joints."""
    offsets = np.zeros((N_JOINTS, 3))
    offsets[[3, 6, 9, 12, 15]] = spine
    offsets[[1, 4, 7, 10, 13, 16, 18, 20]] = side
    offsets[[2, 5, 8, 11, 14, 17, 19, 21]] = side * [-1.0, 1.0, 1.0]
    return Body(name, bend_knees(offsets))


def _mixamo_body(own: Body) -> Body:
    spine = [[0, 0.099, -0.012], [0, 0.117, 0], [0, 0.135, 0], [0, 0.150, 0.009], [0, 0.103, 0.031]]
    side = [[0.091, -0.067, 0], [0, -0.406, 0], [0, -0.421, -0.01], [0, -0.105, 0.137],
            [0.061, 0.091, 0.008], [0.129, 0, 0], [0.274, 0, 0], [0.276, 0, 0]]  # fmt: skip
    return _body("mixamo", np.array(spine), np.array(side))


def _unreal_body(own: Body) -> Body:
    """UE4's mannequin, whose rest is an A-pose: arms 45 degrees down."""
    spine = [[0, 0.108, 0.01], [0, 0.189, -0.02], [0, 0.134, -0.01], [0, 0.166, -0.02], [0, 0.093, 0.02]]
    down = np.sqrt(0.5)
    side = [[0.09, -0.014, 0], [0.005, -0.426, 0], [0.005, -0.402, -0.02], [0, -0.105, 0.165],
            [0.038, 0.119, 0], [0.158, 0, 0], [0.303 * down, -0.303 * down, 0],
            [0.27 * down, -0.27 * down, 0]]  # fmt: skip
    return _body("unreal", np.array(spine), np.array(side))


_RIGS = {
    rig.name: rig
    for rig in (
        Rig("model", JOINTS),
        Rig("smpl", JOINTS, body=lambda own: smpl_body()),
        Rig(
            "mixamo",
            _sided(
                "mixamorig:Hips mixamorig:Spine mixamorig:Spine1 mixamorig:Spine2 mixamorig:Neck mixamorig:Head",
                "mixamorig:@UpLeg mixamorig:@Leg mixamorig:@Foot mixamorig:@ToeBase mixamorig:@Shoulder "
                "mixamorig:@Arm mixamorig:@ForeArm mixamorig:@Hand",
                ("Left", "Right"),
            ),
            body=_mixamo_body,
        ),
        Rig(
            "unreal",
            _sided(
                "pelvis spine_01 spine_02 spine_03 neck_01 head",
                "thigh_@ calf_@ foot_@ ball_@ clavicle_@ upperarm_@ lowerarm_@ hand_@",
                ("l", "r"),
            ),
            body=_unreal_body,
        ),
        Rig(
            "unity",
            _sided(
                "Hips Spine Chest UpperChest Neck Head",
                "@UpperLeg @LowerLeg @Foot @Toes @Shoulder @UpperArm @LowerArm @Hand",
                ("Left", "Right"),
            ),
            root="Root",
            body=straight_arms,
        ),
        Rig(
            "vrm",
            _sided(
                "hips spine chest upperChest neck head",
                "@UpperLeg @LowerLeg @Foot @Toes @Shoulder @UpperArm @LowerArm @Hand",
                ("left", "right"),
            ),
            body=straight_arms,
        ),
    )
}
