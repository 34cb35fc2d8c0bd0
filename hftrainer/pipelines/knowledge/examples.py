"""Embeddings of training captions, and which action each is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
_TOP = 5
SIMILARITIES = ("best caption", "best captions")


@dataclass
class Examples:
    """`vectors` (n, c): unit vectors around `center` (c,). `action` (n,): which of `names`; -1 for none.

    Cosines are taken around the center of all captions: without it, all sentences of one encoder look alike.
    """

    vectors: Float32
    center: Float32
    action: NDArray[np.int64]
    names: list[str]
    clips: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_captions(
        cls,
        embedded: Float32,
        action: Sequence[int] | NDArray[np.int64],
        names: Sequence[str],
        *,
        kept: NDArray[np.int64] | None = None,
    ) -> Examples:
        """Of unit vectors (n, c), the rows `kept` (all by default), around the center of all."""
        center = embedded.mean(axis=0)
        rows = np.arange(len(embedded)) if kept is None else kept
        return cls(around(embedded[rows], center), center, np.asarray(action, dtype=np.int64)[rows], list(names))

    def similarities(self, vector: Float32) -> list[float]:
        """Of a unit vector (c,) to the nearest caption, and to the nearest five."""
        best = np.sort(self.vectors @ around(vector, self.center))[-_TOP:]
        return [float(best[-1]), float(best.mean())]

    def nearest(self, vector: Float32, count: int) -> tuple[str, ...]:
        """The actions of the nearest captions, the nearest first."""
        order = np.argsort(-(self.vectors @ around(vector, self.center)), kind="stable")
        names = dict.fromkeys(self.names[i] for i in self.action[order] if i >= 0)
        return tuple(list(names)[:count])

    def largest(self, count: int) -> tuple[str, ...]:
        """The actions with the most clips."""
        return tuple(sorted(self.clips, key=lambda name: (-self.clips[name], name))[:count])


def around(vectors: Float32, center: Float32) -> Float32:
    """Unit vectors from `center` towards `vectors`."""
    moved = vectors - center
    length = np.linalg.norm(moved, axis=-1, keepdims=True)
    return np.asarray(moved / np.maximum(length, 1e-9), dtype=np.float32)


def evenly(group: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` rows, drawn in rounds of one for each group, so that small groups are not left out."""
    order = np.random.default_rng(seed).permutation(len(group))
    seen: dict[int, int] = {}
    rounds = np.empty(len(group), dtype=np.int64)
    for row in order:
        rounds[row] = seen[int(group[row])] = seen.get(int(group[row]), -1) + 1
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group))
    return np.asarray(np.sort(np.lexsort((place, rounds))[:count]), dtype=np.int64)
