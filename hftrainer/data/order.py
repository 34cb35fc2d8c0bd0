"""The order of training: which items make up the n-th batch, as a pure function of a seed and n.

Nothing is remembered between batches, so a run that stops after batch n goes on with batch n + 1 exactly as it would
have, on any number of data-loading workers. Every item carries its own seed for what is random about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Item = tuple[int, int]  # (index in the dataset, seed of this draw)


@dataclass
class BatchPlan:
    """Batches without end over `lengths.size` items.

    `weights` draws items with replacement in proportion to them; without, every epoch is a permutation. Items of like
    length are put together: the epoch's order is cut into stretches of `bucket` batches and each stretch is sorted by
    length before it is cut into batches, which are then shuffled. The incomplete batch at an epoch's end is left out.
    """

    lengths: NDArray[np.int64]
    batch_size: int
    seed: int
    weights: NDArray[np.float64] | None = None
    bucket: int = 50
    _epochs: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or len(self.lengths) < self.batch_size:
            raise ValueError(
                f"a batch of {self.batch_size} items cannot be made of {len(self.lengths)}; lower batch_size"
            )

    @cached_property
    def batches_per_epoch(self) -> int:
        """Whole batches in one pass."""
        return len(self.lengths) // self.batch_size

    def batch(self, number: int) -> list[Item]:
        """The items of batch `number`, counted from 0 over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch not in self._epochs:
            self._epochs = {epoch: self._arrange(epoch)}  # one epoch at a time
        rows = self._epochs[epoch][place]
        seeds = np.random.default_rng([self.seed, 2, number]).integers(0, 2**62, size=len(rows))
        return list(zip(rows.tolist(), seeds.tolist(), strict=True))

    def _arrange(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, 1, epoch])
        count = self.batches_per_epoch * self.batch_size
        if self.weights is None:
            order = rng.permutation(len(self.lengths))[:count]
        else:
            order = rng.choice(len(self.lengths), size=count, p=self.weights / self.weights.sum())
        stretch = max(1, self.bucket) * self.batch_size
        whole = count // stretch * stretch
        for part in (order[:whole].reshape(-1, stretch), order[whole:].reshape(1, -1)):  # rows are sorted in one call
            part[:] = np.take_along_axis(part, np.argsort(self.lengths[part], axis=1, kind="stable"), axis=1)
        batches = order.reshape(-1, self.batch_size)
        return batches[rng.permutation(len(batches))]


class PlanSampler(Sampler[list[Item]]):
    """Batches of a plan for one process: every `world`-th one from `start` (counted per process) on, without end."""

    def __init__(self, plan: BatchPlan, *, start: int = 0, rank: int = 0, world: int = 1):
        self.plan, self.start, self.rank, self.world = plan, start, rank, world

    def __iter__(self) -> Iterator[list[Item]]:
        number = self.start
        while True:
            yield self.plan.batch(number * self.world + self.rank)
            number += 1


def balanced_weights(groups: Sequence[str], *, evenness: float = 1.0) -> NDArray[np.float64]:
    """Weights under which each group is drawn equally often; `evenness` 0 leaves every item equal, 0.5 is between."""
    numbers: dict[str, int] = {}
    return weights_of_groups(np.array([numbers.setdefault(g, len(numbers)) for g in groups]), evenness=evenness)


def weights_of_groups(groups: NDArray[np.integer[Any]], *, evenness: float = 1.0) -> NDArray[np.float64]:
    """The same for groups that have numbers, 0 and up."""
    weights: NDArray[np.float64] = np.bincount(groups)[groups].astype(np.float64) ** -evenness
    return weights
