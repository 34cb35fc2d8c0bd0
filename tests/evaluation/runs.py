"""Data sets and folders of predictions that several tests of evaluation are run on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.motion.representation.spec import MOTION272
from tests.tiny import tiny_evaluator


def make_judge(folder: Path) -> Path:
    """A folder with a tiny evaluator."""
    tiny_evaluator().save_pretrained(folder)
    return folder


def make_data(root: Path, synthetic: Path) -> DatasetFolder:
    """A copy of the procedural data set whose test split holds all 40 clips."""
    shutil.copytree(synthetic, root)
    folder = DatasetFolder(root)
    folder.write_split("test", folder.names())
    return folder


def noisy(data: DatasetFolder, out: Path, scale: float, seed: int = 0) -> Path:
    """A folder of predictions: the real clips with noise."""
    rng = np.random.default_rng(seed)
    for name in data.names("test"):
        motion = data.motion(name)
        path = out / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = scale * rng.normal(size=motion.shape)
        noise[:, MOTION272["joint_positions"]][:, [0, 2]] = 0  # the root stays over its own origin
        np.save(path, (motion + noise).astype(np.float32))
    return out
