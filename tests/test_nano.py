"""gotozero-nano as it is committed: whole, small enough, and able to do what its card says."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import hftrainer
from hftrainer.bench import fit as bench_fit
from hftrainer.bench.following import following
from hftrainer.cli import main
from hftrainer.manifest import verify_manifest
from hftrainer.models.action_classifier import ActionClassifier
from hftrainer.motion.representation import motion272
from hftrainer.requests import SamplingParams
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "checkpoints" / "gotozero-nano"
PROMPTS = {"a person walks forward": "walk", "someone runs": "run", "a person waves the left hand": "wave-left-hand"}


@pytest.fixture(scope="module")
def pipe():
    return hftrainer.load_pipeline("gotozero-nano")


def test_the_artifact_is_whole_and_small():
    verify_manifest(FOLDER)
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 48e6
    card = (FOLDER / "README.md").read_text()
    assert "CC BY-NC 4.0" in card
    assert "Bandai Namco" in card


@pytest.fixture(scope="module")
def made(pipe):
    return {prompt: pipe(prompt, num_motions=4, seed=0) for prompt in PROMPTS}


def test_files_show_the_motion_on_one_body_within_the_bars(made, tmp_path):
    """What docs/files.md says of 106 motions, on these twelve."""
    motions = [one for several in made.values() for one in several]
    figures = bench_fit.run([one.motion.astype(np.float64) for one in motions], motions[0].body)
    assert not [line for line in bench_fit.missed(figures) if "ms_a_frame" not in line]  # time is not for tests
    heads = set()
    for number, one in enumerate(motions):
        one.save(tmp_path / f"{number}.bvh")
        heads.add((tmp_path / f"{number}.bvh").read_text().partition("MOTION")[0])
    assert len(heads) == 1


def test_motions_are_plausible_and_differ_between_seeds(made):
    for motions in made.values():
        for m in motions:
            assert np.isfinite(m.motion).all()
            joints = motion272.to_joints(m.motion.astype(np.float64))
            assert 0.5 < joints[..., 1].max() < 2.5  # metres: somebody stands up
            assert joints[..., 1].min() > -0.5
        assert not np.array_equal(motions[0].tokens, motions[1].tokens)
    ended = [m.ended for motions in made.values() for m in motions]
    assert sum(ended) >= 0.75 * len(ended)


def test_motions_do_what_the_text_says(made):
    judge = ActionClassifier.from_pretrained(FOLDER / "actions")
    for prompt, label in PROMPTS.items():
        seen, _ = judge.classify([m.motion for m in made[prompt]])
        assert Counter(seen).most_common(1)[0][0] == label, (prompt, seen)


def test_parts_of_a_timeline_do_what_their_texts_say(pipe):
    """With 48 codes of context instead of 4, a third of these parts did."""
    prompts = ["a person walks forward", "a person waves with the right hand", "a person raises the left hand"]
    drawn = SamplingParams(do_sample=True, temperature=1.0, top_p=0.95)
    found = following(pipe, FOLDER / "actions", prompts, 4.0, 4, drawn)
    assert found["by_itself"] >= 0.8
    assert found["in_timelines"] > 0.6, found


def test_a_seed_makes_the_same_motion_again(pipe, made):
    again = pipe("someone runs", seed=2)[0]
    assert again.tokens.tolist() == made["someone runs"][2].tokens.tolist()
    np.testing.assert_allclose(again.motion, made["someone runs"][2].motion, atol=1e-4)


def test_doctor_approves_of_it(capsys):
    assert main(["doctor", "gotozero-nano"]) == 0
    assert "gotozero-nano" in capsys.readouterr().out


def test_generate_writes_everything_and_keeps_it(tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--seconds", "1.5", "--out", str(out), "--formats", "npy,npz,bvh,html"]
    command = ["generate", "a person walks forward", "--model", "gotozero-nano", *options]
    assert main(command) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    item = manifest["items"][0]
    assert item["frames"] == 45
    motion = out / f"{item['stem']}.npy"
    before = motion.stat().st_mtime_ns
    assert main(command) == 0
    assert motion.stat().st_mtime_ns == before
