"""Embeddings to figures, by a protocol's rules. What each metric does is in `measures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.metrics import multimodality
from hftrainer.evaluation.protocols.measures import FID, Row, RPrecision, Sample, build_metrics
from hftrainer.evaluation.protocols.plan import stream
from hftrainer.evaluation.protocols.retrieval import caption_groups, chance_retrieval
from hftrainer.evaluation.protocols.schema import Protocol

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
_MULTIMODALITY_SEED = 200


@dataclass
class Figures:
    """Values of every metric, repeat by repeat, and what was counted."""

    values: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float]) -> None:
        """Note one repeat's values."""
        for name, value in figures.items():
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
    repeats: int | None = None,
    first_repeat: int = 0,
) -> dict[str, Figures]:
    """Figures of the rows "predicted" (if there is one), "real", "split_half" and "random_caption".

    `references`: other embeddings (n, d) of the real clips to measure FID against ("refk": re-posed on one skeleton).
    `second`: embeddings of a second drawing of the real clips, the reference of FID where the protocol has one.
    Raises ``ValueError`` where there are fewer items than one pool, or NaN that the protocol does not allow.
    """
    _check(protocol, real, predicted)
    metrics = build_metrics(protocol)
    rows = {"predicted": predicted, "real": real} if predicted is not None else {"real": real}
    against = {"": real.motion if second is None else second, **(references or {})}
    out = {name: Figures() for name in (*rows, "split_half", "random_caption")}
    rng = stream(protocol, first_repeat)
    numbers = range(first_repeat, first_repeat + (repeats or protocol.repeats))
    for repeat in numbers:
        if protocol.generator == "legacy":
            rng = stream(protocol, repeat)  # these protocols start again from a seed at each step
        orders = _orders(protocol, {name: len(row.text) for name, row in rows.items()}, repeat, rng)
        samples = {
            name: Sample(
                protocol, row, orders[name], _shown(protocol, orders[name]),
                against if name != "real" or second is not None else {k: v for k, v in against.items() if k},
                rng, repeat, repeat == first_repeat, out[name].counts,
            )
            for name, row in rows.items()
        }  # fmt: skip
        for metric in metrics:
            for name in reversed(rows):  # real before predicted, where both draw from one stream
                out[name].add(metric(samples[name]))
        _split_half(out["split_half"], protocol, metrics, real, repeat)
    _random_caption(out["random_caption"], protocol, metrics, real, numbers)
    return out


def score_embeddings(
    protocol: Protocol, text: Floats, real: Floats, predicted: Floats, captions: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Every metric of a protocol by row and name, of embeddings (n, d) that belong together row by row.

    A predicted row of NaN is a failure, which ``missing=failure`` counts as a wrong answer. Each figure is
    ``{"mean": ..., "ci95": ..., "n": ...}``.
    """
    found = score(protocol, Row(text, real, captions), Row(text, predicted, captions))
    return {name: figures.summary() for name, figures in found.items()}


def _check(protocol: Protocol, real: Row, predicted: Row | None) -> None:
    for name, row in (("real", real), ("predicted", predicted)):
        if row is None:
            continue
        if not len(row.text) == len(row.motion) == len(row.captions):
            raise ValueError(f"{name}: {len(row.text)} texts, {len(row.motion)} motions, {len(row.captions)} captions")
        check_enough(protocol, len(row.text), name)
        bad = ~np.isfinite(row.motion).all(axis=1)
        if not np.isfinite(row.text).all() or (bad.any() and (name == "real" or protocol.missing != "failure")):
            raise ValueError(f"{name}: embeddings hold NaN or infinite values ({int(bad.sum())} motions)")


def check_enough(protocol: Protocol, items: int, what: str) -> None:
    """Raise ``ValueError`` where `items` do not fill one pool."""
    if items < protocol.batches.size:
        raise ValueError(
            f"{what}: {items} items are less than one pool of {protocol.batches.size}; evaluate more clips, or change "
            "batches.size, which makes it a different protocol"
        )


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


def add_multimodality(figures: Figures, protocol: Protocol, sets: Floats) -> None:
    """Spread of sets (clips, generations, d): as published, `multimodality_pairs` pairs that are drawn in each repeat
    and may pair a motion with itself; and, under another name, over all pairs of different ones."""
    count = sets.shape[1]
    if count < 2:
        raise ValueError("multimodality needs at least two generations of a caption")
    pairs = min(protocol.metrics.multimodality_pairs, count)
    for repeat in range(protocol.repeats):
        rng = stream(protocol, repeat + _MULTIMODALITY_SEED)
        figures.add({"MultiModality": multimodality(sets, pairs=pairs, rng=rng)})
    first, second = np.triu_indices(count, 1)
    apart = np.linalg.norm(sets[:, first].astype(np.float64) - sets[:, second], axis=-1)
    figures.add({"MultiModality-all-pairs": apart.mean()})
    figures.counts |= {"multimodality_clips": len(sets), "multimodality_generations": count}


# --- rows that say what a number is worth -----------------------------------------------------------------------------


def _split_half(figures: Figures, protocol: Protocol, metrics: Sequence[Any], real: Row, repeat: int) -> None:
    """FID between two random halves of the real clips: what a perfect model would get from so few clips."""
    order = stream(protocol, repeat).permutation(len(real.motion))
    half = len(order) // 2
    for metric in metrics:
        if isinstance(metric, FID) and half > 1:
            first, other = real.motion[order[:half]], real.motion[order[half : 2 * half]]
            figures.add({metric.name: metric.distance(first, other)})


def _random_caption(
    figures: Figures, protocol: Protocol, metrics: Sequence[Any], real: Row, repeats: Sequence[int]
) -> None:
    """Retrieval of the real clips with captions of others: what chance gives (`retrieval.chance_pools`)."""
    top_k = next((metric.top_k for metric in metrics if isinstance(metric, RPrecision)), 0)
    if not top_k:
        return
    streams = [stream(protocol, repeat) for repeat in repeats]
    groups = caption_groups(real.captions)
    for hits, apart in chance_retrieval(real.text, real.motion, groups, protocol.batches.size, streams, top_k):
        figures.add({f"R@{k}": float(value) for k, value in enumerate(hits, 1)} | {"MM-Dist": apart})
