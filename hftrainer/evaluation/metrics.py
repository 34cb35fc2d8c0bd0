"""Metrics of text-to-motion in an evaluator's space, each a function of embeddings and of what it draws.

Embeddings are (n, d), row i of texts belonging to row i of motions. Sums are in float64; NaN is an error. The formulas
are those of Guo et al. (CVPR 2022, text-to-motion) unless a docstring says what differs.

    frechet_distance    FID, on embeddings as they are or, by another name, on unit vectors
    r_precision         how often a text finds its motion among the first k of a pool
    matching_distance   mean distance of a text to its motion (MM-Dist)
    diversity           mean distance of random pairs of motions
    multimodality       the same between motions of one text
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Random = np.random.Generator | np.random.RandomState  # the older kind is what published draws were made with

_TIE = 1e-12  # squared distances that differ by less, relative to the vectors' squared lengths, are equal


def frechet_distance(real: Any, generated: Any, normalize: bool = False) -> float:
    """Fréchet distance of Gaussians fitted to real (n, d) and generated (m, d) embeddings.

    `normalize` takes it on vectors scaled to length 1: another metric (at most 4), to be reported under another name.

    tr sqrt(S1 S2) is the sum of the square roots of the eigenvalues of the symmetric R' S2 R, where S1 = R R', so
    nothing becomes complex and nothing has to be added to a singular covariance: directions in which S1 does not vary
    are left out, S1 being that of the smaller set.
    """
    a, b = _embeddings(real, "real", rows=2), _embeddings(generated, "generated", rows=2)
    _same_width(a, b, "real", "generated")
    if normalize:
        a, b = unit_vectors(a), unit_vectors(b)
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    s1, s2 = _covariance(small), _covariance(large)
    root = _root(s1)
    spread = np.asarray(np.linalg.eigvalsh(root.T @ s2 @ root), dtype=np.float64)
    overlap = np.sqrt(spread[_above_rounding(spread)]).sum()
    apart = a.mean(axis=0) - b.mean(axis=0)
    return max(0.0, float(apart @ apart + np.trace(s1) + np.trace(s2) - 2 * overlap))  # rounding may go below


def _covariance(rows: Float64) -> Float64:
    """Covariance (d, d) with divisor n - 1; a product with its own transpose takes half the work of numpy's `cov`."""
    centred = rows - rows.mean(axis=0)
    return np.asarray(centred.T @ centred / (len(rows) - 1))


def _root(covariance: Float64) -> Float64:
    """R (d, r) with R R' = covariance; r is its rank where that is seen to be below d."""
    try:
        return np.asarray(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:  # singular
        values, vectors = np.linalg.eigh(covariance)
        kept = _above_rounding(values)
        return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _above_rounding(values: Float64) -> NDArray[np.bool_]:
    """Which of a covariance's eigenvalues (ascending) are more than rounding errors of zero."""
    if not len(values):
        return np.zeros(0, dtype=bool)
    return np.asarray(values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps)


def unit_vectors(embeddings: Any) -> Float64:
    """Embeddings (n, d) scaled to length 1; a vector without a direction is an error."""
    rows = _embeddings(embeddings, "embeddings")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if (lengths < 1e-12).any():
        raise ValueError(f"embedding {int(np.argmin(lengths))} is zero and cannot be normalized")
    return np.asarray(rows / lengths)


def r_precision(
    text: Any, motion: Any, top_k: int = 3, pool: int = 32, groups: Sequence[Hashable] | None = None
) -> Float64:
    """Share of texts (n, d) whose motion is among the k nearest of its pool, for k = 1 ... top_k.

    Pools are `pool` consecutive rows; rows that do not fill one are left out, as in the published protocols (shuffle
    the rows, or see `hftrainer.evaluation.protocols`). With `groups`, every motion of the text's group is right, so a
    caption that two clips share is not held against either. Equal distances count as their order at random would, on
    average: an evaluator that sees all motions as one scores k / pool.
    """
    a, b = _pairs(text, motion)
    if not 1 <= top_k <= pool:
        raise ValueError(f"top_k must be between 1 and pool={pool}, got {top_k}")
    pools = len(a) // pool
    if pools == 0:
        raise ValueError(f"{len(a)} pairs do not fill a pool of {pool}")
    a, b = (x[: pools * pool].reshape(pools, pool, -1) for x in (a, b))
    right = np.broadcast_to(np.eye(pool, dtype=bool), (pools, pool, pool))
    if groups is not None:
        number = _numbered(groups, len(text))[: pools * pool].reshape(pools, pool)
        right = number[:, :, None] == number[:, None, :]
    return np.asarray(hit_chances(a, b, right, top_k).chances.mean(axis=(1, 2)))


class Hits(NamedTuple):
    """`chances` (k, ..., texts) of a right motion among the first k: 0 or 1 where no distances are equal. `tied`: where
    a wrong motion is exactly as near as the nearest right one."""

    chances: Float64
    tied: NDArray[np.bool_]


def hit_chances(
    text: Float64, motion: Float64, right: NDArray[np.bool_], top_k: int, absent: NDArray[np.bool_] | None = None
) -> Hits:
    """Chances that texts (..., t, d) find one of their right motions of a pool (..., m, d) among the first k.

    The tie rule of everything here: motions at one distance come in random order, so a text whose right motion is level
    with wrong ones has a chance between 0 and 1. `right` (..., t, m) are a text's right answers, at least one for each;
    `absent` (..., m) motions are in no order and nobody's right ones (their values do not count).
    """
    b = motion if absent is None else np.where(absent[..., None], 0.0, motion)
    squares, margin = squared_distances(text, b)
    if absent is not None:
        squares = np.where(absent[..., None, :], np.inf, squares)
        right = right & ~absent[..., None, :]
    return hits_of(squares, margin, right, top_k)


def squared_distances(text: Float64, motion: Float64) -> tuple[Float64, Float64]:
    """Squared distances (..., t, m) of texts (..., t, d) and motions (..., m, d), and below which difference two of
    them are equal."""
    lengths = (text * text).sum(axis=-1)[..., :, None] + (motion * motion).sum(axis=-1)[..., None, :]
    return lengths - 2 * text @ np.swapaxes(motion, -1, -2), _TIE * lengths


def hits_of(squares: Float64, margin: Float64, right: NDArray[np.bool_], top_k: int) -> Hits:
    """`hit_chances` from squared distances (..., t, m); infinite ones are in no order."""
    best = np.where(right, squares, np.inf).min(axis=-1, keepdims=True)
    if not np.isfinite(best).all():
        raise ValueError("a text has no matching motion in its pool, so it has no rank")
    before = (squares < best - margin).sum(axis=-1)
    level = np.abs(squares - best) <= margin
    level_right, level_wrong = (level & right).sum(axis=-1), (level & ~right).sum(axis=-1)
    missed, chances = np.ones(before.shape), []
    for k in range(1, top_k + 1):
        drawn = np.maximum(k - before, 0)  # places left for those that are level
        taken = np.maximum(drawn - 1, 0)  # by wrong ones, if none was right so far
        wrong_left = np.maximum(level_wrong - taken, 0)
        missed = np.where(drawn > 0, missed * wrong_left / np.maximum(wrong_left + level_right, 1), missed)
        chances.append(1 - missed)
    return Hits(np.stack(chances), np.asarray(level_wrong > 0))


def matching_distance(text: Any, motion: Any) -> float:
    """Mean Euclidean distance of texts (n, d) and their motions (n, d)."""
    a, b = _pairs(text, motion)
    return float(np.linalg.norm(a - b, axis=1).mean())


def diversity_unit_l1(embeddings: Any, pairs: int = 300, rng: Random | int = 0) -> float:
    """Mean L1 distance of `pairs` random pairs of unit vectors: what the MotionCLIP-135 table calls diversity."""
    rows = unit_vectors(embeddings)
    first, second = _pairs_of(len(rows), pairs, rng)
    return float(np.abs(rows[first] - rows[second]).sum(axis=1).mean())


def diversity(embeddings: Any, pairs: int = 300, rng: Random | int = 0) -> float:
    """Mean distance of `pairs` random pairs of rows; both halves of the pairs are drawn without replacement.

    Published figures drew from numpy's old generator: ``rng=np.random.RandomState(seed)`` gives the same pairs.
    """
    rows = _embeddings(embeddings, "embeddings")
    first, second = _pairs_of(len(rows), pairs, rng)
    return float(np.linalg.norm(rows[first] - rows[second], axis=1).mean())


def _pairs_of(count: int, pairs: int, rng: Random | int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not 1 <= pairs <= count:
        raise ValueError(f"{pairs} pairs cannot be drawn without replacement from {count} embeddings; set pairs=")
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    return rng.choice(count, pairs, replace=False), rng.choice(count, pairs, replace=False)


def multimodality(embeddings: Any, pairs: int = 10, rng: Random | int = 0) -> float:
    """Mean distance between motions of the same text, of embeddings (texts, motions, d).

    The same random pairs are compared for every text, as published.
    """
    sets = np.asarray(embeddings, dtype=np.float64)
    if sets.ndim != 3:
        raise ValueError(f"embeddings must be (texts, motions, d), got {sets.shape}")
    _finite(sets, "embeddings")
    if not 1 <= pairs <= sets.shape[1]:
        raise ValueError(f"{pairs} pairs cannot be drawn from {sets.shape[1]} motions per text; set pairs=")
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    first, second = (rng.choice(sets.shape[1], pairs, replace=False) for _ in range(2))
    return float(np.linalg.norm(sets[:, first] - sets[:, second], axis=-1).mean())


# --- checks -----------------------------------------------------------------------------------------------------------


def _embeddings(values: Any, name: str, rows: int = 1) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or len(array) < rows or array.shape[1] == 0:
        raise ValueError(f"{name}: expected embeddings (n, d) with n at least {rows}, got {array.shape}")
    _finite(array, name)
    return array


def _pairs(text: Any, motion: Any) -> tuple[Float64, Float64]:
    a, b = _embeddings(text, "text"), _embeddings(motion, "motion")
    _same_width(a, b, "text", "motion")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} texts and {len(b)} motions: expected one motion per text")
    return a, b


def _same_width(a: Float64, b: Float64, first: str, second: str) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{first} embeddings have {a.shape[1]} dimensions, {second} ones {b.shape[1]}")


def _finite(array: Float64, name: str) -> None:
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{name}: row {int(bad[0])} holds a NaN or infinite value")


def _numbered(groups: Sequence[Hashable], count: int) -> NDArray[np.int64]:
    if len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} pairs")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
