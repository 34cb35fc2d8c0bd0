"""The order of training: which items make up the n-th batch, as a pure function of a seed and a position.

A run that stops after batch n continues with batch n + 1 exactly as it would have, on any number of data-loading
workers or processes. Every item carries its own seed for what is random about it. A position counts samples: with
another batch size the rest of an epoch is cut again, and each item is still seen once in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from hftrainer.data.batching import Size, arrange, draw, short_first

Item = tuple[int, int]  # (index in the dataset, seed of this draw)
Int64 = NDArray[np.int64]
_KEPT = 256  # epochs: loading is ahead of the checkpoints by a few batches, which may be as many epochs


@dataclass(frozen=True)
class Position:
    """How far a run has come: `batches` and `samples` in all, the `epoch` at hand, and what of it is `done`, as batch
    sizes with the number of batches of each."""

    batches: int = 0
    samples: int = 0
    epoch: int = 0
    done: tuple[tuple[Size, int], ...] = ()

    def plain(self) -> dict[str, Any]:
        """For a checkpoint."""
        done = [[size.rows, size.tokens, count] for size, count in self.done]
        return {"batches": self.batches, "samples": self.samples, "epoch": self.epoch, "done": done}

    @classmethod
    def from_plain(cls, state: dict[str, Any]) -> Position:
        """The inverse of `plain`."""
        done = tuple((Size(rows, tokens), count) for rows, tokens, count in state["done"])
        return cls(state["batches"], state["samples"], state["epoch"], done)


@dataclass(frozen=True)
class _Epoch:
    """An epoch from the position on at which this plan takes it up: items that came `before`, `rows` of each batch."""

    start: Position
    before: int
    rows: Int64


@dataclass
class BatchPlan:
    """Batches without end over `lengths.size` items.

    `weights` draws items with replacement in proportion to them; without, every epoch is a permutation. `shares`:
    stretches of items (start, stop) and the share of each epoch that is theirs. Items of like length are put together:
    the epoch's order is cut into stretches of `bucket` batches and each stretch is sorted by length before it is cut
    into batches, which are then shuffled. A batch has `batch_size` items, or as many as `max_tokens` hold when each is
    padded to the longest and counts one more (END). What is left over at an epoch's end makes no batch.

    `curriculum`: epochs over which short items come before long ones, less and less so.
    """

    lengths: Int64
    batch_size: int
    seed: int
    weights: NDArray[np.float64] | None = None
    bucket: int = 50
    max_tokens: int = 0
    shares: Sequence[tuple[int, int, float]] = ()
    curriculum: float = 0.0
    start: Position = field(default_factory=Position)
    _epochs: deque[_Epoch] = field(default_factory=deque, repr=False)
    _held: tuple[Position, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.max_tokens:
            longest = int(self.lengths.max(initial=0)) + 1
            if self.max_tokens < longest:
                raise ValueError(f"max_tokens={self.max_tokens} is smaller than the longest row, {longest}")
        elif self.batch_size < 1 or len(self.lengths) < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} exceeds the number of items, {len(self.lengths)}; lower batch_size"
            )

    @property
    def size(self) -> Size:
        """How large a batch is."""
        return Size(0, self.max_tokens) if self.max_tokens else Size(self.batch_size)

    def start_at(self, position: Position) -> None:
        """Continue from a position."""
        self.start, self._held = position, None
        self._epochs.clear()

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one pass; where tokens are counted, in the first."""
        return len(self._make(self.start).rows) if self.max_tokens else len(self.lengths) // self.batch_size

    def batch(self, number: int) -> list[Item]:
        """The items of batch `number`, counted from 0 over all epochs."""
        epoch = self._find(number)
        rows = self._batches(epoch)[number - epoch.start.batches]
        seeds = np.random.default_rng([self.seed, 2, number]).integers(0, 2**62, size=len(rows))
        return list(zip(rows.tolist(), seeds.tolist(), strict=True))

    def position(self, batches: int) -> Position:
        """Where a run is that has taken so many batches in all."""
        epoch = self._find(batches)
        count, start = batches - epoch.start.batches, epoch.start
        done = start.done
        if count and done and done[-1][0] == self.size:
            done = (*done[:-1], (self.size, done[-1][1] + count))
        elif count:
            done = (*done, (self.size, count))
        return Position(batches, start.samples + int(epoch.rows[:count].sum()), start.epoch, done)

    def epochs(self, batches: int) -> float:
        """Passes over the data after so many batches."""
        epoch = self._find(batches)
        rows = int(epoch.rows[: batches - epoch.start.batches].sum())
        return epoch.start.epoch + (epoch.before + rows) / max(1, epoch.before + int(epoch.rows.sum()))

    def _find(self, number: int) -> _Epoch:
        """The epoch that holds a batch. The newest ones are kept: a run looks for one batch after the other."""
        if number < self.start.batches:
            raise ValueError(f"batch {number} is before the resume position ({self.start.batches})")
        if not self._epochs or number < self._epochs[0].start.batches:
            self._epochs = deque([self._make(self.start)], maxlen=_KEPT)
        while number >= (last := self._epochs[-1]).start.batches + len(last.rows):
            if not len(last.rows) and last.start.epoch > self.start.epoch:  # the first may be used up
                raise ValueError("an epoch of these items has no batch")
            samples = last.start.samples + int(last.rows.sum())
            self._epochs.append(
                self._make(Position(last.start.batches + len(last.rows), samples, last.start.epoch + 1))
            )
        return next(epoch for epoch in reversed(self._epochs) if number >= epoch.start.batches)

    def _make(self, start: Position) -> _Epoch:
        batches, before = self._arrange(start)
        self._held = (start, batches)
        return _Epoch(start, before, np.array([len(rows) for rows in batches], dtype=np.int64))

    def _batches(self, epoch: _Epoch) -> Any:
        """The batches of an epoch; one epoch's are kept at a time."""
        if self._held is None or self._held[0] != epoch.start:
            self._held = (epoch.start, self._arrange(epoch.start)[0])
        return self._held[1]

    def _arrange(self, start: Position) -> tuple[Any, int]:
        """The batches of an epoch from a position in it on, and how many items came before."""
        rng = np.random.default_rng([self.seed, 1, start.epoch])
        before, count = 0, len(self.lengths)
        first = start.done[0][0] if start.done else self.size
        if self.weights is not None and first.rows:
            count = count // first.rows * first.rows
        order = draw(len(self.lengths), count, rng, self.weights, self.shares)
        strength = 1 - start.epoch / self.curriculum if self.curriculum else 0.0
        if strength > 0:
            order = short_first(order, self.lengths, strength, rng)
        for number, (size, taken) in enumerate(start.done, 1):  # what other batch sizes have used of this epoch
            batches = arrange(np.arange(len(order)), self.lengths[order], size, self.bucket, rng, strength <= 0)
            used = np.zeros(len(order), dtype=bool)
            for rows in batches[:taken]:
                used[rows] = True
            before += int(used.sum())
            if size == self.size and number == len(start.done):  # the same size: as if nothing had happened
                return [order[rows] for rows in batches[taken:]], before
            order, rng = order[~used], np.random.default_rng([self.seed, 1, start.epoch, number])
        batches = arrange(np.arange(len(order)), self.lengths[order], self.size, self.bucket, rng, strength <= 0)
        return (order[batches] if isinstance(batches, np.ndarray) else [order[rows] for rows in batches]), before


class PlanSampler(Sampler[list[Item]]):
    """Batches of a plan for one process: every `world`-th one from its start on, without end."""

    def __init__(self, plan: BatchPlan, *, rank: int = 0, world: int = 1):
        self.plan, self.rank, self.world = plan, rank, world

    def __iter__(self) -> Iterator[list[Item]]:
        number = self.plan.start.batches + self.rank
        while True:
            yield self.plan.batch(number)
            number += self.world


def balanced_weights(groups: Sequence[str], *, balance_power: float = 1.0) -> NDArray[np.float64]:
    """Weights under which each group is drawn equally often; `balance_power` 0 leaves every item equal."""
    numbers: dict[str, int] = {}
    return weights_of_groups(
        np.array([numbers.setdefault(g, len(numbers)) for g in groups]), balance_power=balance_power
    )


def weights_of_groups(groups: NDArray[np.integer[Any]], *, balance_power: float = 1.0) -> NDArray[np.float64]:
    """The same for groups that have numbers, 0 and up."""
    weights: NDArray[np.float64] = np.bincount(groups)[groups].astype(np.float64) ** -balance_power
    return weights
