"""Samples that cannot be read: named, and replaced by others up to a limit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hftrainer.data.order import Item

log = logging.getLogger(__name__)
_UNREADABLE = (ValueError, OSError, EOFError)  # a bug raises other things, and is not passed over


class BadSample(ValueError):
    """Samples that cannot be used; the message names the last one."""


class GuardedDataset(Dataset[Any]):
    """`dataset`, but a sample that cannot be read is replaced by one that its own seed draws, and a warning names it.

    So the order of training stays a function of seed and step. More than `limit` such samples (each counts once, over
    all workers of a process) raise `BadSample`; with ``limit=0`` the first one does.
    """

    def __init__(self, dataset: Any, limit: int):
        self.dataset, self.limit = dataset, limit
        self.bad = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Item) -> Any:
        return self._one(item)[1]

    def __getitems__(self, items: Sequence[Item]) -> Any:
        """A batch, as the data loader asks for it; drawn at once where the dataset can."""
        if not hasattr(self.dataset, "__getitems__"):
            return [self._one(item)[1] for item in items]
        try:
            return self.dataset.__getitems__(items)
        except _UNREADABLE:
            return self.dataset.__getitems__([self._one(item)[0] for item in items])

    def _one(self, item: Item) -> tuple[Item, Any]:
        """An item that can be read, and what it is."""
        draws = np.random.default_rng(item[1])
        while True:
            try:
                return item, self.dataset[item]
            except _UNREADABLE as error:
                self._note(item[0], error)
            item = (int(draws.integers(len(self.dataset))), item[1])

    def _note(self, index: int, error: Exception) -> None:
        if self.bad[index] and not self.bad.all():
            return
        self.bad[index] = True
        count = int(self.bad.sum())
        if count > self.limit or count == len(self.bad):
            more = f"; {count} of {len(self.bad)} samples are bad" if self.limit else ""
            raise BadSample(
                f"sample {self._name(index)} cannot be used: {error}{more}. Look for more with: hftrainer data verify; "
                f"max_bad_samples={max(1, 2 * self.limit)} would replace up to that many by other samples"
            ) from error
        log.warning("sample %s is skipped (%d of at most %d): %s", self._name(index), count, self.limit, error)

    def _name(self, index: int) -> str:
        name = getattr(self.dataset, "name", None)
        return f"{index} ({name(index)})" if name is not None else str(index)
