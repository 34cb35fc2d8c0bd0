"""Do generated motions match their text? Scored by a classifier trained on real clips.

A motion of one action is classified as one. One of two is right if it can be cut in two so that the classifier sees the
first action before the cut and the second after it; how often that happens by chance is measured with motions of one
action, classified as if a second had been asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hftrainer.evaluation.physical import aggregate_physical_metrics, physical_metrics_from_motion
from hftrainer.evaluation.reconstruction import foot_slide
from hftrainer.models.action_classifier import ActionClassifier
from hftrainer.motion.representation.base import DEFAULT, Representation, get_representation
from hftrainer.shown import as_markdown

SHORTEST_PART = 40  # frames; the shortest clips in the classifier's training
_CUT_STEP = 6


@dataclass(frozen=True)
class Trial:
    """A prompt, the seed to draw its motion with, and the labels that the motion should have, part by part."""

    prompt: str
    seed: int
    contents: tuple[str, ...]
    style: str | None = None


@dataclass
class Outcome:
    """Result of a trial: the motion (T, width), whether it ended with END, and the classifier's labels."""

    trial: Trial
    motion: np.ndarray
    ended: bool
    seen_content: str = ""
    seen_style: str = ""
    right: bool = False


def classify_outcomes(outcomes: Sequence[Outcome], classifier: ActionClassifier) -> None:
    """Fill in what the classifier sees and whether the contents are right. A motion that is too short is wrong."""
    long_enough = [o for o in outcomes if len(o.motion) >= 4]
    contents, styles = classifier.classify([o.motion for o in long_enough])
    for outcome, content, style in zip(long_enough, contents, styles, strict=True):
        outcome.seen_content, outcome.seen_style = content, style
        wanted = outcome.trial.contents
        outcome.right = (
            content == wanted[0] if len(wanted) == 1 else seen_in_order(classifier, outcome.motion, *wanted[:2])
        )


def seen_in_order(classifier: ActionClassifier, motion: np.ndarray, first: str, second: str) -> bool:
    """Whether some cut has `first` before it and `second` after it."""
    cuts = range(SHORTEST_PART, len(motion) - SHORTEST_PART + 1, _CUT_STEP)
    parts = [part for cut in cuts for part in (motion[:cut], motion[cut:])]
    if not parts:
        return False
    seen, _ = classifier.classify(parts)
    return any(a == first and b == second for a, b in zip(seen[::2], seen[1::2], strict=True))


@dataclass
class ActionReport:
    """Figures by name; `by_label` the share of right motions of one action."""

    by_label: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def markdown(self) -> str:
        """Two tables."""
        lines = ["| figure | value |", "|---|--:|"]
        lines += [f"| {name} | {value:.3g} |" for name, value in self.figures.items()]
        lines += ["", "| action | agreement |", "|---|--:|"]
        lines += [f"| {as_markdown(label)} | {share:.0%} |" for label, share in sorted(self.by_label.items())]
        return "\n".join(lines) + "\n"


def report(
    outcomes: Sequence[Outcome],
    real: dict[str, list[np.ndarray]],
    classifier: ActionClassifier,
    *,
    styles_of: dict[str, list[str]],
    rng: np.random.Generator,
    representation: str = DEFAULT,
) -> ActionReport:
    """Figures of classified outcomes beside those of `real` clips, by content; `styles_of` their styles, clip by clip.

    `representation`: what all these motions are.
    """
    out = ActionReport()
    single = [o for o in outcomes if len(o.trial.contents) == 1 and o.trial.style is None]
    double = [o for o in outcomes if len(o.trial.contents) == 2]
    styled = [o for o in outcomes if o.trial.style is not None]
    grouped: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in single:
        grouped[outcome.trial.contents[0]].append(outcome)
    out.by_label = {label: float(np.mean([o.right for o in group])) for label, group in grouped.items()}

    figures = out.figures
    figures["real clips, content accuracy"], figures["real clips, style accuracy"] = _real_accuracy(
        real, styles_of, classifier
    )
    if single:
        figures["one action, agreement"] = float(np.mean(list(out.by_label.values())))
        figures["one action, worst label"] = min(out.by_label.values())
        figures["ended by themselves"] = float(np.mean([o.ended for o in single]))
    if double:
        figures["two actions, agreement in order"] = float(np.mean([o.right for o in double]))
        figures["two actions, by chance"] = _chance(single, classifier, rng)
    if styled:
        figures["style words, agreement"] = float(np.mean([o.seen_style == o.trial.style for o in styled]))
        figures["style words, content agreement"] = float(np.mean([o.right for o in styled]))
    common = [label for label in grouped if real.get(label)]
    if common:
        motions = {label: [o.motion for o in grouped[label]] for label in common}
        figures |= against_real(motions, real, common, get_representation(representation))
    return out


def against_real(
    generated: dict[str, list[np.ndarray]],
    real: dict[str, list[np.ndarray]],
    labels: list[str],
    motion_format: Representation,
) -> dict[str, float]:
    """Lengths, slide, jitter and spread of the labels that real clips were given of, each label counting once."""
    made = {label: [motion for motion in generated[label] if len(motion) >= 8] for label in labels}

    def mean(of: dict[str, list[np.ndarray]], measure: Callable[[np.ndarray], float]) -> float:
        return _known_mean([_known_mean([measure(m) for m in of[label]]) for label in labels if of[label]])

    def physical(of: dict[str, list[np.ndarray]]) -> dict[str, float]:
        return aggregate_physical_metrics(
            aggregate_physical_metrics(physical_metrics_from_motion(m, motion_format.name) for m in of[label])
            for label in labels
            if of[label]
        )

    def standing(motion: np.ndarray) -> float:
        return foot_slide(np.asarray(motion_format.to_joints(motion.astype(np.float64))), fps=motion_format.fps)

    got, want = physical(made), physical(real)
    return {
        "seconds, generated": mean(made, len) / motion_format.fps,
        "seconds, real": mean(real, len) / motion_format.fps,
        "Slide, generated / real": got["Slide"] / want["Slide"],
        "Jitter, generated / real": got["Jitter"] / want["Jitter"],
        "Dynamic, generated / real": got["Dynamic"] / want["Dynamic"],
        "standing feet, mm a frame, generated": 1000 * mean(made, standing),
        "standing feet, mm a frame, real": 1000 * mean(real, standing),
        "spread between seeds / between real clips": _spread(made, labels, motion_format)
        / _spread(real, labels, motion_format),
    }


def _known_mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; NaN if none is (a clip whose feet never stand has no slide)."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _spread(motions: dict[str, list[np.ndarray]], labels: list[str], motion_format: Representation) -> float:
    """Mean distance of poses at the same share of the way through, over pairs of motions of one label (metres)."""
    spreads = []
    for label in labels:
        poses = [_ten_poses(motion, motion_format) for motion in motions[label][:20]]
        pairs = [np.linalg.norm(a - b, axis=-1).mean() for i, a in enumerate(poses) for b in poses[:i]]
        if pairs:
            spreads.append(np.mean(pairs))
    return float(np.mean(spreads)) if spreads else float("nan")


def _ten_poses(motion: np.ndarray, motion_format: Representation) -> np.ndarray:
    """Joint positions as they are stored: seen from the body where the representation does so."""
    places = np.linspace(0, len(motion) - 1, 10).astype(int)
    return np.asarray(motion[places][:, motion_format.positions_block()].reshape(10, -1, 3))


def _real_accuracy(
    real: dict[str, list[np.ndarray]], styles_of: dict[str, list[str]], classifier: ActionClassifier
) -> tuple[float, float]:
    motions = [m for label in real for m in real[label]]
    contents, styles = classifier.classify(motions)
    wanted = [label for label in real for _ in real[label]]
    wanted_styles = [style for label in real for style in styles_of[label]]
    return (
        float(np.mean([a == b for a, b in zip(contents, wanted, strict=True)])),
        float(np.mean([a == b for a, b in zip(styles, wanted_styles, strict=True)])),
    )


def _chance(single: list[Outcome], classifier: ActionClassifier, rng: np.random.Generator) -> float:
    """How often a motion of one action passes for that action followed by another one."""
    if not single:
        return float("nan")
    labels = sorted({o.trial.contents[0] for o in single})
    picked = [single[i] for i in rng.permutation(len(single))[:100]]
    hits = []
    for outcome in picked:
        others = [label for label in labels if label != outcome.trial.contents[0]]
        second = others[int(rng.integers(len(others)))]
        hits.append(seen_in_order(classifier, outcome.motion, outcome.trial.contents[0], second))
    return float(np.mean(hits))
