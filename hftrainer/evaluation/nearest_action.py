"""Do generated motions match their text? Scored by where an evaluator places them among the actions of a data set.

An action is the mean of the embeddings of its real clips. A motion of one action is placed by the distance to all
of them; one of two is right if it can be cut in two so that the first action is among the nearest before the cut, and
the second among the nearest after it. How often that happens by chance is measured with motions of one action.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.actions import Outcome, against_real
from hftrainer.motion.representation.base import DEFAULT, get_representation

Float32 = NDArray[np.float32]
Encode = Callable[[Sequence[Float32]], Float32]  # motions (T_i, width) to embeddings (n, d)
NEAREST = 3  # actions that count as near
SHORTEST_PART = 30  # frames of a part of a motion
_CUTS = 5  # places where a motion is cut
_SHORTEST = 8  # frames; less is no motion


@dataclass(frozen=True)
class ActionCenters:
    """`vectors` (n, d): unit vectors of the means of `names`' clips, from the `middle` (d,) of all of them."""

    names: list[str]
    vectors: Float32
    middle: Float32

    @classmethod
    def of(cls, embeddings: Mapping[str, Float32]) -> ActionCenters:
        """Of embeddings (n_i, d) by action; every action counts once in the middle."""
        names = sorted(embeddings)
        means = np.stack([np.asarray(embeddings[name], dtype=np.float32).mean(axis=0) for name in names])
        middle = means.mean(axis=0)
        return cls(names, _unit(means - middle), middle)

    def ranked(self, embeddings: Float32) -> list[list[str]]:
        """Names for each of the embeddings (m, d), the nearest first."""
        order = np.argsort(-(_unit(embeddings - self.middle) @ self.vectors.T), axis=1, kind="stable")
        return [[self.names[i] for i in row] for row in order]


@dataclass
class NearestReport:
    """`top1` and `top3`: by action, the share of motions for which it is the nearest, or among the nearest three."""

    top1: dict[str, float] = field(default_factory=dict)
    top3: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    taken_for: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """Two tables."""
        lines = [
            "| figure | value |",
            "|---|--:|",
            *(f"| {name} | {value:.3g} |" for name, value in self.figures.items()),
        ]
        lines += ["", "| action | nearest | among three | most often taken for |", "|---|--:|--:|---|"]
        lines += [
            f"| {name} | {self.top1[name]:.0%} | {self.top3[name]:.0%} | {self.taken_for[name]} |" for name in self.top1
        ]
        return "\n".join(lines) + "\n"


def nearest_report(
    outcomes: Sequence[Outcome],
    centers: ActionCenters,
    encode: Encode,
    real: Mapping[str, Sequence[Float32]],
    *,
    beside: Mapping[str, Sequence[Float32]] | None = None,
    rng: np.random.Generator,
    representation: str = DEFAULT,
) -> NearestReport:
    """Figures of the motions of trials, beside those of `real` clips by action that the centers were not made from.

    `beside`: real clips for lengths, sliding, jitter and spread, by action; None: `real`, where an action has some.
    """
    out = NearestReport()
    single: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if len(outcome.trial.contents) == 1:
            single[outcome.trial.contents[0]].append(outcome)
    for name in sorted(single):
        ranked = place([o.motion for o in single[name]], centers, encode)
        out.top1[name], out.top3[name] = _share(name, ranked, 1), _share(name, ranked, NEAREST)
        first = [row[0] for row in ranked if row]
        out.taken_for[name] = max(sorted(set(first)), key=first.count) if first else ""
    figures, known = out.figures, [name for name in real if name in centers.names and real[name]]
    figures["actions"] = len(centers.names)
    if known:
        rows = {name: place(real[name], centers, encode) for name in known}
        for count in (1, NEAREST):
            figures[f"real clips, {_top(count)}"] = _mean([_share(name, rows[name], count) for name in known])
    if single:
        figures[f"one action, {_top(1)}"] = _mean(list(out.top1.values()))
        figures[f"one action, {_top(NEAREST)}"] = _mean(list(out.top3.values()))
        figures["by chance, among the nearest three"] = min(1.0, NEAREST / len(centers.names))
        figures["ended by themselves"] = _mean([float(o.ended) for group in single.values() for o in group])
    double = [o for o in outcomes if len(o.trial.contents) == 2]
    if double:
        figures["two actions, both in order"] = _mean(
            [in_order(o.motion, *o.trial.contents[:2], centers=centers, encode=encode) for o in double]
        )
        figures["two actions, by chance"] = _chance(single, centers, encode, rng)
    others = real if beside is None else beside
    common = [name for name in single if others.get(name)]
    if common:
        motions = {name: [o.motion for o in single[name]] for name in common}
        clips = {name: [np.asarray(m) for m in others[name]] for name in common}
        figures |= against_real(motions, clips, common, get_representation(representation))
    return out


def place(motions: Sequence[Float32], centers: ActionCenters, encode: Encode) -> list[list[str]]:
    """The actions for each motion, the nearest first; none for one of hardly any frames."""
    long_enough = [i for i, motion in enumerate(motions) if len(motion) >= _SHORTEST]
    out: list[list[str]] = [[] for _ in motions]
    if long_enough:
        ranked = centers.ranked(encode([motions[i] for i in long_enough]))
        for i, row in zip(long_enough, ranked, strict=True):
            out[i] = row
    return out


def in_order(motion: Float32, first: str, second: str, *, centers: ActionCenters, encode: Encode) -> bool:
    """Whether some cut has `first` among the nearest actions before it, and `second` among those after it."""
    last = len(motion) - SHORTEST_PART
    if last < SHORTEST_PART:
        return False
    cuts = sorted({int(cut) for cut in np.linspace(SHORTEST_PART, last, _CUTS)})
    ranked = place([part for cut in cuts for part in (motion[:cut], motion[cut:])], centers, encode)
    pairs = zip(ranked[::2], ranked[1::2], strict=True)
    return any(first in before[:NEAREST] and second in after[:NEAREST] for before, after in pairs)


def _chance(
    single: Mapping[str, Sequence[Outcome]], centers: ActionCenters, encode: Encode, rng: np.random.Generator
) -> float:
    """How often a motion of one action passes for that action and then another one."""
    pool = [(name, o.motion) for name in sorted(single) for o in single[name]]
    hits = []
    for i in rng.permutation(len(pool))[:50]:
        name, motion = pool[i]
        others = [other for other in centers.names if other != name]
        other = others[int(rng.integers(len(others)))]
        hits.append(float(in_order(motion, name, other, centers=centers, encode=encode)))
    return _mean(hits)


def _top(count: int) -> str:
    return "nearest" if count == 1 else "among the nearest three"


def _share(name: str, ranked: Sequence[Sequence[str]], count: int) -> float:
    return _mean([float(name in row[:count]) for row in ranked])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _unit(vectors: Float32) -> Float32:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), dtype=np.float32)
