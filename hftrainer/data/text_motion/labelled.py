"""Clips with their labels, for training a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hftrainer.config import renamed
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.motion.windows import collate_motions
from hftrainer.data.order import BatchPlan, Item, balanced_weights
from hftrainer.fields import number
from hftrainer.registry import DATASETS


class LabelledBatch(NamedTuple):
    """`motion` (b, t, width) in physical units with `lengths` (b,); indices of `content` (b,) and `style` (b,)."""

    motion: Tensor
    lengths: Tensor
    content: Tensor
    style: Tensor


@dataclass
class LabelledClipsConfig:
    """Clips of `train_split` that have one content; `shortest_crop` frames and up of each are shown."""

    root: str = "dataset/bandai"
    train_split: str = "train_aug"
    val_split: str | None = "val"
    batch_size: int = number(32, at_least=1)
    shortest_crop: int = number(40, at_least=1)
    longest: int = number(300, at_least=1)
    whole: float = number(0.5, at_least=0, at_most=1)
    balance_power: float = number(0.8, at_least=0, at_most=1)

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """Names of an earlier release."""
        return renamed(fields, path, {"evenness": "balance_power"})


@DATASETS.register("labelled_clips")
class LabelledClips:
    """Training crops and complete validation clips with content and style."""

    Config = LabelledClipsConfig

    def __init__(self, config: LabelledClipsConfig):
        self.config = config
        self.folder = DatasetFolder(config.root)
        self.statistics = self.folder.statistics()
        self.representation = self.folder.representation
        labels = self.folder.labels()
        self.labels = {
            name: label
            for name, label in labels.items()
            if "parts" not in label and {"content", "style"} <= label.keys()
        }
        self.contents = sorted({label["content"] for label in self.labels.values()})
        self.styles = sorted({label["style"] for label in self.labels.values()})

    def train(self) -> LabelledDataset:
        """Crops of the training split."""
        return LabelledDataset(self, self.config.train_split, crop=True)

    def plan(self, train: LabelledDataset, seed: int) -> BatchPlan:
        """Contents drawn evenly."""
        weights = balanced_weights(
            [self.labels[name]["content"] for name in train.names], balance_power=self.config.balance_power
        )
        return BatchPlan(np.minimum(train.lengths, self.config.longest), self.config.batch_size, seed, weights)

    def val(self) -> list[LabelledBatch]:
        """Whole clips of the validation split."""
        if self.config.val_split is None:
            return []
        dataset = LabelledDataset(self, self.config.val_split, crop=False)
        rows = [dataset[(i, 0)] for i in np.argsort(dataset.lengths, kind="stable")]
        size = self.config.batch_size
        return [collate_labelled(rows[i : i + size]) for i in range(0, len(rows), size)]

    collate = staticmethod(lambda rows: collate_labelled(rows))


class LabelledDataset(Dataset[tuple[np.ndarray, int, int]]):
    """A clip (or a crop of it), its content and its style."""

    def __init__(self, source: LabelledClips, split: str, *, crop: bool):
        self.source, self.crop = source, crop
        self.names = [name for name in source.folder.names(split) if name in source.labels]
        if not self.names:
            raise ValueError(
                f"split {split!r} of {source.folder.root} has no clip with one content and style in labels.json"
            )
        self.motions = [source.folder.motion(name) for name in self.names]
        self.lengths = np.array([len(motion) for motion in self.motions])

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The clip's name."""
        return self.names[index]

    def __getitem__(self, item: Item) -> tuple[np.ndarray, int, int]:
        index, seed = item
        motion, label = self.motions[index], self.source.labels[self.names[index]]
        config = self.source.config
        if self.crop:
            rng = np.random.default_rng(seed)
            longest = min(len(motion), config.longest)
            frames = longest
            if rng.random() > config.whole:
                frames = int(rng.integers(min(config.shortest_crop, longest), longest + 1))
            start = int(rng.integers(0, len(motion) - frames + 1))
            motion = motion[start : start + frames]
        motion = motion[: config.longest]
        return motion, self.source.contents.index(label["content"]), self.source.styles.index(label["style"])


def collate_labelled(rows: list[tuple[np.ndarray, int, int]]) -> LabelledBatch:
    """Pad with zeros to the longest."""
    batch = collate_motions([("", motion) for motion, _, _ in rows])
    return LabelledBatch(
        batch.motion, batch.lengths, torch.tensor([c for _, c, _ in rows]), torch.tensor([s for _, _, s in rows])
    )
