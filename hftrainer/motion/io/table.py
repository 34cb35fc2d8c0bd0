"""CSV: one row a frame, for spreadsheets and for programs that read nothing else."""

from __future__ import annotations

import os

import numpy as np

from hftrainer.files import write_text
from hftrainer.motion.body import BodyMotion
from hftrainer.motion.edit import continuous
from hftrainer.motion.rotation import matrix_to_quaternion
from hftrainer.motion.skeleton import JOINTS


def write_csv(path: str | os.PathLike[str], motion: BodyMotion) -> None:
    """Write time, joint positions (metres, Y up) and local rotations as unit quaternions w, x, y, z, atomically."""
    names = ["time", *(f"{joint}_{axis}" for joint in JOINTS for axis in "xyz")]
    names += [f"{joint}_q{part}" for joint in JOINTS for part in "wxyz"]
    turns = continuous(np.asarray(matrix_to_quaternion(motion.rotations)))
    times = np.arange(len(motion))[:, None] / motion.fps
    table = np.concatenate([times, motion.joints.reshape(len(motion), -1), turns.reshape(len(motion), -1)], axis=1)
    lines = [",".join(names), *(",".join(f"{value:.6g}" for value in row) for row in table)]
    write_text(path, "\n".join(lines) + "\n")
