"""A motion as files have it: named bones in a tree, a rest pose, and what moves in every frame.

A bone on the floor, the root, carries the pelvis. Without root motion it is still and the pelvis moves, or, for BVH, it
moves with the pelvis, whose own offset is its height at rest: so the rest pose stands on the floor and no reader has to
guess whether a position replaces an offset or is added to it. With root motion the root carries the path on the floor
and the heading, as game engines expect, and the pelvis moves against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import BodyMotion
from hftrainer.motion.edit import ground_path
from hftrainer.motion.rigs import Rig, find_rig
from hftrainer.motion.rotation import rotate, transpose, yaw
from hftrainer.motion.skeleton import PARENTS

Float = NDArray[np.float64]

# Where bones without a child end, metres for a leg of 0.81 m: top of the head, finger tips, tips of the toes.
_TIPS = {15: (0.0, 0.19, 0.0), 20: (0.17, 0.0, 0.0), 21: (-0.17, 0.0, 0.0), 10: (0.0, 0.0, 0.07), 11: (0.0, 0.0, 0.07)}


@dataclass(frozen=True)
class Animation:
    """`offsets` (J, 3) from parent to bone at rest, where all rotations are the identity; joint 0 is the root.

    `rotations` (T, J, 3, 3) local; `moves` the translations (T, 3) of bones that move against their parents, which
    replace their offsets; `tips` where bones without a child end. Metres, Y up.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float
    rotations: Float
    moves: dict[int, Float]
    tips: dict[int, Float]
    fps: float

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def rest(self) -> Float:
        """Bones (J, 3) in the rest pose."""
        place = np.zeros((len(self.names), 3))
        for bone, parent in enumerate(self.parents):
            place[bone] = self.offsets[bone] + (place[parent] if parent >= 0 else 0.0)
        return place

    @property
    def places(self) -> Float:
        """Bones (T, J, 3) in the world."""
        turned, place = np.empty_like(self.rotations), np.empty((len(self), len(self.names), 3))
        for bone, parent in enumerate(self.parents):
            step = self.moves.get(bone, np.broadcast_to(self.offsets[bone], (len(self), 3)))
            if parent < 0:
                turned[:, bone], place[:, bone] = self.rotations[:, bone], step
            else:
                turned[:, bone] = turned[:, parent] @ self.rotations[:, bone]
                place[:, bone] = place[:, parent] + rotate(turned[:, parent], step)
        return place


def animate(
    motion: BodyMotion, rig: Rig | str = "model", *, root_motion: bool = False, moving_root: bool = False
) -> Animation:
    """`motion`, already on the rig's body (see `onto_rig`), with the rig's names and a root bone.

    `moving_root`: without root motion, the root and not the pelvis carries the position.
    """
    rig = find_rig(rig) if isinstance(rig, str) else rig
    rest = motion.body.rest_joints[0]
    rotations = np.concatenate([np.tile(np.eye(3), (len(motion), 1, 1, 1)), motion.rotations], axis=1)
    moves = {0: motion.root - rest} if moving_root else {1: motion.root}
    if root_motion:
        path, turn = ground_path(motion)
        heading = np.asarray(yaw(turn))
        back = transpose(heading)
        moves = {0: path, 1: np.asarray(rotate(back, motion.root - path))}
        rotations[:, 0] = heading
        rotations[:, 1] = back @ motion.rotations[:, 0]
    size = motion.body.leg / 0.81
    return Animation(
        names=(rig.root, *rig.names),
        parents=(-1, *(parent + 1 for parent in PARENTS)),
        offsets=np.concatenate([np.zeros((1, 3)), rest[None], motion.body.offsets[1:]]),
        rotations=rotations,
        moves=moves,
        tips={joint + 1: size * _tip(motion, joint) for joint in _TIPS},
        fps=motion.fps,
    )


def _tip(motion: BodyMotion, joint: int) -> Float:
    """Along the bone before it for hands, whose rest direction differs between bodies."""
    if joint in (20, 21):
        bone = motion.body.offsets[joint]
        return np.asarray(0.17 * bone / np.linalg.norm(bone))
    return np.array(_TIPS[joint])
