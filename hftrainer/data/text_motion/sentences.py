"""Sentences with the embeddings that a teacher gave them, for distilling a text encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hftrainer.arrays import read_npy
from hftrainer.data.order import BatchPlan, Item
from hftrainer.fields import number
from hftrainer.files import atomic_path, write_json, write_text
from hftrainer.readers import FileError, read_text
from hftrainer.registry import DATASETS


class SentenceBatch(NamedTuple):
    """`texts` (b strings) and the teacher's unit vectors `embeddings` (b, c)."""

    texts: list[str]
    embeddings: Tensor


@dataclass
class SentencesConfig:
    """`root` holds sentences.txt and teacher.npy; the last `val_count` sentences are for validation."""

    root: str = "runs/nano_text/corpus"
    batch_size: int = number(256, at_least=1)
    val_count: int = number(2000, at_least=0)


@DATASETS.register("sentences")
class Sentences:
    """A corpus made by `write_corpus`."""

    Config = SentencesConfig

    def __init__(self, config: SentencesConfig):
        self.config = config
        self.statistics = None
        root = Path(config.root)
        if not (root / "teacher.npy").is_file():
            raise ValueError(f"{config.root!r} has no corpus; make it with: python tools/make_text_corpus.py")
        self.texts = read_text(root / "sentences.txt", 1 << 30).splitlines()
        self.embeddings = read_npy(root / "teacher.npy", shape=(None, None), mapped=True)
        if len(self.texts) != len(self.embeddings) or len(self.texts) <= config.val_count:
            raise FileError(f"{root}: {len(self.texts)} sentences and {len(self.embeddings)} embeddings")

    def train(self) -> SentenceDataset:
        """All but the last `val_count`."""
        count = len(self.texts) - self.config.val_count
        return SentenceDataset(self.texts[:count], self.embeddings[:count])

    def plan(self, train: SentenceDataset, seed: int) -> BatchPlan:
        """Batches of like length."""
        return BatchPlan(np.array([len(text) for text in train.texts]), self.config.batch_size, seed, bucket=20)

    def val(self) -> list[SentenceBatch]:
        """The last `val_count`."""
        held = SentenceDataset(self.texts[-self.config.val_count :], self.embeddings[-self.config.val_count :])
        rows = [held[(i, 0)] for i in np.argsort([len(text) for text in held.texts], kind="stable")]
        size = self.config.batch_size
        return [collate_sentences(rows[i : i + size]) for i in range(0, len(rows), size)]

    collate = staticmethod(lambda rows: collate_sentences(rows))


class SentenceDataset(Dataset[tuple[str, NDArray[np.float16]]]):
    """Sentence and embedding by index; nothing is random."""

    def __init__(self, texts: Sequence[str], embeddings: NDArray[np.float16]):
        self.texts, self.embeddings = texts, embeddings

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, item: Item) -> tuple[str, NDArray[np.float16]]:
        return self.texts[item[0]], self.embeddings[item[0]]


def collate_sentences(rows: list[tuple[str, NDArray[np.float16]]]) -> SentenceBatch:
    """Texts and stacked embeddings."""
    return SentenceBatch([t for t, _ in rows], torch.from_numpy(np.stack([e for _, e in rows])).float())


def write_corpus(
    root: str | os.PathLike[str], texts: Sequence[str], embeddings: NDArray[np.float16], teacher: str
) -> None:
    """Write what `Sentences` reads."""
    root = Path(root)
    write_text(root / "sentences.txt", "".join(f"{text}\n" for text in texts))
    with atomic_path(root / "teacher.npy") as temporary, open(temporary, "wb") as stream:
        np.save(stream, embeddings)
    write_json(root / "made_from.json", {"teacher": teacher, "sentences": len(texts)})
