"""All motions of a dataset in one memory-mapped array, for the tokenizer: windows without opening a file a clip.

motion.npy          float32 or float16 (frames, width) clips one after the other, physical units
offsets.npy         int64 (clips + 1,)                 where each clip starts
names.npy, name_offsets.npy, split_<i>.npy, label_<i>.npy, mean.npy, std.npy    as in a packed set of tokens
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hftrainer.data.appending import NpyWriter
from hftrainer.data.flat import (
    PackedFolder,
    check_replaceable,
    write_labels,
    write_packed_manifest,
    write_splits,
    write_statistics_of,
)
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.motion.windows import MotionBatch, WindowDataset, WindowRules, collate_motions, window_plan
from hftrainer.data.order import BatchPlan
from hftrainer.files import atomic_folder
from hftrainer.motion.representation.base import Representation
from hftrainer.readers import FileError
from hftrainer.registry import DATASETS

MOTIONS_FORMAT = "hftrainer-packed-motions-v1"
DTYPES = ("float32", "float16")


class PackedMotions(PackedFolder):
    """Motions by clip number."""

    format = MOTIONS_FORMAT
    remedy = "make it with: hftrainer data pack-motions"

    def __init__(self, folder: str | os.PathLike[str]):
        super().__init__(folder)
        self.motion, self.offsets = self.array("motion"), self.array("offsets")
        if self.offsets[-1] != len(self.motion) or len(self.offsets) != len(self.array("name_offsets")):
            raise ValueError(f"the arrays of {self.folder} are inconsistent; {self.remedy}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedMotions, (self.folder,)  # another process maps the files again

    def __getitem__(self, clip: int) -> NDArray[np.float32]:
        """A clip (frames, width)."""
        return np.array(self.motion[self.offsets[clip] : self.offsets[clip + 1]], dtype=np.float32)


@dataclass(frozen=True)
class PackedMotionCounts:
    """What was packed; `error_mm`: the largest distance that storing as float16 moved joints by."""

    clips: int
    frames: int
    error_mm: float


def pack_motions(
    dataset: DatasetFolder,
    out: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    dtype: str = "float32",
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> PackedMotionCounts:
    """Write the motions of `splits` (default: every split) to the packed folder `out`, clip by clip, each one checked.

    The folder appears complete or not at all. A clip that cannot be used (missing, wrong shape, NaN) is an error that
    names its file.
    """
    if dtype not in DTYPES:
        raise ValueError(f"motions are stored as one of {', '.join(DTYPES)}, got {dtype!r}")
    check_replaceable(out)
    members = {split: list(dict.fromkeys(dataset.names(split))) for split in splits or dataset.splits()}
    names = list(dict.fromkeys(name for found in members.values() for name in found))
    if not names:
        raise FileError(f"{dataset.root} has no split with clips; its splits are {dataset.splits()}")
    worst = 0.0
    with atomic_folder(out) as staging:
        with (
            NpyWriter(staging / "motion.npy", dtype, (dataset.motion_format.width,)) as motion,
            NpyWriter(staging / "offsets.npy", np.int64) as offsets,
            NpyWriter(staging / "names.npy", np.uint8) as texts,
            NpyWriter(staging / "name_offsets.npy", np.int64) as name_offsets,
        ):
            offsets.append([0])
            name_offsets.append([0])
            for name in progress(names):
                clip = dataset.motion(name)
                if dtype == "float16":
                    worst = max(worst, _error(clip, dataset.motion_format))
                motion.append(clip)
                offsets.append([motion.rows])
                texts.append_bytes(name.encode(), len(name.encode()))
                name_offsets.append([texts.rows])
        number = {name: i for i, name in enumerate(names)}
        about = {
            "format": MOTIONS_FORMAT, "dataset": dataset.root.name, "representation": dataset.representation,
            "dtype": dtype, "clips": len(names),
            "frames": motion.rows, "float16_error_mm": worst,
            "splits": write_splits(staging, {k: [number[n] for n in found] for k, found in members.items()}),
            "labels": write_labels(staging, dataset.labels(), names),
        }  # fmt: skip
        write_statistics_of(dataset, staging)
        write_packed_manifest(staging, about)
    return PackedMotionCounts(len(names), motion.rows, worst)


def _error(clip: NDArray[np.float32], motion_format: Representation) -> float:
    with np.errstate(over="ignore"):
        stored = clip.astype(np.float16).astype(np.float32)
    if not np.isfinite(stored).all():
        raise ValueError("a motion has values outside the range of float16; pack with --dtype float32")
    moved = np.asarray(motion_format.to_joints(stored)) - np.asarray(motion_format.to_joints(clip))
    return 1000 * float(np.linalg.norm(moved, axis=-1).max())


class PackedClips:
    """Clips of a split of a packed set."""

    def __init__(self, packed: PackedMotions, split: str, *, shortest: int):
        clips = packed.split(split)
        lengths = np.diff(packed.offsets)[clips]
        self.packed, self.numbers = packed, np.asarray(clips[lengths >= shortest], dtype=np.int64)
        self.representation = packed.representation
        if not len(self.numbers):
            raise ValueError(f"split {split!r} of {packed.folder} has no clip of at least {shortest} frames")
        self.lengths: NDArray[np.int64] = lengths[lengths >= shortest]

    def name(self, index: int) -> str:
        """A clip's name."""
        return self.packed.name_of(int(self.numbers[index]))

    def frames(self, index: int, start: int, stop: int) -> NDArray[np.float32]:
        """A stretch of a clip; no more than it is read from the disk."""
        first, end = self.packed.offsets[self.numbers[index] : self.numbers[index] + 2]
        return np.array(self.packed.motion[first + start : min(first + stop, end)], dtype=np.float32)

    def groups(self, label: str) -> NDArray[np.int64]:
        """A clip without the label counts as a value of its own."""
        labels = self.packed.made_from["labels"]
        if label not in labels:
            raise ValueError(f"balance: {self.packed.folder} has no label {label!r}; it has {sorted(labels)}")
        return self.packed.array(labels[label]["array"])[self.numbers].astype(np.int64) + 1


@dataclass
class PackedWindowsConfig(WindowRules):
    """A folder written by ``hftrainer data pack-motions``; see `WindowRules` for the rest."""

    root: str = "dataset/MotionMillion/packed_motions"


@DATASETS.register("packed_windows")
class PackedWindows:
    """Training windows and validation clips of a packed set: the same batches as `motion_windows`."""

    Config = PackedWindowsConfig
    collate = staticmethod(collate_motions)

    def __init__(self, config: PackedWindowsConfig):
        self.config = config
        self.packed = PackedMotions(config.root)
        self.statistics = self.packed.statistics()
        self.representation = self.packed.representation

    def train(self) -> WindowDataset:
        """Windows of the training split."""
        clips = PackedClips(self.packed, self.config.train_split, shortest=self.config.shortest)
        return WindowDataset(clips, self.config)

    def plan(self, train: WindowDataset, seed: int) -> BatchPlan:
        """Order of training."""
        return window_plan(train, self.config, seed)

    def val(self) -> Sequence[MotionBatch]:
        """Whole clips in batches of like length, read when they are asked for; none without a validation split."""
        if self.config.val_split is None:
            return []
        return _WholeClips(self.packed, self.config)


class _WholeClips(Sequence[MotionBatch]):
    def __init__(self, packed: PackedMotions, config: PackedWindowsConfig):
        assert config.val_split is not None
        clips = np.asarray(packed.split(config.val_split)[: config.val_clips], dtype=np.int64)
        lengths = np.diff(packed.offsets)[clips]
        clips, lengths = clips[lengths >= config.frames_per_code], lengths[lengths >= config.frames_per_code]
        self.packed, self.size = packed, config.val_batch_size
        self.clips = clips[np.argsort(lengths, kind="stable")]

    def __len__(self) -> int:
        return -(-len(self.clips) // self.size)

    @overload
    def __getitem__(self, number: int) -> MotionBatch: ...
    @overload
    def __getitem__(self, number: slice) -> list[MotionBatch]: ...
    def __getitem__(self, number: int | slice) -> MotionBatch | list[MotionBatch]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        start = number % len(self) * self.size
        clips = self.clips[start : start + self.size].tolist()
        return collate_motions([(self.packed.name_of(clip), self.packed[clip]) for clip in clips])
