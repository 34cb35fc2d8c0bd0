"""Judging motions by what a classifier sees in them, with a classifier whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.evaluation.actions import SHORTEST_PART, Outcome, Trial, classify_outcomes, report, seen_in_order


class Judge:
    """Reads the action off a motion's first channel: the commonest value, rounded; its style off the second."""

    names = ("walk", "wave", "squat")

    def __init__(self):
        self.seen: list[int] = []

    def classify(self, motions):
        self.seen += [len(m) for m in motions]
        contents = [self.names[round(float(np.median(m[:, 0])) * 1e6)] for m in motions]
        return contents, ["sad" if m[0, 1] > 0 else "normal" for m in motions]


def motion(*parts: str, frames: int = 60, style: str = "normal", seed: int = 0) -> np.ndarray:
    """Real-looking motion whose first channels carry, too small to matter, what it is."""
    out = make_motion("walk", frames * len(parts), seed)
    out[:, 0] = np.repeat([Judge.names.index(part) * 1e-6 for part in parts], frames)
    out[:, 1] = 1e-6 * (style == "sad")
    return out


def outcome(made: np.ndarray, *contents: str, style: str | None = None, ended: bool = True) -> Outcome:
    return Outcome(Trial("a prompt", 0, contents, style), made, ended)


def test_one_action_is_right_if_it_is_seen():
    outcomes = [outcome(motion("walk"), "walk"), outcome(motion("wave"), "walk"), outcome(np.zeros((3, 272)), "walk")]
    classify_outcomes(outcomes, Judge())
    assert [o.right for o in outcomes] == [True, False, False]
    assert [o.seen_content for o in outcomes] == ["walk", "wave", ""]


def test_two_actions_are_right_in_their_order():
    both = motion("walk", "wave")
    outcomes = [outcome(both, "walk", "wave"), outcome(both, "wave", "walk"), outcome(motion("walk"), "walk", "wave")]
    classify_outcomes(outcomes, Judge())
    assert [o.right for o in outcomes] == [True, False, False]


def test_every_part_that_is_judged_is_as_long_as_in_training():
    judged = Judge()
    assert seen_in_order(judged, motion("walk", "wave"), "walk", "wave")
    assert min(judged.seen) >= SHORTEST_PART
    assert max(judged.seen) <= 120 - SHORTEST_PART
    assert not seen_in_order(judged, motion("walk", "wave", frames=30), "walk", "wave")  # 60 frames: nowhere to cut


@pytest.fixture
def outcomes():
    made = [
        outcome(motion("walk", seed=1), "walk"), outcome(motion("wave", seed=2), "walk", ended=False),
        outcome(motion("wave", frames=90, seed=3), "wave"), outcome(motion("wave", frames=90, seed=4), "wave"),
        outcome(motion("walk", "wave"), "walk", "wave"), outcome(motion("walk", "walk"), "walk", "wave"),
        outcome(motion("walk", style="sad"), "walk", style="sad"), outcome(motion("wave"), "walk", style="sad"),
    ]  # fmt: skip
    classify_outcomes(made, Judge())
    return made


REAL = {"walk": [motion("walk", seed=5), motion("walk", seed=6)], "wave": [motion("wave", seed=7), motion("walk")]}
STYLES = {"walk": ["normal", "sad"], "wave": ["normal", "normal"]}


def test_figures(outcomes):
    got = report(outcomes, REAL, Judge(), styles_of=STYLES, rng=np.random.default_rng(0))
    assert got.by_label == {"walk": 0.5, "wave": 1.0}
    want = {
        "real clips, content accuracy": 0.75, "real clips, style accuracy": 0.75, "one action, agreement": 0.75,
        "one action, worst label": 0.5, "ended by themselves": 0.75, "two actions, agreement in order": 0.5,
        "two actions, by chance": 0.0, "style words, agreement": 0.5, "style words, content agreement": 0.5,
        "seconds, generated": 2.5, "seconds, real": 2.0,
    }  # fmt: skip
    assert {name: got.figures[name] for name in want} == pytest.approx(want)
    for name in ("Slide", "Jitter", "Dynamic"):
        assert got.figures[f"{name}, generated / real"] == pytest.approx(1, abs=0.8)
    assert got.figures["spread between seeds / between real clips"] > 0
    text = got.markdown()
    assert "| one action, worst label | 0.5 |" in text
    assert "| wave | 100% |" in text


def test_real_motions_differ_from_themselves_in_nothing(outcomes):
    same = [outcome(m, label) for label, clips in REAL.items() for m in clips]
    classify_outcomes(same, Judge())
    got = report(same, REAL, Judge(), styles_of=STYLES, rng=np.random.default_rng(0)).figures
    for name in ("Slide", "Jitter", "Dynamic"):
        assert got[f"{name}, generated / real"] == pytest.approx(1)
    assert got["spread between seeds / between real clips"] == pytest.approx(1)
    assert "two actions, agreement in order" not in got
    assert "style words, agreement" not in got


def test_labels_without_real_clips_are_not_compared(outcomes):
    got = report(outcomes, {"squat": [motion("squat")]}, Judge(), styles_of={"squat": ["normal"]},
                 rng=np.random.default_rng(0)).figures  # fmt: skip
    assert "Slide, generated / real" not in got
    assert got["one action, agreement"] == 0.75
