"""Captions and motion codes for the transformer. Text stays text: it is encoded in the training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.plan import BatchPlan, Item, balanced_weights
from hftrainer.data.tokens import TokenSet
from hftrainer.registry import DATASETS


class TokenBatch(NamedTuple):
    """`captions` (b strings), `codes` (b, l) int64, -1 past `lengths` (b,)."""

    captions: list[str]
    codes: Tensor
    lengths: Tensor


@dataclass
class TextTokensConfig:
    """Captions and tokens, and the release's rules as defaults.

    `drop_token`: chance that one code is dropped, at the end or at the start with equal chance. `keep`: share of codes
    that are kept, the others replaced by random ones (upstream's pkeep; -1 draws a share for each clip). A clip longer
    than `max_tokens` is cut to a random stretch of that length, or with `shortest_stretch` of any length from there on.
    `balance`: the label whose values are drawn equally often, to the degree `evenness`; clips whose label is "joined"
    make up the share `joined` of what is drawn.
    """

    root: str = "dataset/MotionMillion"
    tokens: str = "tokens"
    train_split: str = "train"
    val_split: str | None = "val"
    batch_size: int = 16
    max_tokens: int = 150
    shortest_stretch: int | None = None
    fps: float = 30.0
    drop_token: float = 1 / 3
    keep: float = 1.0
    balance: str | None = None
    evenness: float = 1.0
    joined: float | None = None
    val_batch_size: int = 16

    def __post_init__(self) -> None:
        if not (0 <= self.drop_token <= 1 and (0 <= self.keep <= 1 or self.keep == -1)):
            raise ValueError(f"drop_token and keep are shares, got {self.drop_token} and {self.keep}")


@DATASETS.register("text_tokens")
class TextTokens:
    """Training and validation pairs of a dataset folder that has been captioned and tokenized."""

    Config = TextTokensConfig

    def __init__(self, config: TextTokensConfig):
        self.config = config
        self.folder = DatasetFolder(config.root)
        self.tokens = TokenSet(self.folder.root / config.tokens)
        self.statistics = self.folder.statistics() if (self.folder.root / "mean_std").is_dir() else None

    def train(self) -> TextTokenDataset:
        """Pairs of the training split."""
        return TextTokenDataset(self, self.config.train_split)

    def plan(self, train: TextTokenDataset, seed: int) -> BatchPlan:
        """Order of training, balanced if asked for."""
        return BatchPlan(train.lengths, self.config.batch_size, seed, train.weights())

    def val(self) -> list[TokenBatch]:
        """Whole clips with their first caption, unaltered."""
        if self.config.val_split is None:
            return []
        dataset = TextTokenDataset(self, self.config.val_split)
        rows = [dataset.plain(i) for i in np.argsort(dataset.lengths, kind="stable")]
        size = self.config.val_batch_size
        return [collate_tokens(rows[i : i + size]) for i in range(0, len(rows), size)]

    collate = staticmethod(lambda rows: collate_tokens(rows))


class TextTokenDataset(Dataset[tuple[str, NDArray[np.int64]]]):
    """`self[(index, seed)]` is a caption and the codes of an entry of the token set, drawn by the seed."""

    def __init__(self, source: TextTokens, split: str):
        self.config, self.tokens, self.folder = source.config, source.tokens, source.folder
        wanted = set(self.folder.names(split))
        self.entries = [i for i, name in enumerate(self.tokens.names) if name in wanted]
        lacking = wanted - {self.tokens.names[i] for i in self.entries}
        if lacking:
            raise ValueError(
                f"{len(lacking)} clips of split {split!r} are not in {self.tokens.folder}, "
                f"e.g. {sorted(lacking)[0]!r}; tokenize again"
            )
        self.captions = {name: self.folder.captions(name) for name in wanted}
        empty = sorted(name for name, captions in self.captions.items() if not captions)
        if empty:
            raise ValueError(f"{len(empty)} clips of split {split!r} have no caption, e.g. {empty[0]!r}")
        self.lengths = np.minimum(self.tokens.lengths[self.entries], self.config.max_tokens)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, item: Item) -> tuple[str, NDArray[np.int64]]:
        index, seed = item
        rng = np.random.default_rng(seed)
        entry = self.entries[index]
        captions = self.captions[self.tokens.names[entry]]
        caption = captions[int(rng.integers(len(captions)))]
        return caption.text, self._augment(self._span(self.tokens[entry], caption), rng)

    def plain(self, index: int) -> tuple[str, NDArray[np.int64]]:
        """First caption, first codes."""
        entry = self.entries[index]
        caption = self.captions[self.tokens.names[entry]][0]
        return caption.text, self._span(self.tokens[entry], caption)[: self.config.max_tokens]

    def weights(self) -> NDArray[np.float64] | None:
        """How often each entry is drawn, or None for a plain permutation."""
        if self.config.balance is None:
            return None
        labels = self.folder.labels()
        groups = [str(labels[self.tokens.names[e]].get(self.config.balance, "")) for e in self.entries]
        weights = balanced_weights(groups, evenness=self.config.evenness)
        joined = np.array([group == "joined" for group in groups])
        if self.config.joined is not None and joined.any():
            weights[joined] *= self.config.joined / weights[joined].sum()
            weights[~joined] *= (1 - self.config.joined) / weights[~joined].sum()
        return weights

    def _span(self, codes: NDArray[np.int64], caption: Caption) -> NDArray[np.int64]:
        """The part of the clip that the caption is about."""
        if caption.start == 0 and caption.end == 0:
            return codes
        rate = self.config.fps / int(self.tokens.made_from["frames_per_code"])
        part = codes[int(caption.start * rate) : int(caption.end * rate)]
        return part if len(part) else codes

    def _augment(self, codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        longest = self.config.max_tokens
        if len(codes) > longest:
            stretch = int(rng.integers(self.config.shortest_stretch or longest, longest + 1))
            start = int(rng.integers(0, len(codes) - stretch + 1))
            codes = codes[start : start + stretch]
        if len(codes) > 1 and rng.random() < self.config.drop_token:
            codes = codes[1:] if rng.random() < 0.5 else codes[:-1]
        if self.config.keep != 1.0:
            keep = rng.random() if self.config.keep == -1 else self.config.keep
            noise = rng.integers(0, self.tokens.codebook_size, size=len(codes))
            codes = np.where(rng.random(len(codes)) < keep, codes, noise)
        return codes


def collate_tokens(rows: list[tuple[str, NDArray[np.int64]]]) -> TokenBatch:
    """Pad to the longest."""
    lengths = [len(codes) for _, codes in rows]
    out = torch.full((len(rows), max(lengths)), -1, dtype=torch.long)
    for row, (_, codes) in enumerate(rows):
        out[row, : len(codes)] = torch.from_numpy(codes)
    return TokenBatch([caption for caption, _ in rows], out, torch.tensor(lengths))
