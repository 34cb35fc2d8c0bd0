"""motionstreamer272-nano: its configuration makes a small folder that is found by name; and what it knows, if here."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest
import torch

import hftrainer
from hftrainer.config import ConfigError, load_experiment
from hftrainer.data.prepare.captions import load_templates
from hftrainer.evaluation.metrics import frechet_distance, r_precision
from hftrainer.manifest import verify_manifest
from hftrainer.models.motion.motionstreamer.text_model import new_tokenizer
from hftrainer.registry import MODELS
from hftrainer.zoo import find_card
from hftrainer.zoo.load import load_evaluator, locate
from tests.conftest import REPOSITORY
from tests.tiny import SENTENCES

FOLDER = REPOSITORY / "checkpoints" / "motionstreamer272-nano"
ASKED = {
    "a person walks forward": "walk", "someone runs": "run", "a person bows": "bow",
    "a person waves the left hand": "wave-left-hand", "a person punches": "punch", "a person dances": "dance-short",
    "someone raises both hands": "raise-up-both-hands", "a person slashes with a sword": "slash",
}  # fmt: skip


def test_what_the_configuration_makes_is_small_and_found_by_name(tmp_path, monkeypatch):
    """The artifact callback writes this folder; training changes its numbers and its vocabulary alone."""
    experiment = load_experiment(REPOSITORY / "configs" / "evaluation" / "motionstreamer272_nano.yaml")
    torch.manual_seed(0)
    model = MODELS.build(experiment.model)
    model.tokenizer = new_tokenizer(SENTENCES, model.config.text.vocab_size)
    model.save_pretrained(tmp_path / "runs" / "best")
    monkeypatch.chdir(tmp_path)
    tool = REPOSITORY / "tools" / "package_model.py"
    monkeypatch.setattr(sys, "argv", ["package", "motionstreamer272-nano", "--evaluator", "runs/best"])
    runpy.run_path(str(tool), run_name="__main__")
    packaged = tmp_path / "checkpoints" / "motionstreamer272-nano"
    assert sum(path.stat().st_size for path in packaged.rglob("*") if path.is_file()) <= 15e6
    assert verify_manifest(packaged) >= 7
    assert "CC BY-NC 4.0" in (packaged / "README.md").read_text()
    assert locate("motionstreamer272-nano")[0] == packaged
    judge = load_evaluator("motionstreamer272-nano")
    np.testing.assert_allclose(judge.encode_texts(SENTENCES), model.encode_texts(SENTENCES), atol=1e-5)
    motion = np.random.default_rng(0).normal(size=(50, 272))
    np.testing.assert_allclose(judge.encode_motions([motion]), model.encode_motions([motion]), atol=1e-5)


def test_an_evaluator_is_no_pipeline_and_a_model_no_evaluator(tmp_path, monkeypatch):
    assert find_card("motionstreamer272-nano").evaluator == "motionstreamer272"
    with pytest.raises(ConfigError, match="gotozero-nano is no evaluator"):
        load_evaluator("gotozero-nano")
    with pytest.raises(ConfigError, match="an evaluator of the kind motionstreamer272; humanml263 is needed"):
        load_evaluator("motionstreamer272-nano", "humanml263")
    (tmp_path / "checkpoints" / "motionstreamer272-nano").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="does not generate motions"):
        hftrainer.load_pipeline("motionstreamer272-nano")


@pytest.mark.skipif(not (FOLDER / "config.json").is_file(), reason="checkpoints/motionstreamer272-nano is not here")
def test_the_committed_evaluator_tells_actions_apart():
    verify_manifest(FOLDER)
    judge = load_evaluator("motionstreamer272-nano")
    pipe = hftrainer.load_pipeline("gotozero-nano")
    prompts = [prompt for prompt in ASKED for _ in range(4)]
    made = [m.motion[:300] for m in pipe(list(ASKED), num_motions=4, seed=0)]
    text, motion = judge.encode_texts(prompts), judge.encode_motions(made)
    first, _, third = r_precision(text, motion, 3, len(prompts), prompts)
    assert first >= 0.5, "chance is 4 of 32"
    assert third >= first
    still = [np.repeat(clip[:1], len(clip), axis=0) for clip in made]
    assert frechet_distance(motion, judge.encode_motions(still)) > frechet_distance(motion[::2], motion[1::2])


def test_the_prompts_are_of_actions_that_it_knows():
    assert set(ASKED.values()) <= set(load_templates("bandai-namco").contents)
