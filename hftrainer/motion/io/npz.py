"""Motions as named numpy arrays: ours, and AMASS's layout as robots' and body models' programs read it."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from hftrainer.files import atomic_path
from hftrainer.motion.body import BodyMotion, smpl_body
from hftrainer.motion.rigs import retarget
from hftrainer.motion.rotation import matrix_to_axis_angle, rotate
from hftrainer.motion.skeleton import JOINTS, PARENTS

Arrays = dict[str, NDArray[np.generic]]

TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
# Where SMPL-X's neutral body has its pelvis joint at rest; its translation parameter is counted from there.
SMPLX_PELVIS = np.array([0.0031, -0.3514, 0.0120])
_BETAS = 16


def motion_arrays(motion: BodyMotion) -> Arrays:
    """What a motion holds, by name; metres, Y up:

    joints (T, 22, 3); rotations (T, 22, 3, 3) local, joint 0 in the world, and poses (T, 66), the same as rotation
    vectors; root_position (T, 3) of the pelvis; bone_offsets (22, 3) from parent to joint at rest; joint_names,
    parents, fps.
    """
    rotations = motion.rotations
    return {
        "joints": motion.joints.astype(np.float32),
        "poses": np.asarray(matrix_to_axis_angle(rotations)).reshape(len(motion), -1).astype(np.float32),
        "rotations": rotations.astype(np.float32),
        "root_position": motion.root.astype(np.float32),
        "bone_offsets": motion.body.offsets.astype(np.float32),
        "body": np.array(motion.body.name),
        "joint_names": np.array(JOINTS),
        "parents": np.array(PARENTS),
        "fps": np.array(motion.fps, np.float32),
    }


def amass_arrays(motion: BodyMotion, *, lock: bool = True) -> Arrays:
    """A motion as AMASS's SMPL-X files have it, on SMPL's neutral body; metres, Z up, facing -Y:

    root_orient (T, 3), pose_body (T, 63), trans (T, 3), the rest of the 165 pose numbers zero; betas (16) zero, gender,
    mocap_frame_rate, surface_model_type. The body's rest pose is SMPL's, and `trans` is counted from where SMPL-X has
    its pelvis. `lock`: feet are locked again on that body.
    """
    moved = retarget(motion, smpl_body(), lock=lock)
    rotations = moved.rotations.copy()
    rotations[:, 0] = TO_Z_UP @ rotations[:, 0]
    vectors = np.asarray(matrix_to_axis_angle(rotations)).astype(np.float32).reshape(len(moved), 66)
    zeros = np.zeros((len(moved), 165 - 66), np.float32)
    return {
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(moved.fps),
        "mocap_framerate": np.array(moved.fps),  # as AMASS's older, SMPL-H files spell it
        "mocap_time_length": np.array(moved.seconds),
        "trans": (rotate(TO_Z_UP, moved.root) - SMPLX_PELVIS).astype(np.float32),
        "betas": np.zeros(_BETAS, np.float32),
        "num_betas": np.array(_BETAS),
        "poses": np.concatenate([vectors, zeros], axis=1),
        "root_orient": vectors[:, :3],
        "pose_body": vectors[:, 3:66],
        "pose_jaw": zeros[:, :3],
        "pose_eye": zeros[:, :6],
        "pose_hand": zeros[:, :90],
    }


def write_npz(path: str | os.PathLike[str], motion: BodyMotion) -> None:
    """Write `motion_arrays` as a compressed .npz, atomically."""
    _write(path, motion_arrays(motion))


def write_amass(path: str | os.PathLike[str], motion: BodyMotion, *, lock: bool = True) -> None:
    """Write `amass_arrays` as a compressed .npz, atomically."""
    _write(path, amass_arrays(motion, lock=lock))


def _write(path: str | os.PathLike[str], arrays: Arrays) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
