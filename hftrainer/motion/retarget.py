"""From any BVH skeleton to the 22 SMPL joints, by a joint map; no optimisation and no body model.

A joint map pairs SMPL joints with joints of the file and says how the file's joints are oriented when the body stands
in SMPL's rest pose, a T-pose. The global rotation of an SMPL joint is then the file's global rotation, seen from that
rest orientation, so bend and **twist** are both carried over as the file has them; nothing is re-estimated from
positions. Arms and legs whose rest bones differ from SMPL's (an A-pose, straight legs) are turned onto them by the
smallest rotation, which adds no twist; `straighten` of the map says onto which rest pose.

A **missing joint** (``null`` in the map) is put on the straight line between its neighbours and does not bend on its
own; ``Name@end`` stands for the End Site of joint ``Name``. Joints of the file that the map does not name are left
out; where they bend between two named ones, the bone between those two gets its mean direction.

Positions come from forward kinematics of the rotations with the clip's own mean bones, so the two always agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.first_frames import frames_to_skip
from hftrainer.motion.io.bvh import BVH, BVHError
from hftrainer.motion.resample import resample_positions, resample_rotations
from hftrainer.motion.rest_pose import LIMBS, rest_direction, turn_onto
from hftrainer.motion.rotation import rotate, transpose
from hftrainer.motion.skeleton import JOINTS, PARENTS, forward_kinematics, local_rotations
from hftrainer.motion.skeleton_map import SkeletonMap, direction, frame_from

Float = NDArray[np.float64]


@dataclass
class RetargetedMotion:
    """An SMPL-22 clip: `rotations` (T, 22, 3, 3) local, `root` (T, 3), `offsets` (22, 3), `joints` (T, 22, 3).

    `skipped` is how many frames at the start of the file were left out.
    """

    rotations: Float
    root: Float
    offsets: Float
    fps: float
    skipped: int = 0

    @property
    def joints(self) -> Float:
        """World joint positions by forward kinematics, metres."""
        return np.asarray(forward_kinematics(self.rotations, self.root, self.offsets))


def retarget(
    bvh: BVH,
    skeleton: SkeletonMap,
    *,
    fps: float = 30.0,
    recorded_fps: float | None = None,
    skip_first: int | None = None,
    source: str = "BVH",
) -> RetargetedMotion:
    """Put the motion of `bvh` on the SMPL-22 skeleton at `fps`. Raises `BVHError` when mapped joints are missing.

    `recorded_fps` is the rate of the file's frames where its own figure is wrong. `skip_first` frames are left out;
    None leaves out those that belong to no motion, as `frames_to_skip` finds them.
    """
    found = _find_joints(bvh, skeleton, source)
    world, positions = bvh.global_transforms()
    axes = _world_axes(skeleton)
    world, positions = axes @ world, rotate(axes, positions) * skeleton.metres_per_unit

    place = {joint: _position(bvh, world, positions, at, skeleton) for joint, at in found.items()}
    frame = {joint: world[:, at.index] for joint, at in found.items()}
    rate = recorded_fps or bvh.fps
    clip = _solve(skeleton, place, frame, axes, rate)
    skip = frames_to_skip(clip.joints, rate) if skip_first is None else skip_first
    if skip >= len(positions):
        raise BVHError(f"{source}: has {len(positions)} frames, so {skip} cannot be skipped")
    if skip:
        place, frame = ({joint: values[skip:] for joint, values in part.items()} for part in (place, frame))
        clip = _solve(skeleton, place, frame, axes, rate)
    return RetargetedMotion(
        rotations=resample_rotations(clip.rotations, rate, fps),
        root=resample_positions(clip.root, rate, fps),
        offsets=clip.offsets,
        fps=fps,
        skipped=skip,
    )


def _solve(
    skeleton: SkeletonMap, place: dict[str, Float], frame: dict[str, Float], axes: Float, fps: float
) -> RetargetedMotion:
    """SMPL's rotations and mean bones from where the mapped joints are and how they are turned."""
    rest = _rest_orientations(skeleton, place, frame, axes)
    turned = np.empty((len(place["pelvis"]), len(JOINTS), 3, 3))
    for index, joint in enumerate(JOINTS):
        parent = turned[:, PARENTS[index]] if index else turned[:, 0]
        turned[:, index] = frame[joint] @ rest[joint].T if joint in frame else parent
    local = np.asarray(local_rotations(turned))
    return RetargetedMotion(local, place["pelvis"], _offsets(place, turned), fps)


@dataclass(frozen=True)
class _Found:
    index: int
    is_end: bool


def _find_joints(bvh: BVH, skeleton: SkeletonMap, source: str) -> dict[str, _Found]:
    wanted = {joint: name for joint, name in skeleton.joints.items() if name is not None}
    best: list[str] = []
    for prefix in skeleton.prefixes:
        missing = [n for n in wanted.values() if prefix + n.removesuffix("@end") not in bvh.names]
        if not missing:
            return {
                joint: _Found(bvh.names.index(prefix + name.removesuffix("@end")), name.endswith("@end"))
                for joint, name in wanted.items()
            }
        best = missing if not best or len(missing) < len(best) else best
    near = {name: get_close_matches(name, bvh.names, n=1) for name in best[:3]}
    hint = "; ".join(f"{name!r} (near: {close[0]!r})" if close else repr(name) for name, close in near.items())
    raise BVHError(f"{source}: {len(best)} joints of map {skeleton.name!r} are not in the file: {hint}")


def _position(bvh: BVH, world: Float, positions: Float, at: _Found, skeleton: SkeletonMap) -> Float:
    if not at.is_end:
        return positions[:, at.index]
    if at.index not in bvh.end_offsets:
        raise BVHError(f"map {skeleton.name!r} uses the End Site of {bvh.names[at.index]!r}, which has none")
    tip = bvh.end_offsets[at.index] * skeleton.metres_per_unit
    return np.asarray(positions[:, at.index] + rotate(world[:, at.index], tip))


def _world_axes(skeleton: SkeletonMap) -> Float:
    """Rotation from the file's world to ours, which has +Y up and +Z forward."""
    up, forward = direction(skeleton.up), direction(skeleton.forward)
    if abs(float(up @ forward)) > 1e-6:
        raise ValueError(f"skeleton map {skeleton.name!r}: up {skeleton.up} and forward {skeleton.forward} clash")
    return np.asarray([np.cross(up, forward), up, forward], dtype=np.float64)


def _rest_orientations(
    skeleton: SkeletonMap, place: dict[str, Float], frame: dict[str, Float], axes: Float
) -> dict[str, Float]:
    """For each mapped joint, where its local axes point in the T-pose (3, 3)."""
    rest = {joint: frame_from(skeleton.rest[joint]) if joint in skeleton.rest else axes.copy() for joint in place}
    if skeleton.straighten == "off":
        return rest
    for joint, child, followers in LIMBS:
        if joint in place and child in place:
            bone = np.asarray(rotate(transpose(frame[joint]), place[child] - place[joint])).mean(axis=0)
            turn = turn_onto(rest[joint] @ bone, rest_direction(joint, skeleton.straighten))
            for moved in (joint, *followers):
                if moved in rest:
                    rest[moved] = turn @ rest[moved]
    return rest


def _offsets(place: dict[str, Float], turned: Float) -> Float:
    """Bones (22, 3) in the rest pose, mean over frames; bones through missing joints are divided evenly."""
    offsets = np.zeros((len(JOINTS), 3))
    for index in range(1, len(JOINTS)):
        if JOINTS[index] not in place:
            continue
        chain, above = [index], PARENTS[index]  # from the joint up to its nearest mapped ancestor
        while JOINTS[above] not in place:
            chain.append(above)
            above = PARENTS[above]
        bone = place[JOINTS[index]] - place[JOINTS[above]]
        seen = np.asarray(rotate(transpose(turned[:, above]), bone)).mean(axis=0)
        for joint in chain:
            # Siblings that share a missing ancestor agree on it only on average; the first one decides.
            if not offsets[joint].any():
                offsets[joint] = seen / len(chain)
    return offsets
