"""From an order of items to batches of like length, and the draws that make such an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
_NOISE = 0.25  # of a curriculum: how far an item may come before or after its turn, in units of all items


@dataclass(frozen=True)
class Size:
    """How large a batch is: so many `rows`, or as many as `tokens` hold (0: the other one counts)."""

    rows: int
    tokens: int = 0


def arrange(order: Int64, lengths: Int64, size: Size, bucket: int, rng: np.random.Generator, shuffled: bool) -> Any:
    """Batches (of numbers) from items in their `order`; a sequence of arrays.

    The order is cut into stretches of `bucket` batches, and each is sorted by length before it is cut into batches.
    The batches are shuffled, within their stretch unless `shuffled`. What is left over at the end makes no batch.
    """
    if not len(order):
        return []
    batches: Any
    if size.tokens:
        batches, stretches = _by_tokens(order, lengths, size.tokens, bucket)
    else:
        batches, stretches = _by_rows(order, lengths, size.rows, bucket)
    if shuffled:
        places = rng.permutation(len(batches))
    else:
        places = np.concatenate([[], *(start + rng.permutation(stop - start) for start, stop in stretches)]).astype(int)
    return batches[places] if isinstance(batches, np.ndarray) else [batches[i] for i in places.tolist()]


def _by_rows(order: Int64, lengths: Int64, rows: int, bucket: int) -> tuple[Int64, list[tuple[int, int]]]:
    count = len(order) // rows * rows
    order = order[:count].copy()
    stretch = max(1, bucket) * rows
    full = count // stretch * stretch
    for part in (order[:full].reshape(-1, stretch), order[full:].reshape(1, -1)):  # rows are sorted in one call
        part[:] = np.take_along_axis(part, np.argsort(lengths[part], axis=1, kind="stable"), axis=1)
    batches = order.reshape(-1, rows)
    edges = [*range(0, len(batches), max(1, bucket)), len(batches)]
    return batches, list(pairwise(edges))


def _by_tokens(order: Int64, lengths: Int64, tokens: int, bucket: int) -> tuple[list[Int64], list[tuple[int, int]]]:
    """Rows are padded to the longest of their batch and count one more, for END."""
    stretch = max(1, int(bucket * tokens / (lengths[order].mean() + 1)))
    batches: list[Int64] = []
    edges, left = [0], order[:0]
    for first in range(0, len(order), stretch):
        part = np.concatenate([left, order[first : first + stretch]])
        part = part[np.argsort(lengths[part], kind="stable")]
        start, sizes = 0, (lengths[part] + 1).tolist()
        for i, longest in enumerate(sizes):
            if (i + 1 - start) * longest > tokens:
                batches.append(part[start:i])
                start = i
        left = part[start:]
        edges.append(len(batches))
    return batches, list(pairwise(edges))


def draw(
    items: int,
    count: int,
    rng: np.random.Generator,
    weights: NDArray[np.float64] | None = None,
    shares: Sequence[tuple[int, int, float]] = (),
) -> Int64:
    """The `count` items of an epoch in a random order.

    Without `weights` no item comes twice before all have come once; with `shares`, of each stretch (start, stop, share)
    as many as its share.
    """
    if not shares:
        if weights is None:
            return np.asarray(rng.permutation(items)[:count])
        return np.asarray(rng.choice(items, size=count, p=weights / weights.sum()))
    total, parts = sum(share for _, _, share in shares), []
    ends = np.round(np.cumsum([share for _, _, share in shares]) / total * count).astype(int)
    for (start, stop, _), wanted in zip(shares, np.diff(ends, prepend=0).tolist(), strict=True):
        inside, found = stop - start, None if weights is None else weights[start:stop]
        passes = -(-wanted // inside) if found is None else 1
        chosen = [draw(inside, inside if found is None else wanted, rng, found) for _ in range(passes)]
        parts.append(start + np.concatenate(chosen)[:wanted] if wanted else np.zeros(0, dtype=np.int64))
    return np.asarray(rng.permutation(np.concatenate(parts)))


def short_first(order: Int64, lengths: Int64, strength: float, rng: np.random.Generator) -> Int64:
    """The order with short items before long ones, the more so the nearer `strength` is to 1."""
    rank = np.empty(len(order))
    rank[np.argsort(lengths[order], kind="stable")] = np.arange(len(order)) / len(order)
    noise = rng.random(len(order))
    return order[np.argsort(strength * (rank + _NOISE * noise) + (1 - strength) * noise, kind="stable")]
