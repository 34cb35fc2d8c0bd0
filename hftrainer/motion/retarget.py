"""From any skeleton to the 22 SMPL joints, by a joint map; no optimisation and no body model.

A joint map pairs SMPL joints with joints of the file and says how the file's joints are oriented when the body stands
in SMPL's rest pose, a T-pose. The global rotation of an SMPL joint is then the file's global rotation, seen from that
rest orientation, so bend and **twist** are both carried over as the file has them; nothing is re-estimated from
positions. Where the map says nothing, the file's own rest pose is taken for a T-pose, whichever axis it faces. Arms
and legs whose rest bones differ from SMPL's (an A-pose, straight legs) are turned onto them by the smallest rotation,
which adds no twist; `straighten` of the map says onto which rest pose.

A **missing joint** (``null`` in the map) is put on the straight line between its neighbours and does not bend on its
own. Joints of the file that the map does not name are left out; where they bend between two named ones, the bone
between those two gets its mean direction. A joint that the map puts on the way to the next one (``Name@0.5``) is turned
so that it meets that one.

Positions come from forward kinematics of the rotations with the clip's own mean bones, so the two always agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body_size import LIKELY, body_length
from hftrainer.motion.first_frames import frames_to_skip
from hftrainer.motion.io.source import MotionFileError, MotionSource
from hftrainer.motion.joint_names import Found, find_joints
from hftrainer.motion.resample import resample_positions, resample_rotations, resampled_frames
from hftrainer.motion.rest_pose import FOOT, LIMBS, made_up_foot, rest_direction, turn_onto
from hftrainer.motion.rotation import between_vectors, rotate, transpose, yaw
from hftrainer.motion.skeleton import JOINTS, PARENTS, forward_kinematics, local_rotations
from hftrainer.motion.skeleton_map import SkeletonMap, frame_from
from hftrainer.motion.world_axes import axis_name, map_axes, measured_axes

Float = NDArray[np.float64]
MAX_SECONDS = 4 * 3600.0
_NO_BONE = 1e-3  # of the next bone: a joint that lies on the one above
_COLLAR = 0.35  # of the way from the spine to the shoulder


@dataclass(frozen=True)
class RetargetOptions:
    """What is known better than the file or the map says it; None leaves it to them.

    `fps` is the rate of the result and `recorded_fps` that of the file's frames. `skip_first` frames are left out; None
    leaves out those that belong to no motion, as `frames_to_skip` finds them. `up` is an axis such as "+Z".
    """

    fps: float = 30.0
    recorded_fps: float | None = None
    metres_per_unit: float | None = None
    up: str | None = None
    rest_frame: int | None = None
    skip_first: int | None = None


@dataclass
class RetargetedMotion:
    """An SMPL-22 clip: `rotations` (T, 22, 3, 3) local, `root` (T, 3), `offsets` (22, 3), `joints` (T, 22, 3).

    `skipped` is how many frames at the start of the file were left out, `turns` by how many degrees each limb's rest
    bone was turned, `faces` the axis of the file that its rest pose faces, `notes` what was put right.
    """

    rotations: Float
    root: Float
    offsets: Float
    fps: float
    skipped: int = 0
    turns: dict[str, float] = field(default_factory=dict)
    faces: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def joints(self) -> Float:
        """World joint positions by forward kinematics, metres."""
        return np.asarray(forward_kinematics(self.rotations, self.root, self.offsets))


@dataclass
class _Mapped:
    """The joints of a file that SMPL has, in our axes and metres: `place` (T, 3), `frame` (T, 3, 3), `rest` (3, 3)."""

    place: dict[str, Float]
    frame: dict[str, Float]
    rest: dict[str, Float]
    aimed: list[str]  # joints on the way to the next one
    fps: float

    def after(self, frames: int) -> _Mapped:
        """Without so many frames at the start."""
        place, frame = ({joint: values[frames:] for joint, values in part.items()} for part in (self.place, self.frame))
        return replace(self, place=place, frame=frame)


def retarget(
    motion: MotionSource, skeleton: SkeletonMap, options: RetargetOptions | None = None, *, source: str = "motion"
) -> RetargetedMotion:
    """Put `motion` on the SMPL-22 skeleton. Raises `MotionFileError` when mapped joints are missing."""
    options = options or RetargetOptions()
    if not (options.recorded_fps or motion.fps):
        raise MotionFileError(f"{source}: has no usable frame rate; give it with --fps")
    mapped, faces, notes = _map(motion, skeleton, options, source)
    clip = _solve(mapped, skeleton)
    skip = frames_to_skip(clip.joints, mapped.fps) if options.skip_first is None else options.skip_first
    if skip >= len(clip.root):
        raise MotionFileError(f"{source}: has {len(clip.root)} frames, so the first {skip} cannot be left out")
    if skip:
        clip = _solve(mapped.after(skip), skeleton)
        frames = "frame, which belongs" if skip == 1 else f"{skip} frames, which belong"
        notes.append(f"left out the first {frames} to no motion" if options.skip_first is None else f"skipped {skip}")
    if resampled_frames(len(clip.root), mapped.fps, options.fps) > MAX_SECONDS * options.fps:
        raise MotionFileError(
            f"{source}: {len(clip.root)} frames at {mapped.fps:g} a second are more than {MAX_SECONDS / 3600:g} hours; "
            "give the true rate with --fps"
        )
    return RetargetedMotion(
        rotations=resample_rotations(clip.rotations, mapped.fps, options.fps),
        root=resample_positions(clip.root, mapped.fps, options.fps),
        offsets=clip.offsets,
        fps=options.fps,
        skipped=skip,
        turns=clip.turns,
        faces=faces,
        notes=[*motion.notes, *notes],
    )


def _map(
    motion: MotionSource, skeleton: SkeletonMap, options: RetargetOptions, source: str
) -> tuple[_Mapped, str, list[str]]:
    """The mapped joints in our axes and metres, which axis the rest pose faces, and notes."""
    found = _off_their_parents(find_joints(motion.names, skeleton, list(motion.end_offsets), source), motion)
    if options.up is not None:
        forward = next(a for a in ("+Z", "-Y", "+X") if a[1] != options.up[1])
        skeleton = replace(skeleton, up=options.up, forward=forward)
    world, positions = motion.global_transforms()
    axes = map_axes(skeleton)
    unit = options.metres_per_unit or motion.metres_per_unit or _unit(positions[0], found, skeleton)
    world, positions = axes @ world, rotate(axes, positions) * unit
    tips = {joint: rotate(world[:, joint], tip) * unit for joint, tip in motion.end_offsets.items()}
    place = {joint: positions[:, at.index] + (tips[at.index] if at.at == "end" else 0.0) for joint, at in found.items()}
    notes: list[str] = []
    rest_frame = skeleton.rest_frame if options.rest_frame is None else options.rest_frame
    if rest_frame is None:
        rest_world, rest_axes = _file_rest(motion, skeleton, found, axes, notes)
    else:
        rest_world, rest_axes = _frame_rest(world, place, rest_frame, source), np.eye(3)
    rest = {
        joint: frame_from(skeleton.rest[joint])
        if joint in skeleton.rest and rest_frame is None
        else rest_axes @ rest_world[at.index]
        for joint, at in found.items()
    }
    aimed = []
    for joint, at in found.items():
        if isinstance(at.at, float):
            below = _next_mapped(joint, found)
            if below is None:
                raise MotionFileError(f"{source}: the map puts {joint} on the way to the next joint, and there is none")
            place[joint] = place[joint] + at.at * (place[below] - place[joint])
            aimed.append(joint)
    frame = {joint: world[:, at.index] for joint, at in found.items()}
    faces = axis_name(rest_axes[2]) if rest_frame is None else f"frame {rest_frame}"
    return _Mapped(place, frame, rest, aimed, options.recorded_fps or motion.fps), faces, notes


def _file_rest(
    motion: MotionSource, skeleton: SkeletonMap, found: dict[str, Found], axes: Float, notes: list[str]
) -> tuple[Float, Float]:
    """The file's rest pose (J, 3, 3), and the rotation from its axes to ours."""
    rest_world, rest_places = motion.rest_transforms()
    if "pelvis" in skeleton.rest:
        return rest_world, axes
    at = {joint: rest_places[place.index] for joint, place in found.items()}
    top = next((at[j] for j in ("head", "neck", "spine3", "spine2") if j in at), at["pelvis"])
    left = at["left_hip"] - at["right_hip"] if {"left_hip", "right_hip"} <= at.keys() else np.zeros(3)
    measured = measured_axes(left, top - at["pelvis"])
    if measured is None:
        return rest_world, axes
    if np.abs(measured - axes).max() > 1e-6:
        notes.append(f"the rest pose stands along {axis_name(measured[1])} and faces {axis_name(measured[2])}")
    return rest_world, measured


def _frame_rest(world: Float, place: dict[str, Float], frame: int, source: str) -> Float:
    """Orientations (J, 3, 3) in a frame that is a T-pose, turned to face +Z."""
    if not 0 <= frame < len(world):
        raise MotionFileError(f"{source}: has {len(world)} frames, so frame {frame} cannot be the rest pose")
    left = place["left_hip"][frame] - place["right_hip"][frame]
    return np.asarray(yaw(np.arctan2(left[2], left[0])) @ world[frame])


def _off_their_parents(found: dict[str, Found], motion: MotionSource) -> dict[str, Found]:
    """Joints that lie on the mapped joint above are put on the way to the next one, so that every bone has a length."""
    _, places = motion.rest_transforms()
    out = dict(found)
    for joint, at in found.items():
        above = PARENTS[JOINTS.index(joint)]
        while above > 0 and JOINTS[above] not in found:
            above = PARENTS[above]
        if at.at is not None or above < 0 or JOINTS[above] not in found:
            continue
        below = _next_mapped(joint, found)
        if below is None:
            continue
        bone = np.linalg.norm(places[at.index] - places[found[JOINTS[above]].index])
        if bone < _NO_BONE * np.linalg.norm(places[found[below].index] - places[at.index]):
            out[joint] = Found(at.index, _COLLAR if joint.endswith("collar") else 0.5)
    return out


def _unit(positions: Float, found: dict[str, Found], skeleton: SkeletonMap) -> float:
    """The first of the map's units with which the body in `positions` (J, 3) is as large as people are."""
    mapped = {joint: positions[at.index] for joint, at in found.items()}
    length = body_length(mapped)
    return next((unit for unit in skeleton.units if LIKELY[0] <= length * unit <= LIKELY[1]), skeleton.units[0])


def _next_mapped(joint: str, found: dict[str, Found]) -> str | None:
    """The nearest SMPL joint below that the file has."""
    for index, name in enumerate(JOINTS):
        above = PARENTS[index]
        while above > 0 and JOINTS[above] not in found:
            above = PARENTS[above]
        if above >= 0 and JOINTS[above] == joint and name in found:
            return name
    return None


def _solve(mapped: _Mapped, skeleton: SkeletonMap) -> RetargetedMotion:
    """SMPL's rotations and mean bones from where the mapped joints are and how they are turned."""
    rest, turns = _straightened(mapped, skeleton.straighten, skeleton.feet_follow_legs)
    turned = np.empty((len(mapped.place["pelvis"]), len(JOINTS), 3, 3))
    for index, joint in enumerate(JOINTS):
        parent = turned[:, PARENTS[index]] if index else turned[:, 0]
        turned[:, index] = mapped.frame[joint] @ rest[joint].T if joint in mapped.frame else parent
    offsets = _offsets(mapped.place, turned)
    for joint in mapped.aimed:
        _aim(JOINTS.index(joint), mapped.place, turned, offsets)
    if mapped.aimed:
        offsets = _offsets(mapped.place, turned)
    for foot, ankle in FOOT.items():
        if foot not in mapped.place:
            offsets[JOINTS.index(foot)] = made_up_foot(foot, offsets[JOINTS.index(ankle)])
    local = np.asarray(local_rotations(turned))
    return RetargetedMotion(local, mapped.place["pelvis"], offsets, mapped.fps, turns=turns)


def _straightened(mapped: _Mapped, target: str, feet_follow: bool) -> tuple[dict[str, Float], dict[str, float]]:
    """The rest orientations with limbs in the rest pose `target`, and by how many degrees each limb was turned."""
    rest, turns = dict(mapped.rest), dict[str, float]()
    for joint, child, followers in LIMBS:
        if joint in mapped.place and child in mapped.place:
            bone = np.asarray(rotate(transpose(mapped.frame[joint]), mapped.place[child] - mapped.place[joint]))
            mean = rest[joint] @ bone.mean(axis=0)
            aim = rest_direction(joint, "smpl" if target == "off" else target)
            length = np.linalg.norm(mean)
            turns[joint] = float(np.degrees(np.arccos(np.clip(mean @ aim / length, -1, 1)))) if length > 0 else 0.0
            if target != "off" and length > 0:
                turn = turn_onto(mean, aim)
                if feet_follow and joint.endswith("knee"):
                    upright = turn_onto(mean, np.array([0.0, -1.0, 0.0]))
                    for moved in {child, child.replace("ankle", "foot")} & rest.keys():
                        rest[moved] = upright @ rest[moved]
                for moved in (joint, *followers):
                    if moved in rest:
                        rest[moved] = turn @ rest[moved]
    return rest, turns


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


def _aim(index: int, place: dict[str, Float], turned: Float, offsets: Float) -> None:
    """Turn a joint, in place, so that its bone points to where the next joint is from where its parent puts it."""
    child = next((c for c in range(len(JOINTS)) if PARENTS[c] == index and JOINTS[c] in place), None)
    parent = PARENTS[index]
    if child is None or JOINTS[parent] not in place:
        return
    at = place[JOINTS[parent]] + rotate(turned[:, parent], offsets[index])
    wanted = place[JOINTS[child]] - at
    has = np.asarray(rotate(turned[:, index], offsets[child]))
    turned[:, index] = np.asarray(between_vectors(has, wanted)) @ turned[:, index]
