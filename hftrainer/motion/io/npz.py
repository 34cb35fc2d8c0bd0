"""Joints and SMPL rotations as named numpy arrays."""

from __future__ import annotations

import os

import numpy as np

from hftrainer.files import atomic_path
from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.spec import MOTION272
from hftrainer.motion.rotation import matrix_to_axis_angle
from hftrainer.motion.skeleton import JOINTS, PARENTS, bone_offsets


def motion_arrays(motion: np.ndarray) -> dict[str, np.ndarray]:
    """What a 272 motion (T, 272) holds, by name:

    joints (T, 22, 3) metres, Y up, from the position channel; poses (T, 66) SMPL rotation vectors, pelvis first;
    rotations (T, 22, 3, 3) the same as matrices; root_position (T, 3) of the pelvis joint (SMPL's ``trans`` is this
    minus the body model's rest pelvis); bone_offsets (22, 3); betas, all zero; joint_names, parents, fps.
    """
    joints = motion272.to_joints(motion)
    rotations, root = motion272.to_rotations(motion)
    return {
        "joints": joints.astype(np.float32),
        "poses": matrix_to_axis_angle(rotations).reshape(len(motion), -1).astype(np.float32),
        "rotations": rotations.astype(np.float32),
        "root_position": root.astype(np.float32),
        "bone_offsets": bone_offsets(joints, rotations).astype(np.float32),
        "betas": np.zeros(10, np.float32),
        "gender": np.array("neutral"),
        "joint_names": np.array(JOINTS),
        "parents": np.array(PARENTS),
        "fps": np.array(MOTION272.fps, np.float32),
        "mocap_framerate": np.array(MOTION272.fps, np.float32),
    }


def write_npz(path: str | os.PathLike[str], motion: np.ndarray) -> None:
    """Write `motion_arrays` as a compressed .npz, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **motion_arrays(motion))  # type: ignore[arg-type]
