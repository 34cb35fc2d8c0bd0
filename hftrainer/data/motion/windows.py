"""Stretches of motion for the tokenizer: random windows to train on, complete clips to validate on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hftrainer.config import renamed
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.order import BatchPlan, Item, weights_of_groups
from hftrainer.fields import choice, number
from hftrainer.motion.representation.base import get_representation
from hftrainer.registry import DATASETS


class MotionBatch(NamedTuple):
    """`motion` (b, t, width) in physical units, zero past `lengths` (b,) frames; `names` of the clips."""

    motion: Tensor
    lengths: Tensor
    names: list[str]


@dataclass
class WindowRules:
    """How windows are cut.

    A clip shorter than `window` is used in full and padded, or left out with ``short_clips: skip`` (upstream stops with
    an error). ``draw_by: clip`` (upstream) gives one window of each clip an epoch; ``frames`` draws clips in
    proportion to their length. `balance`: a label (of labels.json) whose values are drawn more evenly, to the degree
    `balance_power` (1: equally often). `mirror` is the chance that a window is shown mirrored.
    """

    train_split: str = "train"
    val_split: str | None = "val"
    window: int = number(96, at_least=2)
    batch_size: int = number(64, at_least=1)
    draw_by: str = choice("clip", ["clip", "frames"])
    balance: str | None = None
    balance_power: float = number(1.0, at_least=0, at_most=1)
    short_clips: str = choice("pad", ["pad", "skip"])
    mirror: float = number(0.0, at_least=0, at_most=1)
    val_clips: int | None = number(None, at_least=1)
    val_batch_size: int = number(16, at_least=1)
    frames_per_code: int = number(2, at_least=1)

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """Names of an earlier release."""
        return renamed(fields, path, {"evenness": "balance_power"})

    @property
    def shortest(self) -> int:
        """Clips with fewer frames are left out."""
        return self.window if self.short_clips == "skip" else self.frames_per_code


@dataclass
class MotionWindowsConfig(WindowRules):
    """A dataset folder; see `WindowRules` for the rest.

    ``in_memory: false`` reads a clip's file whenever it is drawn, for data sets that do not fit.
    """

    root: str = "dataset/MotionMillion"
    in_memory: bool = True


class Clips(Protocol):
    """Motions of a split, from a folder or a packed set: `lengths` (n,) in frames, and the name of what they are."""

    lengths: NDArray[np.int64]
    representation: str

    def name(self, index: int) -> str:
        """A clip's name."""

    def frames(self, index: int, start: int, stop: int) -> NDArray[np.float32]:
        """A stretch of a clip, (up to stop - start, width), in physical units."""

    def groups(self, label: str) -> NDArray[np.int64]:
        """A number for each clip (n,), equal where the label's values are."""


def _frames(folder: DatasetFolder, name: str, shortest: int) -> int:
    """Frames of a clip; one that cannot be read stays in the list, and is named and counted when it is drawn."""
    try:
        return folder.frames(name)
    except ValueError:
        return shortest


class FolderClips:
    """Clips of a dataset folder, held in memory or read whenever they are drawn."""

    def __init__(self, folder: DatasetFolder, split: str, *, shortest: int, in_memory: bool):
        self.folder, self.representation = folder, folder.representation
        lengths = {name: _frames(folder, name, shortest) for name in folder.names(split)}
        self.names = [name for name, frames in lengths.items() if frames >= shortest]
        if not self.names:
            raise ValueError(f"split {split!r} of {folder.root} has no clip of at least {shortest} frames")
        self.lengths = np.array([lengths[name] for name in self.names])
        self._motions = [folder.motion(name) for name in self.names] if in_memory else None

    def name(self, index: int) -> str:
        """A clip's name."""
        return self.names[index]

    def frames(self, index: int, start: int, stop: int) -> NDArray[np.float32]:
        """A stretch of a clip; all of the file is checked when it is read."""
        motion = self.folder.motion(self.names[index]) if self._motions is None else self._motions[index]
        return motion[start:stop]

    def groups(self, label: str) -> NDArray[np.int64]:
        """A clip without the label counts as a value of its own."""
        labels = self.folder.labels()
        numbers: dict[str, int] = {}
        values = (str(labels.get(name, {}).get(label, "")) for name in self.names)
        return np.array([numbers.setdefault(value, len(numbers)) for value in values])


@DATASETS.register("motion_windows")
class MotionWindows:
    """Training windows and validation clips of a dataset folder, for the tokenizer."""

    Config = MotionWindowsConfig

    def __init__(self, config: MotionWindowsConfig):
        self.config = config
        self.folder = DatasetFolder(config.root)
        self.statistics = self.folder.statistics()
        self.representation = self.folder.representation

    def train(self) -> WindowDataset:
        """Windows of the training split, held in memory."""
        clips = FolderClips(
            self.folder, self.config.train_split, shortest=self.config.shortest, in_memory=self.config.in_memory
        )
        return WindowDataset(clips, self.config)

    def plan(self, train: WindowDataset, seed: int) -> BatchPlan:
        """Order of training."""
        return window_plan(train, self.config, seed)

    def val(self) -> list[MotionBatch]:
        """Whole clips in batches of like length; none without a validation split."""
        if self.config.val_split is None:
            return []
        names = self.folder.names(self.config.val_split)[: self.config.val_clips]
        clips = [(name, self.folder.motion(name)) for name in names]
        clips = sorted((c for c in clips if len(c[1]) >= self.config.frames_per_code), key=lambda clip: len(clip[1]))
        size = self.config.val_batch_size
        return [collate_motions(clips[i : i + size]) for i in range(0, len(clips), size)]

    collate = staticmethod(lambda items: collate_motions(items))


class WindowDataset(Dataset[tuple[str, np.ndarray]]):
    """`self[(index, seed)]` is a window of clip `index`; the seed decides its start and whether it is mirrored."""

    def __init__(self, clips: Clips, rules: WindowRules):
        self.clips, self.rules = clips, rules
        self.motion_format = get_representation(clips.representation)

    def __len__(self) -> int:
        return len(self.clips.lengths)

    def name(self, index: int) -> str:
        """The clip's name."""
        return self.clips.name(index)

    def __getitem__(self, item: Item) -> tuple[str, np.ndarray]:
        index, seed = item
        rng = np.random.default_rng(seed)
        window = self.rules.window
        start = int(rng.integers(0, max(1, int(self.clips.lengths[index]) - window + 1)))
        motion = self.clips.frames(index, start, start + window)
        return self.clips.name(index), self.motion_format.mirror(motion) if rng.random() < self.rules.mirror else motion


def window_plan(train: WindowDataset, rules: WindowRules, seed: int) -> BatchPlan:
    """Clips evenly or in proportion to their frames, balanced if asked for, windows of like length together."""
    lengths = train.clips.lengths
    weights = lengths.astype(np.float64) if rules.draw_by == "frames" else None
    if rules.balance is not None:
        even = weights_of_groups(train.clips.groups(rules.balance), balance_power=rules.balance_power)
        weights = even if weights is None else weights * even
    return BatchPlan(np.minimum(lengths, rules.window), rules.batch_size, seed, weights)


def collate_motions(clips: list[tuple[str, np.ndarray]]) -> MotionBatch:
    """Pad with zeros to the longest."""
    lengths = [len(motion) for _, motion in clips]
    out = torch.zeros(len(clips), max(lengths), clips[0][1].shape[1])
    for row, (_, motion) in enumerate(clips):
        out[row, : len(motion)] = torch.from_numpy(np.ascontiguousarray(motion, dtype=np.float32))
    return MotionBatch(out, torch.tensor(lengths), [name for name, _ in clips])
