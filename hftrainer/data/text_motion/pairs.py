"""Captions with the motions that they are about, for training an evaluator that puts both into one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hftrainer.config import renamed
from hftrainer.data.folder import Caption, DatasetFolder, Float32
from hftrainer.data.motion.windows import collate_motions
from hftrainer.data.order import BatchPlan, Item, balanced_weights
from hftrainer.fields import number
from hftrainer.registry import DATASETS

Row = tuple[str, Float32, int]


class TextMotionBatch(NamedTuple):
    """`captions` (b strings) of `motion` (b, t, d) in physical units, zero past `lengths` (b,) frames.

    Rows with the same number in `groups` (b,) say the same thing by their labels; -1 is like nothing else.
    """

    captions: list[str]
    motion: Tensor
    lengths: Tensor
    groups: Tensor


@dataclass
class TextMotionConfig:
    """Clips, and the parts of clips that a caption is about, of `shortest` frames and up.

    A motion is cut as in the release: to a multiple of `unit` frames, with chance `shorten_prob` one unit less, from a
    random frame on. One longer than `longest` is shown as a random stretch of that length (the release had no such
    limit, though its evaluator reads 300). ``in_memory: false`` reads a clip's file whenever it is drawn.

    `groups`: labels (of labels.json) that together say what a clip is, so that clips with equal ones are not told
    apart. `fps`: at which captions' seconds are frames; the data's unless it is said. `balance`: a label whose values
    are drawn more evenly, to the degree `balance_power`.
    """

    root: str = "dataset/HumanML3D_272"
    train_split: str = "train"
    val_split: str | None = "val"
    batch_size: int = number(256, at_least=1)
    shortest: int = number(20, at_least=1)
    longest: int | None = number(300, at_least=1)
    unit: int = number(4, at_least=1)
    shorten_prob: float = number(1 / 3, at_least=0, at_most=1)
    fps: float | None = number(None, above=0)
    in_memory: bool = True
    groups: list[str] | None = None
    balance: str | None = None
    balance_power: float = number(1.0, at_least=0, at_most=1)
    val_batch_size: int = number(32, at_least=1)

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """Names of an earlier release."""
        return renamed(fields, path, {"shorter": "shorten_prob", "evenness": "balance_power"})

    def __post_init__(self) -> None:
        if self.shortest < 2 * self.unit:
            raise ValueError(f"shortest={self.shortest} must be at least two units of unit={self.unit} frames")
        if self.longest is not None and self.longest < self.shortest:
            raise ValueError(f"longest={self.longest} is below shortest={self.shortest}")


@DATASETS.register("text_motion")
class TextMotion:
    """Training and validation pairs of a dataset folder that has captions."""

    Config = TextMotionConfig

    def __init__(self, config: TextMotionConfig):
        self.config = config
        self.folder = DatasetFolder(config.root)
        self.statistics = self.folder.statistics()
        self.representation = self.folder.representation
        self.labels = self.folder.labels() if config.groups is not None or config.balance is not None else {}
        self._numbers: dict[tuple[str, ...], int] = {}

    def train(self) -> TextMotionDataset:
        """Pairs of the training split."""
        return TextMotionDataset(self, self.config.train_split)

    def train_captions(self) -> list[str]:
        """Every caption of the training split, for a vocabulary."""
        names = self.folder.names(self.config.train_split)
        return [caption.text for name in names for caption in self.folder.captions(name)]

    def plan(self, train: TextMotionDataset, seed: int) -> BatchPlan:
        """Order of training."""
        weights = None
        if self.config.balance is not None:
            groups = [str(self.labels.get(e.name, {}).get(self.config.balance, "")) for e in train.entries]
            weights = balanced_weights(groups, balance_power=self.config.balance_power)
        return BatchPlan(train.lengths, self.config.batch_size, seed, weights)

    def val(self) -> list[TextMotionBatch]:
        """Whole entries from their first frame, with their first caption, in an order that has nothing to do with them.

        Batches are pools for R-precision: sorted by length or by name, their rows would be more alike than they should.
        """
        if self.config.val_split is None:
            return []
        dataset = TextMotionDataset(self, self.config.val_split)
        order = np.random.default_rng(0).permutation(len(dataset))
        rows = [dataset.plain(int(i)) for i in order]
        size = self.config.val_batch_size
        return [collate_text_motion(rows[i : i + size]) for i in range(0, len(rows), size)]

    def group(self, name: str) -> int:
        """The number of what a clip's labels say, part by part for a joined clip; -1 for a clip without labels."""
        label = self.labels.get(name)
        if self.config.groups is None or label is None:
            return -1
        parts = label.get("parts", [label])
        says = tuple(str(part.get(key, "")) for part in parts for key in self.config.groups)
        return self._numbers.setdefault(says, len(self._numbers))

    collate = staticmethod(lambda rows: collate_text_motion(rows))


@dataclass(frozen=True)
class Entry:
    """A stretch of a clip (`end` not included) with the captions that are about it."""

    name: str
    start: int
    end: int
    captions: tuple[str, ...]
    group: int


class TextMotionDataset(Dataset[Row]):
    """`self[(index, seed)]` is a caption, a crop of its motion, and its group; the seed decides caption and crop."""

    def __init__(self, source: TextMotion, split: str):
        self.config, self.folder = source.config, source.folder
        self.entries: list[Entry] = []
        for name in self.folder.names(split):
            captions = self.folder.captions(name)
            if not captions:
                raise ValueError(f"clip {name!r} of split {split!r} has no caption in {self.folder.texts}")
            self.entries += self._entries(name, self.folder.frames(name), captions, source.group(name))
        if not self.entries:
            raise ValueError(f"split {split!r} of {self.folder.root} has no clip of {self.config.shortest} frames")
        names = {entry.name for entry in self.entries} if self.config.in_memory else set()
        self._motions = {name: self.folder.motion(name) for name in sorted(names)}
        longest = self.config.longest
        frames = [e.end - e.start if longest is None else min(e.end - e.start, longest) for e in self.entries]
        self.lengths: NDArray[np.int64] = np.array(frames)

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """The clip's name."""
        return self.entries[index].name

    def __getitem__(self, item: Item) -> Row:
        index, seed = item
        rng = np.random.default_rng(seed)
        entry, unit = self.entries[index], self.config.unit
        caption = entry.captions[int(rng.integers(len(entry.captions)))]
        frames = int(self.lengths[index]) // unit * unit - unit * bool(rng.random() < self.config.shorten_prob)
        start = entry.start + int(rng.integers(0, entry.end - entry.start - frames + 1))
        return caption, self._motion(entry.name)[start : start + frames], entry.group

    def plain(self, index: int) -> Row:
        """First caption, first frames."""
        entry = self.entries[index]
        frames = int(self.lengths[index]) // self.config.unit * self.config.unit
        return entry.captions[0], self._motion(entry.name)[entry.start : entry.start + frames], entry.group

    def _motion(self, name: str) -> Float32:
        return self._motions[name] if self.config.in_memory else self.folder.motion(name)

    def _entries(self, name: str, frames: int, captions: list[Caption], group: int) -> list[Entry]:
        """The full clip with its captions, and each part that a caption with times is about."""
        whole = tuple(caption.text for caption in captions if caption.start == 0 and caption.end == 0)
        spans = [(0, frames, whole)] if whole else []
        for caption in captions:
            if caption.end > caption.start:
                fps = self.config.fps or self.folder.motion_format.fps
                start, end = int(caption.start * fps), int(caption.end * fps)
                spans.append((min(start, frames), min(end, frames), (caption.text,)))
        return [Entry(name, a, b, texts, group) for a, b, texts in spans if b - a >= self.config.shortest]


def collate_text_motion(rows: list[Row]) -> TextMotionBatch:
    """Pad with zeros to the longest."""
    batch = collate_motions([("", motion) for _, motion, _ in rows])
    groups = torch.tensor([group for _, _, group in rows])
    return TextMotionBatch([caption for caption, _, _ in rows], batch.motion, batch.lengths, groups)
