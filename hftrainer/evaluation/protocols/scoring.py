"""Embeddings to figures, by a protocol's rules. The metrics themselves are `hftrainer.evaluation.metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.metrics import Hits, hit_chances, multimodality
from hftrainer.evaluation.protocols.plan import stream
from hftrainer.evaluation.protocols.schema import Protocol

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

TOP = 3
_DIVERSITY_SEED, _MULTIMODALITY_SEED = 100, 200


@dataclass(frozen=True)
class Metrics:
    """The arithmetic: `frechet_distance(real, generated, normalize=)`, `r_precision(text, motion, top_k=, pool=)`,
    `matching_distance(text, motion)`, `diversity(embeddings, pairs=, rng=)`."""

    frechet_distance: Callable[..., float]
    r_precision: Callable[..., Floats]
    matching_distance: Callable[..., float]
    diversity: Callable[..., float]


def package_metrics() -> Metrics:
    """Those of `hftrainer.evaluation.metrics`."""
    module = import_module("hftrainer.evaluation.metrics")
    return Metrics(module.frechet_distance, module.r_precision, module.matching_distance, module.diversity)


@dataclass(frozen=True)
class Row:
    """Pairs of embeddings (n, d) of captions and motions, and the captions.

    A motion of NaN is a failure: a wrong answer to its caption and nobody's right one.
    """

    text: Floats
    motion: Floats
    captions: Sequence[str]


@dataclass
class Figures:
    """Values of every metric, repeat by repeat, and what was counted."""

    values: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Note one repeat's value."""
        self.values.setdefault(name, []).append(float(value))

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean of each metric, and the 95 % interval of that mean over repeats: 1.96 standard deviations / sqrt(n)."""
        return {
            name: {"mean": float(np.mean(v)), "ci95": 1.96 * float(np.std(v)) / len(v) ** 0.5, "n": len(v)}
            for name, v in self.values.items()
        }


def score(
    protocol: Protocol,
    real: Row,
    predicted: Row | None = None,
    *,
    references: Mapping[str, Floats] | None = None,
    second: Floats | None = None,
    metrics: Metrics | None = None,
    repeats: int | None = None,
    first_repeat: int = 0,
) -> dict[str, Figures]:
    """Figures of the rows "predicted" (if there is one), "real", "split_half" and "random_caption".

    `references`: other embeddings (n, d) of the real clips to measure FID against ("refk": re-posed on one skeleton).
    `second`: embeddings of a second drawing of the real clips, the reference of FID where the protocol has one.
    """
    metrics = metrics or package_metrics()
    _check(protocol, real, predicted)
    rows = {"predicted": predicted, "real": real} if predicted is not None else {"real": real}
    out = {name: Figures() for name in (*rows, "split_half", "random_caption")}
    rng = stream(protocol, first_repeat)
    for repeat in range(first_repeat, first_repeat + (repeats or protocol.repeats)):
        if protocol.generator == "legacy":
            rng = stream(protocol, repeat)  # these protocols start again from a seed at each step
        orders = _orders(protocol, {name: len(row.text) for name, row in rows.items() if row is not None}, repeat, rng)
        shown = {name: _shown(protocol, order) for name, order in orders.items()}
        for name, row in rows.items():
            assert row is not None
            _retrieval(out[name], protocol, row, orders[name], metrics)
        for name in reversed(rows):  # real before predicted, where both draw from one stream
            row = rows[name]
            assert row is not None
            _diversity(out[name], protocol, row.motion, shown[name], repeat, rng, metrics)
        _frechet(out, protocol, rows, shown, references or {}, second, metrics)
        _split_half(out["split_half"], protocol, real, repeat, metrics)
        _random_caption(out["random_caption"], protocol, real, repeat, metrics)
    return out


def _check(protocol: Protocol, real: Row, predicted: Row | None) -> None:
    for name, row in (("real", real), ("predicted", predicted)):
        if row is None:
            continue
        if not len(row.text) == len(row.motion) == len(row.captions):
            raise ValueError(f"{name}: {len(row.text)} texts, {len(row.motion)} motions, {len(row.captions)} captions")
        if len(row.text) < protocol.batches.size:
            raise ValueError(
                f"{name}: {len(row.text)} items are less than one pool of {protocol.batches.size}; "
                "judge more clips, or change batches.size, which makes another protocol"
            )
        bad = ~np.isfinite(row.motion).all(axis=1)
        if not np.isfinite(row.text).all() or (bad.any() and (name == "real" or protocol.missing != "failure")):
            raise ValueError(f"{name}: embeddings hold NaN or infinite values ({int(bad.sum())} motions)")


# --- order ------------------------------------------------------------------------------------------------------------


def _orders(protocol: Protocol, sizes: Mapping[str, int], repeat: int, rng: Any) -> dict[str, Ints]:
    """A shuffled order of each row; rows of one size share it."""
    made: dict[int, Ints] = {}
    for size in sizes.values():
        if size not in made:
            source = stream(protocol, repeat) if protocol.generator == "legacy" else rng
            made[size] = source.permutation(size)
    return {name: made[size] for name, size in sizes.items()}


def _shown(protocol: Protocol, order: Ints) -> Ints:
    """The items that FID and diversity are computed over."""
    size = protocol.batches.size
    return order if protocol.metrics.fid_items == "all" else order[: len(order) // size * size]


def pools(order: Ints, size: int, tail: str) -> list[tuple[Ints, Ints]]:
    """Queries and candidates of each pool. A "refill"ed last pool has fewer queries, and candidates from the start."""
    whole = len(order) // size * size
    out = [(order[i : i + size], order[i : i + size]) for i in range(0, whole, size)]
    if tail == "refill" and whole < len(order):
        rest = order[whole:]
        out.append((rest, np.concatenate([rest, order[: size - len(rest)]])))
    return out


# --- retrieval --------------------------------------------------------------------------------------------------------


def _retrieval(figures: Figures, protocol: Protocol, row: Row, order: Ints, metrics: Metrics) -> None:
    size, whole = protocol.batches.size, len(order) // protocol.batches.size * protocol.batches.size
    if protocol.metrics.positives == "diagonal" and protocol.batches.tail == "drop":
        used = order[:whole]
        precision = metrics.r_precision(row.text[used], row.motion[used], top_k=TOP, pool=size)
        figures.counts["retrieval_items"] = len(used)
    else:
        used = order
        groups = caption_groups(row.captions)
        if protocol.metrics.positives == "diagonal":
            groups = np.arange(len(order))
        found = [chances(row.text, row.motion, groups, *pool) for pool in pools(order, size, protocol.batches.tail)]
        precision = np.concatenate([pool.chances for pool in found], axis=-1).mean(axis=-1)
        tied = np.concatenate([pool.tied for pool in found])
        figures.add("tie_share", tied.mean())
        figures.counts["retrieval_items"] = len(tied)
    for k in range(TOP):
        figures.add(f"r_precision_{k + 1}", precision[k])
    real = used[np.isfinite(row.motion[used]).all(axis=1)]
    figures.counts["failures"] = len(used) - len(real)
    figures.add("matching_distance", metrics.matching_distance(row.text[real], row.motion[real]))


def chances(text: Floats, motion: Floats, groups: Ints, queries: Ints, candidates: Ints) -> Hits:
    """How likely each query (q,) finds a right motion among the first 1 ... 3 of the candidates: chances (3, q).

    Right are motions of the query's group; equal distances are in random order (`metrics.hit_chances`). A query whose
    own motion failed (NaN) finds nothing, and a failed motion is nobody's.
    """
    failed = ~np.isfinite(motion[queries]).all(axis=1)
    asking = queries[~failed]
    out = Hits(np.zeros((TOP, len(queries))), np.zeros(len(queries), dtype=bool))
    if len(asking):
        pool = motion[candidates].astype(np.float64)
        right = groups[asking][:, None] == groups[candidates][None]
        absent = np.asarray(~np.isfinite(pool).all(axis=1))
        found = hit_chances(text[asking].astype(np.float64), pool, right, TOP, absent)
        out.chances[:, ~failed], out.tied[~failed] = found.chances, found.tied
    return out


def caption_groups(captions: Sequence[str]) -> Ints:
    """A number (n,) for each distinct caption; case, spaces and a final full stop do not make a difference."""
    plain = [" ".join(caption.casefold().split()).rstrip(". ") for caption in captions]
    return np.unique(np.asarray(plain, dtype=object).astype(str), return_inverse=True)[1].reshape(-1)


# --- spread and distance ----------------------------------------------------------------------------------------------


def _diversity(
    figures: Figures, protocol: Protocol, motion: Floats, shown: Ints, repeat: int, rng: Any, metrics: Metrics
) -> None:
    embeddings = motion[shown] if protocol.metrics.fid_items == "batches" else motion
    embeddings = embeddings[np.isfinite(embeddings).all(axis=1)]
    n, wanted = len(embeddings), protocol.metrics.diversity_pairs
    few = {"all": n, "all_but_one": n - 1, "hundred": min(100, n)}[protocol.metrics.diversity_few]
    pairs = wanted if n > wanted else few
    for kind in protocol.metrics.diversity:
        shared = protocol.metrics.diversity_stream == "shared"
        source = rng if shared else stream(protocol, repeat + _DIVERSITY_SEED)
        if kind == "l2":
            figures.add("diversity_l2", metrics.diversity(embeddings, pairs=pairs, rng=source))
        else:
            figures.add("diversity_unit_l1", diversity_unit_l1(embeddings, pairs=pairs, rng=source))


def diversity_unit_l1(embeddings: Floats, pairs: int, rng: Any) -> float:
    """Mean L1 distance of `pairs` random pairs of unit vectors: what the MotionCLIP-135 table calls diversity."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    left, right = (rng.choice(len(unit), pairs, replace=False) for _ in range(2))
    return float(np.abs(unit[left] - unit[right]).sum(axis=1).mean())


def add_multimodality(figures: Figures, protocol: Protocol, sets: Floats) -> None:
    """Spread of sets (clips, generations, d): as published, `multimodality_pairs` pairs that are drawn anew each repeat
    and may pair a motion with itself; and, under another name, over all pairs of different ones."""
    count = sets.shape[1]
    if count < 2:
        raise ValueError("multimodality needs at least two generations of a caption")
    pairs = min(protocol.metrics.multimodality_pairs, count)
    for repeat in range(protocol.repeats):
        rng = stream(protocol, repeat + _MULTIMODALITY_SEED)
        figures.add("multimodality", multimodality(sets, pairs=pairs, rng=rng))
    first, second = np.triu_indices(count, 1)
    apart = np.linalg.norm(sets[:, first].astype(np.float64) - sets[:, second], axis=-1)
    figures.add("multimodality_all_pairs", apart.mean())
    figures.counts |= {"multimodality_clips": len(sets), "multimodality_generations": count}


def _frechet(
    out: Mapping[str, Figures],
    protocol: Protocol,
    rows: Mapping[str, Row | None],
    shown: Mapping[str, Ints],
    references: Mapping[str, Floats],
    second: Floats | None,
    metrics: Metrics,
) -> None:
    """FID of rows against the real clips and against each other reference; once if shuffling cannot change it."""
    real = rows["real"]
    assert real is not None
    base = real.motion if second is None else second
    against = {"": base, **{f"_{name}": values for name, values in references.items()}}
    for name, row in rows.items():
        assert row is not None
        picked = row.motion[shown[name]]
        picked = picked[np.isfinite(picked).all(axis=1)]
        for suffix, reference in against.items():
            if name == "real" and not suffix and second is None:
                continue  # a set against itself
            for kind in protocol.metrics.fid:
                key = ("fid_raw" if kind == "raw" else "fid_l2_normalized") + suffix
                if protocol.metrics.fid_items == "all" and key in out[name].values:
                    continue
                these = reference[shown["real"]] if len(reference) == len(real.motion) else reference
                out[name].add(key, metrics.frechet_distance(these, picked, normalize=kind != "raw"))


# --- rows that say what a number is worth -----------------------------------------------------------------------------


def _split_half(figures: Figures, protocol: Protocol, real: Row, repeat: int, metrics: Metrics) -> None:
    """FID between two random halves of the real clips: what a perfect model would get from so few clips."""
    order = stream(protocol, repeat).permutation(len(real.motion))
    half = len(order) // 2
    for kind in protocol.metrics.fid:
        first, other = real.motion[order[:half]], real.motion[order[half : 2 * half]]
        value = metrics.frechet_distance(first, other, normalize=kind != "raw")
        figures.add("fid_raw" if kind == "raw" else "fid_l2_normalized", value)


def _random_caption(figures: Figures, protocol: Protocol, real: Row, repeat: int, metrics: Metrics) -> None:
    """Retrieval of the real clips with captions of others: what chance gives."""
    rng = stream(protocol, repeat)
    order, cycle = rng.permutation(len(real.text)), rng.permutation(len(real.text))
    wrong = np.empty_like(cycle)
    # One cycle: no clip keeps its caption. Not in the pools' order: the caption's own clip would be in every pool, and
    # an evaluator that finds it there would score below chance.
    wrong[cycle] = np.roll(cycle, 1)
    row = Row(real.text[wrong], real.motion, [real.captions[i] for i in wrong])
    _retrieval(figures, protocol, row, order, metrics)
