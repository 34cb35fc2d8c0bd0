"""Motions as files of other programs have them, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hftrainer.motion.io.bvh_write import format_bvh
from hftrainer.motion.representation import motion272
from hftrainer.motion.skeleton import JOINTS, PARENTS, bone_offsets


def write_clip(path: Path, motion: np.ndarray) -> None:
    """A 272 motion with the bones that its own positions and rotations say, as other programs' files have them."""
    rotations, root = motion272.to_rotations(np.asarray(motion, dtype=np.float64))
    offsets = bone_offsets(motion272.to_joints(np.asarray(motion, dtype=np.float64)), rotations)
    path.write_text(format_bvh(rotations, root, offsets, names=JOINTS, parents=PARENTS, fps=30))
