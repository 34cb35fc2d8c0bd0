"""Who is asked among whom: pools of candidates, captions that count as one, and chance as a yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.metrics import Hits, hit_chances, hits_of, squared_distances

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
TOP = 3
_DISTANCES = 1 << 22  # held at a time


def pools(order: Ints, size: int, tail: str) -> list[tuple[Ints, Ints]]:
    """Queries and candidates of each pool. A "refill"ed last pool has fewer queries, and candidates from the start."""
    full = len(order) // size * size
    out = [(order[i : i + size], order[i : i + size]) for i in range(0, full, size)]
    if tail == "refill" and full < len(order):
        rest = order[full:]
        out.append((rest, np.concatenate([rest, order[: size - len(rest)]])))
    return out


def chances(text: Floats, motion: Floats, groups: Ints, queries: Ints, candidates: Ints, top_k: int = TOP) -> Hits:
    """How likely each query (q,) finds a right motion among the first 1 ... k of the candidates: chances (k, q).

    Right are motions of the query's group; equal distances are in random order (`metrics.hit_chances`). A query whose
    own motion failed (NaN) finds nothing, and a failed motion is nobody's.
    """
    failed = ~np.isfinite(motion[queries]).all(axis=1)
    asking = queries[~failed]
    out = Hits(np.zeros((top_k, len(queries))), np.zeros(len(queries), dtype=bool))
    if len(asking):
        pool = motion[candidates].astype(np.float64)
        right = groups[asking][:, None] == groups[candidates][None]
        absent = np.asarray(~np.isfinite(pool).all(axis=1))
        found = hit_chances(text[asking].astype(np.float64), pool, right, top_k, absent)
        out.chances[:, ~failed], out.tied[~failed] = found.chances, found.tied
    return out


def caption_groups(captions: Sequence[str]) -> Ints:
    """A number (n,) for each distinct caption; case, spaces and a final full stop do not make a difference."""
    plain = [" ".join(caption.casefold().split()).rstrip(". ") for caption in captions]
    return np.unique(np.asarray(plain, dtype=object).astype(str), return_inverse=True)[1].reshape(-1)


def chance_pools(groups: Ints, size: int, rng: Any) -> tuple[Ints, Ints]:
    """Captions (q,) and, for each, a pool (q, size) of motions none of which has that caption.

    The first motion of a pool is declared right. It is one of `size` that chance put in order, so that every evaluator,
    however good, finds it among the first k with probability k / size: no pool holds what the caption is about.
    Captions with fewer than `size` motions to choose from are left out.
    """
    n = len(groups)
    captions, order = rng.permutation(n), rng.permutation(n)
    width = min(n, size + int(np.bincount(groups).max()))
    window = order[(np.arange(n)[:, None] + np.arange(width)) % n]
    other = groups[window] != groups[captions][:, None]
    enough = other.sum(axis=1) >= size
    first = np.argsort(~other, axis=1, kind="stable")[:, :size]
    return captions[enough], np.take_along_axis(window, first, axis=1)[enough]


def chance_retrieval(
    text: Floats, motion: Floats, groups: Ints, size: int, streams: Sequence[Any], top_k: int = TOP
) -> list[tuple[Floats, float]]:
    """R@1 ... R@k (k,) and MM-Dist of captions with other clips' motions, for each stream of random numbers.

    Distances of all pairs are computed once, whatever the number of streams. Nothing for a stream in which no caption
    has enough motions of other captions.
    """
    drawn = [chance_pools(groups, size, rng) for rng in streams]
    hits: list[list[Floats]] = [[] for _ in drawn]
    apart: list[list[Floats]] = [[] for _ in drawn]
    motions, step = motion.astype(np.float64), max(1, _DISTANCES // len(motion))
    for start in range(0, len(text), step):
        squares, margin = squared_distances(text[start : start + step].astype(np.float64), motions)
        for number, (captions, pool) in enumerate(drawn):
            here = (captions >= start) & (captions < start + step)
            rows, columns = captions[here, None] - start, pool[here]
            right = np.broadcast_to(np.arange(size) == 0, columns.shape)
            hits[number].append(hits_of(squares[rows, columns], margin[rows, columns], right, top_k).chances)
            apart[number].append(np.sqrt(np.maximum(squares[rows[:, 0], columns[:, 0]], 0)))
    return [
        (np.concatenate(found, axis=1).mean(axis=1), float(np.concatenate(far).mean()))
        for (captions, _), found, far in zip(drawn, hits, apart, strict=True)
        if len(captions)
    ]
