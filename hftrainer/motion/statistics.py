"""Mean and standard deviation of motion272: computed by the release's rule, read with suspicion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.spec import MOTION272

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def compute_statistics(
    motions: Iterable[np.ndarray], *, grouped: bool = True, with_mirrored: bool = False
) -> tuple[Float64, Float64]:
    """Mean and population standard deviation (272,) over all frames of all clips, in float64.

    `grouped`, as the released statistics: the standard deviation is averaged over each channel group (root velocity,
    heading change, positions, velocities, rotations), so that all dimensions of a group are scaled alike and constant
    ones do not divide by zero. `with_mirrored` counts every clip's mirror image too.
    """
    sums = RunningStatistics()
    for motion in motions:
        sums.add(motion)
        if with_mirrored:
            sums.add(motion272.mirror(motion))
    return sums.result(grouped=grouped)


class RunningStatistics:
    """Sums over frames, so that no more than one clip is in memory."""

    def __init__(self) -> None:
        self.count = 0
        self._total, self._squares = np.zeros(MOTION272.width), np.zeros(MOTION272.width)

    def add(self, motion: np.ndarray) -> None:
        """Count the frames of a clip (T, 272)."""
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
            for channel in MOTION272.channels:
                std[MOTION272[channel]] = std[MOTION272[channel]].mean()
        return mean, np.maximum(std, 1e-8)


def load_statistics(mean_path: Path, std_path: Path) -> tuple[Float32, Float32]:
    """Read mean and std (272,) and refuse what cannot be statistics of motion272."""
    arrays = []
    for path in (mean_path, std_path):
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a numpy array: {error}") from error
        if array.shape != (MOTION272.width,) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(
                f"{path}: expected {MOTION272.width} finite floats, got shape {array.shape} of {array.dtype}"
                f"{'' if array.dtype.kind != 'f' or np.isfinite(array).all() else ' with NaN or infinite values'}"
            )
        arrays.append(array.astype(np.float32))
    mean, std = arrays
    if not (std > 0).all():
        raise ValueError(f"{std_path}: standard deviations must be positive, channel {int(np.argmin(std))} is not")
    height = float(mean[MOTION272["joint_positions"]][1])
    if not 0.0 < height < 3.0:
        raise ValueError(
            f"{mean_path}: the mean pelvis height (channel 9) is {height:.3g} m, expected about 0.9; "
            "are these the statistics of another representation, or mean and std exchanged?"
        )
    return mean, std
