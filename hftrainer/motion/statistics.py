"""Mean and standard deviation of motions: computed by their representation's rule, read with suspicion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import read_npy
from hftrainer.motion.representation.base import Representation
from hftrainer.readers import FileError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def compute_statistics(
    motions: Iterable[np.ndarray],
    representation: Representation,
    *,
    grouped: bool = True,
    with_mirrored: bool = False,
) -> tuple[Float64, Float64]:
    """Mean and population standard deviation (width,) over all frames of all clips, in float64.

    `grouped`, as released statistics are: standard deviations by the representation's rule, for most their mean over
    each block, so that all features of a block are scaled alike and constant ones do not divide by zero.
    `with_mirrored` counts every clip's mirror image too.
    """
    sums = RunningStatistics(representation)
    for motion in motions:
        sums.add(motion)
        if with_mirrored:
            sums.add(representation.mirror(motion))
    return sums.result(grouped=grouped)


class RunningStatistics:
    """Sums over frames, so that no more than one clip is in memory."""

    def __init__(self, representation: Representation) -> None:
        self.representation, self.count = representation, 0
        self._total, self._squares = np.zeros(representation.width), np.zeros(representation.width)

    def add(self, motion: np.ndarray) -> None:
        """Count the frames of a clip (T, width)."""
        wide = motion.astype(np.float64)
        self.count += len(wide)
        self._total += wide.sum(axis=0)
        self._squares += (wide * wide).sum(axis=0)

    def result(self, *, grouped: bool) -> tuple[Float64, Float64]:
        """Mean and standard deviation; see `compute_statistics`."""
        if self.count == 0:
            raise ValueError("statistics need at least one clip")
        mean = self._total / self.count
        std = np.sqrt(np.maximum(self._squares / self.count - mean * mean, 0.0))
        if grouped:
            std = self.representation.scale(std)
        return mean, np.maximum(std, 1e-8)


def load_statistics(mean_path: Path, std_path: Path, representation: Representation) -> tuple[Float32, Float32]:
    """Read mean and std (width,) and refuse what cannot be statistics of such motions."""
    arrays = []
    for path in (mean_path, std_path):
        try:
            array = read_npy(path, shape=(representation.width,), finite=True, what=representation.name)
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror}") from error
        arrays.append(array.astype(np.float32))
    mean, std = arrays
    if not (std > 0).all():
        raise FileError(f"{std_path}: standard deviations must be positive, channel {int(np.argmin(std))} is not")
    problem = representation.statistics_problem(mean, std)
    if problem is not None:
        raise FileError(
            f"{mean_path}: {problem}; are these the statistics of another representation than {representation.name}, "
            "or mean and std exchanged?"
        )
    return mean, std
