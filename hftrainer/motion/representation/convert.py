"""From one representation to another, by way of joints and rotations; every option is one that changes numbers.

    motion272 --> joints, motion135, hml263        joints (20 fps) --> hml263
    motion135 --> joints, motion272, hml263        hml263 --> joints (20 fps)

`convert` goes between any two that are registered, plug-ins' included, as long as the source holds what the target is
made from. hml263 and joints hold no rotations of a body's joints; on the way from them to motion272 or motion135 a body
is posed to follow the joints (`hftrainer.motion.posed`), which keeps positions and makes up how limbs are twisted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftrainer.motion.array import Array, astype, expect_shape, like, namespace, widen
from hftrainer.motion.representation import hml263, motion135, motion272
from hftrainer.motion.representation.base import Body, Representation, get_representation
from hftrainer.motion.representation.spec import HML263, MOTION272
from hftrainer.motion.resample import resample_positions, resampled_frames
from hftrainer.motion.skeleton import N_JOINTS, forward_kinematics
from hftrainer.registry import REPRESENTATIONS


def motion272_to_joints(motion: Array, *, offsets: Array | None = None) -> Array:
    """World joints (..., T, 22, 3) of (..., T, 272), 30 fps.

    By default the stored positions. With `offsets` (22, 3), vectors from parent to joint, the stored rotations on that
    skeleton instead; the two differ in generated clips.
    """
    if offsets is None:
        return motion272.to_joints(motion)
    rotations, root = motion272.to_rotations(motion)
    return forward_kinematics(rotations, root, motion135.skeleton_offsets(offsets, motion))


def motion272_to_motion135(motion: Array, *, layout: str = "columns_interleaved") -> Array:
    """(..., T, 272) to (..., T, 135), 30 fps: the stored rotations and the pelvis's path.

    Stored positions are not used. `layout` "columns" is what MotionCLIP-135 reads.
    """
    rotations, root = motion272.to_rotations(motion)
    return motion135.from_rotations(rotations, root, layout=layout)


def motion135_to_motion272(
    motion: Array,
    *,
    offsets: Array | None = None,
    layout: str = "columns_interleaved",
    rotation_space: str = "local",
) -> Array:
    """(..., T, 135) to (..., T, 272), 30 fps, with positions from forward kinematics on a skeleton.

    `offsets` (22, 3): vectors from parent to joint; None is HumanML3D-272's mean body, about 23 mm from the true one.
    """
    wide = widen(motion)
    rotations, root = motion135.to_rotations(wide, layout=layout, rotation_space=rotation_space)
    joints = forward_kinematics(rotations, root, motion135.skeleton_offsets(offsets, wide))
    return astype(motion272.from_joints_and_rotations(joints, rotations), motion)


def motion272_with_skeleton(motion: Array, offsets: Array) -> Array:
    """(..., T, 272) encoded again with the stored rotations on another skeleton (22, 3).

    With a body model's rest skeleton this makes the reference of FID-refk (see docs/evaluation/protocols.md).
    """
    wide = widen(motion)
    rotations, root = motion272.to_rotations(wide)
    joints = forward_kinematics(rotations, root, motion135.skeleton_offsets(offsets, wide))
    return astype(motion272.from_joints_and_rotations(joints, rotations), motion)


def motion272_to_hml263(
    motion: Array, *, offsets: Array | None = None, contact_threshold: float = hml263.CONTACT_THRESHOLD
) -> Array:
    """(..., T, 272) at 30 fps to (..., floor((T - 1) / 1.5), 263) at 20 fps.

    Joints (see `motion272_to_joints` for `offsets`) are interpolated linearly to 20 fps, then `joints_to_hml263`. Every
    third frame at 20 fps lies between two at 30 fps; the interpolation error is under a millimetre on average. Nothing
    is extrapolated past the last frame, so that clips with T % 3 == 2 have one frame fewer than Motius gives them.
    """
    joints = motion272_to_joints(widen(motion), offsets=offsets)
    return astype(_joints_to_hml263(joints, MOTION272.fps, contact_threshold), motion)


def joints_to_hml263(
    joints: Array, *, fps: float = HML263.fps, contact_threshold: float = hml263.CONTACT_THRESHOLD
) -> Array:
    """Joints (..., T, 22, 3), Y up, metres, to (..., T' - 1, 263), T' being the frames at 20 fps (T if `fps` is 20).

    HumanML3D's complete recipe: uniform skeleton, floor, origin, facing +Z, contacts, bone rotations.
    """
    return astype(_joints_to_hml263(widen(joints), fps, contact_threshold), joints)


def hml263_to_joints(motion: Array) -> Array:
    """(..., T, 263) to joints (..., T, 22, 3), both at 20 fps; first heading +Z, first pelvis over the origin."""
    return hml263.to_joints(motion)


def _joints_to_hml263(joints: Array, fps: float, contact_threshold: float) -> Array:
    expect_shape(joints, ("T", N_JOINTS, 3), "joints")
    frames = resampled_frames(joints.shape[-3], fps, HML263.fps)
    if frames < 2:
        raise ValueError(f"{joints.shape[-3]} frames at {fps:g} fps are {frames} at 20 fps; hml263 needs at least 2")
    xp = namespace(joints)
    if fps != HML263.fps:
        joints = xp.moveaxis(resample_positions(xp.moveaxis(joints, -3, 0), fps, HML263.fps), 0, -3)
    return hml263.from_joints(joints, contact_threshold=contact_threshold)


# --- by name ----------------------------------------------------------------------------------------------------------


class Converted(NamedTuple):
    """`values` (T, ...) of the target representation and their frame rate."""

    values: Array
    fps: float


class Options(NamedTuple):
    """What a conversion by name may be told; each is used by the representations that it means something to."""

    fps: float = 30.0  # of joints given as source
    layout: str = "columns_interleaved"  # of motion135, on either side
    offsets: Array | None = None  # bones (22, 3) that motion272's and motion135's rotations are posed on


def convert(motion: Array, source: str, target: str, options: Options | None = None) -> Converted:
    """Convert between representations by name; joints are (..., T, 22, 3) or (..., T, 66).

    Raises ``ValueError`` as `check_route` does where there is no way.
    """
    check_route(source, target)
    taken, made, given = get_representation(source), get_representation(target), options or Options()
    told = {"layout": given.layout, "offsets": given.offsets}
    if taken.any_rate:
        told["fps"] = given.fps
    body = taken.to_body(widen(motion), rotations=made.needs_rotations or made.holds_rotations, **told)
    if made.needs_rotations and body.rotations is None:
        body = _posed(body)
    return Converted(astype(made.from_body(body, layout=given.layout), motion), body.fps if made.any_rate else made.fps)


def check_route(source: str, target: str) -> None:
    """Raise ``ValueError``, listing the possible conversions, unless `convert` can go from `source` to `target`."""
    taken, made = get_representation(source), get_representation(target)
    if source != target and _reaches(taken, made):
        return
    ways = ", ".join(name for name in targets(source)) or "none"
    if source == target:
        raise ValueError(f"source and target are both {source}; it can be converted to {ways}")
    if not made.can_be_made:
        raise ValueError(f"{target} can be read, but cannot be made; {source} can be converted to {ways}")
    raise ValueError(f"{source} cannot be converted to {target}; {source} can be converted to {ways}")


def targets(source: str) -> list[str]:
    """The representations that `convert` can make from `source`."""
    taken = get_representation(source)
    others = (get_representation(name) for name in REPRESENTATIONS.names() if name != source)
    return [other.name for other in others if _reaches(taken, other)]


def makes_up_rotations(source: str, target: str) -> bool:
    """Whether `convert` has to pose a body, since `target` holds rotations and `source` does not."""
    return get_representation(target).needs_rotations and not get_representation(source).holds_rotations


def _reaches(taken: Representation, made: Representation) -> bool:
    """There is a way: each representation gives joints, and joints can be posed."""
    return made.can_be_made


def _posed(body: Body) -> Body:
    """The body with rotations that follow its joints (..., T, 22, 3)."""
    from hftrainer.motion.posed import posed  # which reads motion272

    joints = np.asarray(body.joints, dtype=np.float64)
    clips = joints.reshape(-1, *joints.shape[-3:])
    rotations = np.stack([posed(clip, body.fps) for clip in clips]).reshape(*joints.shape, 3)
    return Body(body.joints, body.fps, like(rotations, body.joints), body.joints[..., 0, :])
