"""The inputs of a protocol: real clips, captions and predictions; each motion is loaded once, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.predictions import LAYOUT
from hftrainer.evaluation.protocols.plan import CaptionLine, Entry, Item
from hftrainer.evaluation.protocols.schema import Protocol
from hftrainer.motion.plausible import Problem, frozen_problem, joint_problems
from hftrainer.motion.representation.base import Representation, get_representation

Floats = NDArray[np.floating[Any]]
Load = Callable[[str], Floats | None]
_BUDGET = 4 << 30  # bytes of motions in memory; HumanML3D-272's test set has 0.8 GB
_SHOWN = 5


class MotionStore:
    """Motions by name: each is loaded once and kept, while all of them fit into `budget` bytes."""

    def __init__(self, load: Load, budget: int = _BUDGET):
        self._load, self._left = load, budget
        self._kept: dict[str, Floats | None] = {}

    def __call__(self, name: str) -> Floats | None:
        """The motion called `name`; what the loader raises is not kept."""
        if name in self._kept:
            return self._kept[name]
        motion = self._load(name)
        size = 0 if motion is None else motion.nbytes
        if size <= self._left:
            self._left -= size
            self._kept[name] = motion
        return motion


@dataclass
class EvaluationSet:
    """The inputs of an evaluation, all in the protocol's representation and frame rate.

    `frames`: lengths of the real clips. `real(id)` loads one. `predicted(id)` loads a prediction: None if there is
    none, ``ValueError`` if it is broken. `references`: other versions of the real clips, by name ("refk",
    "hml263_roundtrip"), that FID is measured against too. `others`: further generations of the same captions, for
    multimodality. `by_key`: predictions are asked for by an entry's key ("000021#1", "000021@0"), one for each caption
    or part, not by the clip's id.
    """

    ids: Sequence[str]
    captions: Mapping[str, Sequence[CaptionLine]]
    frames: Mapping[str, int]
    real: Load
    predicted: Load | None = None
    references: Mapping[str, Load] = field(default_factory=dict)
    others: Sequence[Load] = ()
    by_key: bool = False

    def named(self, entry: Entry | Item) -> str:
        """What predictions of it are called."""
        return entry.key if self.by_key else entry.id

    def wanted(self, kept: Sequence[Entry]) -> dict[str, int]:
        """Frames of what each prediction stands for: a full clip, or the part that its caption is about."""
        if self.by_key:
            return {entry.key: entry.end - entry.start for entry in kept}
        return {entry.id: self.frames[entry.id] for entry in kept}


@dataclass
class Found:
    """Usable predictions' `lengths` by name; names that are `missing`; what is wrong with `broken` ones; and what is
    odd about motions that can be scored (`implausible`: other units, upside down, frozen, ...), by kind and name."""

    lengths: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    implausible: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def odd(self) -> set[str]:
        """Names of implausible predictions."""
        return {name for cases in self.implausible.values() for name in cases}


# what generated motion may do badly, which metrics measure; the other kinds say that the file is something else
_QUALITY = ("speed", "floor", "root", "velocities")


def look_at_predictions(
    protocol: Protocol, clips: EvaluationSet, kept: Sequence[Entry], progress: Callable[[Any], Any] = iter
) -> Found:
    """Load every prediction that `kept` asks for, and say what is wrong with each."""
    found = Found()
    if clips.predicted is None:
        return found
    kind = get_representation(protocol.representation)
    for name, wanted in progress(clips.wanted(kept).items()):
        try:
            motion = clips.predicted(name)
        except ValueError as error:
            found.broken[name] = str(error)
            continue
        if motion is None:
            found.missing.append(name)
            continue
        wrong = _why_unusable(protocol, motion, wanted)
        if wrong is not None:
            found.broken[name] = wrong
            continue
        found.lengths[name] = len(motion)
        if motion.shape[-1] == kind.width:
            for problem in _problems(kind, motion):
                found.implausible.setdefault(problem.kind, {})[name] = problem.text
    return found


def _problems(kind: Representation, motion: Floats) -> list[Problem]:
    """What shows that a clip is written in another way than its representation."""
    wide = np.asarray(motion, dtype=np.float64)
    found = [problem for problem in kind.feature_problems(wide) if problem.kind not in _QUALITY]
    found = found or frozen_problem(wide)
    if not found:
        joints = np.asarray(kind.to_joints(wide, layout=LAYOUT), dtype=np.float64)
        found = [problem for problem in joint_problems(joints, kind.fps) if problem.kind not in _QUALITY]
    return found


def _why_unusable(protocol: Protocol, motion: Floats, wanted: int) -> str | None:
    unit, n = protocol.crop.unit, len(motion)
    if not np.isfinite(motion).all():
        return "holds NaN or infinite values"
    if n < unit:
        return f"{n} frames, expected at least {unit}"
    if protocol.prediction.crop == "own" and not protocol.lengths.allows(n):
        return f"{n} frames are outside the protocol's range"
    if protocol.prediction.exact_length and not _as_long(protocol, n, wanted):
        return f"{n} frames, its clip has {wanted}"
    return None


def _as_long(protocol: Protocol, frames: int, wanted: int) -> bool:
    """Whether a prediction has its clip's frames; of a clip longer than what is seen, those that are seen suffice."""
    return frames == wanted or (wanted > protocol.crop.max_frames and frames >= protocol.crop.max_frames)


def refuse_unusable(protocol: Protocol, found: Found, total: int) -> None:
    """Raise ``ValueError`` for missing and broken predictions where the protocol does not say what they count as."""
    if protocol.missing != "error" or not (found.missing or found.broken):
        return
    parts = []
    if found.missing:
        parts.append(f"{len(found.missing)} have no prediction ({_some(found.missing)})")
    if found.broken:
        listed = [f"{name}: {reason}" for name, reason in found.broken.items()]
        parts.append(f"{len(found.broken)} are broken ({_some(listed, '; ')})")
    ways = "missing=drop to evaluate only the others"
    if protocol.metrics.positives == "same_caption":
        ways += ", or missing=failure to count them as wrong"
    raise ValueError(
        f"of {total} items of protocol {protocol.name}, {' and '.join(parts)}; generate them, or give {ways}"
    )


def refuse_implausible(protocol: Protocol, found: Found) -> None:
    """Raise ``ValueError`` where most predictions are no motions of the representation in physical units."""
    if not found.lengths or 2 * len(found.odd) <= len(found.lengths):
        return
    kind, cases = max(found.implausible.items(), key=lambda case: len(case[1]))
    name, text = next(iter(cases.items()))
    raise ValueError(
        f"{len(found.odd)} of {len(found.lengths)} predictions are not {protocol.representation} in physical units "
        f"({kind}; for example {name}: {text}). Convert them, or evaluate them anyway with --any-values"
    )


def _some(names: Sequence[str], between: str = ", ") -> str:
    return between.join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
