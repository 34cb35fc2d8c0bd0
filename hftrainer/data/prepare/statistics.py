"""Writing a dataset's statistics."""

from __future__ import annotations

import numpy as np

from hftrainer.data.folder import DatasetFolder
from hftrainer.files import atomic_path, write_json
from hftrainer.motion.statistics import compute_statistics


def write_statistics(dataset: DatasetFolder, split: str | None, *, grouped: bool, with_mirrored: bool) -> int:
    """Compute the statistics of a split into mean_std/, with a note of what they were made from; clips counted."""
    names = dataset.names(split)
    mean, std = compute_statistics(
        map(dataset.motion, names), dataset.motion_format, grouped=grouped, with_mirrored=with_mirrored
    )
    folder = dataset.root / "mean_std"
    for name, values in (("mean.npy", mean), ("std.npy", std)):
        with atomic_path(folder / name) as temporary, open(temporary, "wb") as stream:
            np.save(stream, values)
    write_json(
        folder / "made_from.json",
        {
            "representation": dataset.representation,
            "split": split,
            "clips": len(names),
            "grouped": grouped,
            "with_mirrored": with_mirrored,
        },
    )
    return len(names)
