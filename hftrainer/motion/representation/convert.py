"""From one representation to another. Pairs of functions that meet at joints; every option is one that changes numbers.

    motion272 --> joints, motion135, hml263        joints (20 fps) --> hml263
    motion135 --> joints, motion272, hml263        hml263 --> joints (20 fps)

What is not here cannot be computed: hml263 and joints hold no rotations of a body's joints, so there is no way from
them to motion272 or motion135 without fitting a body (inverse kinematics).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hftrainer.motion.array import Array, astype, expect_shape, namespace, widen
from hftrainer.motion.representation import hml263, motion135, motion272
from hftrainer.motion.representation.spec import HML263, MOTION135, MOTION272
from hftrainer.motion.resample import resample_positions, resampled_frames
from hftrainer.motion.skeleton import N_JOINTS, forward_kinematics

REPRESENTATIONS = ("motion272", "motion135", "hml263", "joints")


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
    third frame at 20 fps lies between two at 30 fps; the interpolation error is under a millimetre on average.
    """
    joints = motion272_to_joints(widen(motion), offsets=offsets)
    return astype(_joints_to_hml263(joints, MOTION272.fps, contact_threshold), motion)


def joints_to_hml263(
    joints: Array, *, fps: float = HML263.fps, contact_threshold: float = hml263.CONTACT_THRESHOLD
) -> Array:
    """Joints (..., T, 22, 3), Y up, metres, to (..., T' - 1, 263), T' being the frames at 20 fps (T if `fps` is 20).

    HumanML3D's recipe whole: uniform skeleton, floor, origin, facing +Z, contacts, bone rotations.
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
    """What routes by name may be told; each is used by the routes that it means something to."""

    fps: float = 30.0  # of joints given as source
    layout: str = "columns_interleaved"  # of motion135, on either side
    offsets: Array | None = None


def convert(motion: Array, source: str, target: str, options: Options | None = None) -> Converted:
    """Convert between representations by name (`REPRESENTATIONS`); joints are (..., T, 22, 3) or (..., T, 66)."""
    check_route(source, target)
    if source == "joints" and motion.shape[-1] == 3 * N_JOINTS:
        motion = motion.reshape(*motion.shape[:-1], N_JOINTS, 3)
    return _ROUTES[source, target](motion, options or Options())


def check_route(source: str, target: str) -> None:
    """Raise ``ValueError``, saying what there is instead, unless `convert` can go from `source` to `target`."""
    for name in (source, target):
        if name not in REPRESENTATIONS:
            raise ValueError(f"there is no representation {name!r}; known: {', '.join(REPRESENTATIONS)}")
    if (source, target) in _ROUTES:
        return
    ways = ", ".join(b for a, b in _ROUTES if a == source)
    if source == target:
        raise ValueError(f"source and target are both {source}; from it there are ways to {ways}")
    raise ValueError(
        f"there is no way from {source} to {target}: {source} holds no joint rotations, a body would have to be fitted "
        f"to it; from {source} there are ways to {ways}"
    )


def _from_135(motion: Array, given: Options) -> Array:
    return motion135.to_joints(widen(motion), offsets=given.offsets, layout=given.layout)


_ROUTES: dict[tuple[str, str], Callable[[Any, Options], Converted]] = {
    ("motion272", "joints"): lambda m, o: Converted(motion272_to_joints(m, offsets=o.offsets), MOTION272.fps),
    ("motion272", "motion135"): lambda m, o: Converted(motion272_to_motion135(m, layout=o.layout), MOTION135.fps),
    ("motion272", "hml263"): lambda m, o: Converted(motion272_to_hml263(m, offsets=o.offsets), HML263.fps),
    ("motion135", "joints"): lambda m, o: Converted(astype(_from_135(m, o), m), MOTION135.fps),
    ("motion135", "motion272"): lambda m, o: Converted(
        motion135_to_motion272(m, offsets=o.offsets, layout=o.layout), MOTION272.fps
    ),
    ("motion135", "hml263"): lambda m, o: Converted(
        astype(joints_to_hml263(_from_135(m, o), fps=MOTION135.fps), m), HML263.fps
    ),
    ("joints", "hml263"): lambda m, o: Converted(joints_to_hml263(m, fps=o.fps), HML263.fps),
    ("hml263", "joints"): lambda m, o: Converted(hml263_to_joints(m), HML263.fps),
}
