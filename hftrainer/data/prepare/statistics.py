"""Writing a dataset's statistics."""

from __future__ import annotations

import shutil

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.files import atomic_folder, write_json
from hftrainer.motion.statistics import compute_statistics

_OURS = ("mean.npy", "std.npy", "Mean.npy", "Std.npy", "made_from.json")


def write_statistics(dataset: DatasetFolder, split: str | None, *, grouped: bool, with_mirrored: bool) -> int:
    """Compute the statistics of a split into mean_std/, with a note of what they were made from; clips counted."""
    names = dataset.names(split)
    mean, std = compute_statistics(
        map(dataset.motion, names), dataset.motion_format, grouped=grouped, with_mirrored=with_mirrored
    )
    about = {
        "representation": dataset.representation, "split": split, "clips": len(names), "grouped": grouped,
        "with_mirrored": with_mirrored,
    }  # fmt: skip
    target = dataset.root / "mean_std"
    with atomic_folder(target) as folder:  # mean, deviation and what they were made from change together
        for other in target.iterdir() if target.is_dir() else ():
            if other.is_dir():
                shutil.copytree(other, folder / other.name)
            elif other.name not in _OURS and other.name[0] != ".":
                shutil.copy2(other, folder / other.name)
        np.save(folder / "mean.npy", mean)
        np.save(folder / "std.npy", std)
        write_json(folder / "made_from.json", about)
    return len(names)
