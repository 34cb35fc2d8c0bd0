"""Placing motions among actions, with an encoder whose answers are known."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from hftrainer.apps.evaluator_trials import EvaluatorTrials, actions_of, prompts_of, trials_of
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.evaluation.actions import Outcome, Trial
from hftrainer.evaluation.nearest_action import SHORTEST_PART, ActionCenters, in_order, nearest_report, place

NAMES = ("jump", "run", "sit", "turn", "walk")


def motion(*parts: str, frames: int = 60, seed: int = 0) -> np.ndarray:
    """Real-looking motion whose first channel carries, too small to matter, what it is."""
    out = make_motion("walk", frames * len(parts), seed)
    out[:, 0] = np.repeat([NAMES.index(part) * 1e-6 for part in parts], frames)
    return out


def encode(motions):
    """How much of a motion each action is, near actions a little, too."""
    found = np.stack([np.bincount(np.round(m[:, 0] * 1e6).astype(int), minlength=5) / len(m) for m in motions])
    return (found + 0.1 * np.roll(found, 1, axis=1)).astype(np.float32)


@pytest.fixture
def centers() -> ActionCenters:
    return ActionCenters.of({name: encode([motion(name, seed=s) for s in range(2)]) for name in NAMES})


def test_a_motion_is_nearest_to_its_own_action(centers):
    ranked = place([motion("sit"), np.zeros((4, 272), np.float32), motion("run")], centers, encode)
    assert [row[:1] for row in ranked] == [["sit"], [], ["run"]]
    assert set(ranked[0]) == set(NAMES)


def test_two_actions_are_right_in_their_order(centers):
    both = motion("walk", "sit")
    assert in_order(both, "walk", "sit", centers=centers, encode=encode)
    assert not in_order(motion("sit"), "walk", "sit", centers=centers, encode=encode)
    assert not in_order(both[: SHORTEST_PART + 5], "walk", "sit", centers=centers, encode=encode)


def test_figures(centers):
    outcomes = [
        Outcome(Trial("p", 0, ("walk",)), motion("walk", seed=1), True),
        Outcome(Trial("p", 1, ("walk",)), motion("sit", seed=2), False),
        Outcome(Trial("p", 0, ("run",)), motion("run", frames=90, seed=3), True),
        Outcome(Trial("p", 0, ("walk", "sit")), motion("walk", "sit"), True),
    ]
    real = {"walk": [motion("walk", seed=4), motion("walk", seed=5)], "run": [motion("run"), motion("jump")]}
    got = nearest_report(outcomes, centers, encode, real, rng=np.random.default_rng(0))
    assert got.top1 == {"walk": 0.5, "run": 1.0}
    assert got.taken_for["run"] == "run"
    want = {
        "actions": 5, "real clips, nearest": 0.75, "one action, nearest": 0.75, "ended by themselves": 2 / 3,
        "two actions, both in order": 1.0, "by chance, among the nearest three": 0.6, "seconds, generated": 2.5,
    }  # fmt: skip
    assert {name: got.figures[name] for name in want} == pytest.approx(want)
    assert got.figures["two actions, by chance"] < 1
    assert got.figures["Jitter, generated / real"] > 0
    assert "| run | 100% | 100% | run |" in got.markdown()
    beside = nearest_report(outcomes, centers, encode, {}, beside=real, rng=np.random.default_rng(0)).figures
    assert "real clips, nearest" not in beside
    assert beside["seconds, real"] == pytest.approx(2.0)


def test_actions_and_their_prompts_come_from_the_data(synthetic, tmp_path):
    dataset = DatasetFolder(synthetic)
    names = actions_of(dataset, ("train", "val"), 3)
    assert set(names) == {label["content"] for label in dataset.labels().values()}
    assert actions_of(dataset, ("train", "val"), 1000) == []
    (tmp_path / "own.tsv").write_text("# mine\nhe strolls\twalk\n")
    prompts = prompts_of(["walk", "pick up"], tmp_path / "own.tsv")
    assert prompts == {"walk": ["he strolls"], "pick up": ["a person picks up", "someone is picking up"]}
    rows = trials_of(["walk", "pick up"], prompts, EvaluatorTrials(seeds=3, pairs=2), np.random.default_rng(0))
    assert [row[1:3] for row in rows[:4]] == [(0, ("walk",)), (1, ("walk",)), (2, ("walk",)), (0, ("pick up",))]
    assert all(" then " in row[0] and len(set(row[2])) == 2 for row in rows[6:])
    assert len(rows) == 8


def test_the_command(synthetic, tiny_model, tmp_path, capsys):
    import json

    from hftrainer.cli import main
    from tests.tiny import tiny_evaluator

    tiny_evaluator().save_pretrained(tmp_path / "judge")
    root = shutil.copytree(synthetic, tmp_path / "data")
    command = ["evaluate", "actions", str(tiny_model), "--data", str(root), "--evaluator", str(tmp_path / "judge")]
    more = [
        "--split",
        "val",
        "--least",
        "3",
        "--seeds",
        "1",
        "--pairs",
        "1",
        "--top-k",
        "5",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, *more]) == 0
    assert "| one action, among the nearest three |" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "actions.json").read_text())
    assert set(found["nearest"]) == {label["content"] for label in DatasetFolder(root).labels().values()}
    assert main([*command, "--split", "val", "--least", "1000"]) == 1
    assert "fewer than two actions have 1000 clips" in capsys.readouterr().err
