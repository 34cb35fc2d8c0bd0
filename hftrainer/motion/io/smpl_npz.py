"""SMPL, SMPL-H and SMPL-X motions as .npz: AMASS, and what body estimators write; no body model is needed.

Rotations are the file's own. Joints are those of SMPL's neutral body at zero shape, so that body shapes (`betas`) are
not in them. AMASS has Z up, most others Y up: a file stands along the axis along which its body stands.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import Wanted, read_npz
from hftrainer.motion.body import smpl_body
from hftrainer.motion.io.source import MAX_ARRAYS, MotionFileError, SkeletalMotion, check_size
from hftrainer.motion.rotation import axis_angle_to_matrix
from hftrainer.motion.skeleton import JOINTS, PARENTS, forward_kinematics

Float = NDArray[np.float64]
_NUMBERS = Wanted("number")
# whole poses, or root and body apart; what they are called by AMASS, SMPL-X and estimators
_POSES = ("poses", "pose", "fullpose")
_ROOTS = ("root_orient", "global_orient")
_BODIES = ("pose_body", "body_pose")
_TRANSLATIONS = ("trans", "transl", "root_position")
_RATES = ("mocap_framerate", "mocap_frame_rate", "mocap_fps", "fps", "frame_rate", "framerate")
_Z_TO_Y = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
_OUR_BONES = "bone_offsets"  # our own export says whose bones its joints have
_KEYS = (*_POSES, *_ROOTS, *_BODIES, *_TRANSLATIONS, *_RATES, _OUR_BONES)


def read_smpl_npz(path: str | os.PathLike[str]) -> SkeletalMotion:
    """The motion in a file. Raises `MotionFileError`."""
    arrays = read_npz(path, dict.fromkeys(_KEYS, _NUMBERS), optional=_KEYS, max_bytes=MAX_ARRAYS, error=MotionFileError)
    poses, translation = _poses(arrays, path), _first(arrays, _TRANSLATIONS)
    frames = len(poses)
    check_size(frames, len(JOINTS), path)
    root = np.zeros((frames, 3)) if translation is None else np.asarray(translation, dtype=np.float64)
    rate = _first(arrays, _RATES)
    if root.shape != (frames, 3):
        raise MotionFileError(f"{path}: {frames} poses, but translations of shape {root.shape}")
    if not (np.isfinite(poses).all() and np.isfinite(root).all()):
        raise MotionFileError(f"{path}: holds NaN or infinite values")
    rotations = np.asarray(axis_angle_to_matrix(poses))
    notes = [] if translation is not None else ["has no translation; the body stays where it is"]
    if "root_position" not in arrays and _stands_along_z(rotations):
        rotations[:, 0], root = _Z_TO_Y @ rotations[:, 0], root @ _Z_TO_Y.T
        notes.append("is Z up, like AMASS; converted to Y up")
    offsets = np.asarray(arrays.get(_OUR_BONES, smpl_body().offsets), dtype=np.float64)
    if offsets.shape != (len(JOINTS), 3) or not np.isfinite(offsets).all():
        raise MotionFileError(f"{path}: bone_offsets should be (22, 3), got {offsets.shape}")
    translations = np.broadcast_to(offsets, (frames, len(JOINTS), 3)).copy()
    translations[:, 0] = root
    return SkeletalMotion(
        names=list(JOINTS),
        parents=list(PARENTS),
        rotations=rotations,
        translations=translations,
        rest_rotations=np.broadcast_to(np.eye(3), (len(JOINTS), 3, 3)),
        rest_translations=offsets,
        fps=0.0 if rate is None else _rate(rate, path),
        metres_per_unit=1.0,
        notes=notes,
    )


def _rate(array: Any, path: str | os.PathLike[str]) -> float:
    values = np.asarray(array, dtype=np.float64).reshape(-1)
    if len(values) != 1 or not np.isfinite(values[0]) or values[0] < 0:
        raise MotionFileError(f"{path}: the frame rate should be one number, got {values.tolist()[:3]}")
    return float(values[0])


def _poses(arrays: dict[str, Any], path: str | os.PathLike[str]) -> Float:
    """Rotation vectors (T, 22, 3), from (T, 66 and more) or (T, 22 and more, 3), or from root and body apart."""
    whole = _first(arrays, _POSES)
    if whole is None:
        root, body = _first(arrays, _ROOTS), _first(arrays, _BODIES)
        if root is None or body is None:
            raise MotionFileError(f"{path}: no SMPL motion; expected an array poses, or root_orient and pose_body")
        root, body = _flat(root, 3, path), _flat(body, 63, path)
        if len(root) != len(body):
            raise MotionFileError(f"{path}: {len(root)} rotations of the root, but {len(body)} poses of the body")
        whole = np.concatenate([root, body], axis=1)
    width = 3 * len(JOINTS)
    return np.asarray(_flat(whole, width, path)[:, :width]).reshape(-1, len(JOINTS), 3)


def _flat(array: Any, least: int, path: str | os.PathLike[str]) -> Float:
    flat: Float = np.asarray(array, dtype=np.float64)
    if flat.ndim == 3 and flat.shape[-1] == 3:
        flat = flat.reshape(len(flat), -1)
    if flat.ndim != 2 or len(flat) < 1 or flat.shape[1] < least or flat.shape[1] % 3:
        raise MotionFileError(f"{path}: rotation vectors should be (frames, {least} or more), got {flat.shape}")
    return flat


def _stands_along_z(rotations: Float) -> bool:
    joints = forward_kinematics(rotations, np.zeros((len(rotations), 3)), smpl_body().offsets)
    ankles = joints[:, [JOINTS.index("left_ankle"), JOINTS.index("right_ankle")]].mean(axis=1)
    spine = np.asarray(joints[:, JOINTS.index("head")] - ankles)
    mean = (spine / np.linalg.norm(spine, axis=-1, keepdims=True)).mean(axis=0)
    return bool(mean[2] > max(mean[1], 0.0))


def _first(arrays: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((arrays[name] for name in names if name in arrays), None)
