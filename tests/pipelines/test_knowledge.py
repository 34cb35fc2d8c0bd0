"""What a model says of prompts: known or not, typing errors, lengths, and what it does not follow."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import hftrainer
from hftrainer.cli import main
from hftrainer.data.prepare.labelled_prompts import CALIBRATION, MINI_ACTIONS, TEST, read_labelled
from hftrainer.english import normalized
from hftrainer.pipelines.knowledge import Knowledge, UnknownPrompt, features, load_knowledge
from hftrainer.pipelines.knowledge.calibrate import fit_judgement
from hftrainer.pipelines.knowledge.examples import Examples, evenly
from hftrainer.pipelines.knowledge.files import FEATURES, Judgement, Known, Reading, read_known, write_known
from hftrainer.pipelines.knowledge.notes import script_problem
from hftrainer.pipelines.knowledge.wordlist import WordList
from hftrainer.pipelines.prompts import PromptWarning

CAPTIONS = {
    "walk": ["a person walks forward", "someone is walking", "the man walks forward slowly", "walk forward"],
    "wave": ["a person waves the left hand", "someone is waving", "she waves the right hand", "wave the hand"],
    "run": ["a person runs forward", "the man is running", "run forward", "someone runs slowly"],
}
TEXTS = [text for several in CAPTIONS.values() for text in several]
ACTIONS = [i for i, several in enumerate(CAPTIONS.values()) for _ in several]
ENGLISH = WordList(
    {}, set(), {word: 6 for word in "the bank rates cooks dog violin plays pasta forward walk person".split()},
    {"cook", "walk", "wave", "run", "play"}, {"dog"},
)  # fmt: skip


def bag(texts):
    """Unit vectors of letter pairs: texts with the same words are near."""
    out = np.zeros((len(texts), 27 * 27), np.float32)
    for row, text in zip(out, texts, strict=True):
        codes = [ord(letter) - 96 if letter.isalpha() else 0 for letter in text if letter.isascii()]
        for a, b in pairwise(codes):
            row[27 * a + b] += 1
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def make_known(embed, **reading):
    words = WordList.of_captions(TEXTS, ENGLISH)
    judgement = Judgement({name: 0.0 for name in FEATURES} | {"known words": 4.0, "unknown words": -4.0}, -2.0)
    groups = {"actions": {"walk": 5, "wave": 3, "run": 2}, "verbs": {"walk": 5, "wave": 3, "run": 2}}
    examples = Examples.of_captions(embed(TEXTS), ACTIONS, list(CAPTIONS))
    examples.clips = groups["actions"]
    return Known(words, judgement, Reading(**reading), groups, {"captions": len(TEXTS)}), examples


def judge(**reading):
    return Knowledge(*make_known(bag, **reading), bag)


def test_a_caption_is_known_and_other_things_are_not():
    knows = judge()
    assert knows.assess("someone walks forward").known
    said = knows.assess("a person cooks pasta")
    assert said.known is False
    assert said.similarity < 0.5
    assert "unknown action: cooks" in said.warnings[0]
    assert "unknown words: pasta" in said.warnings[0]
    assert f"the nearest actions that it knows: {', '.join(said.nearest)}" in said.warnings[0]
    assert set(said.nearest) == set(CAPTIONS)
    assert knows.assess("someone waves").nearest[0] == "wave"
    assert "an animal (dog)" in knows.assess("the dog plays violin").warnings[0]


@pytest.mark.parametrize(
    "prompt", ["一个人向前走", "человек идёт", "🚶", "...", "123", "<b>walk</b>", "for i in range(10): print(i)"]
)
def test_what_is_no_english_is_not_known(prompt):
    said = judge(normalize=True, spelling=True, seconds=True).assess(prompt)
    assert (said.known, said.similarity, said.nearest) == (False, 0.0, ())
    assert "walk, wave, run" in said.warnings[0]


@pytest.mark.parametrize("prompt", ["a person walks", "don't walk!", "the café's door", "walk, 50% slower"])
def test_english_is_no_script_problem(prompt):
    assert script_problem(prompt) is None


def test_spelling_case_and_punctuation():
    knows = judge(normalize=True, spelling=True)
    said = knows.assess("A PERSON WLAKS  FORWRD!!!")
    assert said.text == "a person walks forward"
    assert said.known
    assert said.warnings == ("'wlaks' is read as 'walks'", "'forwrd' is read as 'forward'")
    assert knows.assess("una persona camina").text == "una persona camina"  # mostly foreign: not English near by
    assert knows.assess("a person cooks").text == "a person cooks"  # English, if unknown
    assert judge().assess("A PERSON Wlaks!").text == "A PERSON Wlaks!"  # other models are shown what was typed


def test_lengths_are_read_where_the_model_asks_for_it():
    said = judge(normalize=True, seconds=True).assess("A person walks for five seconds")
    assert (said.text, said.seconds) == ("a person walks", 5.0)
    assert "length of 5 s" in said.warnings[0]
    assert judge().assess("walk for five seconds").seconds is None
    assert "durations of parts" in judge(seconds=True).assess("walk for 2 s then run").warnings[0]


@pytest.mark.parametrize(
    ("prompt", "remark"),
    [
        ("two people walk forward", "only one person is made ('two people')"),
        ("someone walks forward three times", "counts are not followed ('three times')"),
        ("someone is not walking", "negations are not understood ('not')"),
    ],
)
def test_what_is_not_followed_is_named(prompt, remark):
    assert remark in judge().assess(prompt).warnings


def test_files_hold_everything(tmp_path):
    known, examples = make_known(bag, normalize=True)
    write_known(tmp_path, known, examples)
    again = read_known(tmp_path)
    assert again is not None
    assert (again[0].words.pairs, again[0].words.english) == (known.words.pairs, known.words.english)
    assert again[0].reading == Reading(normalize=True)
    np.testing.assert_allclose(again[1].vectors @ examples.vectors.T, examples.vectors @ examples.vectors.T, atol=0.02)
    first, second = Knowledge(known, examples, bag), load_knowledge(tmp_path, bag)
    for prompt in ("someone walks", "a person cooks pasta", "the bank"):
        assert first.assess(prompt).known == second.assess(prompt).known
        assert first.assess(prompt).similarity == pytest.approx(second.assess(prompt).similarity, abs=0.02)  # int8


def test_a_broken_file_is_named(tmp_path):
    write_known(tmp_path, *make_known(bag))
    content = json.loads((tmp_path / "known.json").read_text())
    (tmp_path / "known.json").write_text(json.dumps({**content, "actions": ["walk"]}))
    with pytest.raises(ValueError, match=r"known\.safetensors: action has 2, but known\.json names 1 actions"):
        read_known(tmp_path)
    (tmp_path / "known.json").write_text(json.dumps({**content, "format_version": 9}))
    with pytest.raises(ValueError, match="format_version is 9"):
        read_known(tmp_path)


def test_the_judgement_is_fitted_to_the_share_of_false_alarms():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, len(FEATURES)))
    known = np.arange(600) < 400
    rows[known] += 0.9
    judgement = fit_judgement(rows, known, false_alarms=0.05)
    doubted = np.array([judgement.score(row) <= 0 for row in rows])
    assert doubted[known].mean() == pytest.approx(0.05, abs=0.005)  # one row in 400
    assert doubted[~known].mean() > 0.8
    with pytest.raises(ValueError, match="known and other prompts are needed"):
        fit_judgement(rows, np.ones(600, bool), false_alarms=0.05)


def test_examples_leave_no_group_out():
    group = np.array([0] * 50 + [1, 2, 3])
    kept = evenly(group, 8, seed=0)
    assert len(kept) == 8
    assert set(group[kept]) == {0, 1, 2, 3}


def test_shipped_prompts_are_distinct():
    calibration, test = (
        {normalized(row.prompt) or row.prompt for row in read_labelled(p)} for p in (CALIBRATION, TEST)
    )
    assert len(calibration) >= 300
    assert len(test) >= 200
    assert not calibration & test
    assert all(row.kind for path in (CALIBRATION, TEST, MINI_ACTIONS) for row in read_labelled(path))


@pytest.fixture(scope="module")
def knowing(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with files that say what it knows."""
    folder = tmp_path_factory.mktemp("knowing") / "model"
    shutil.copytree(tiny_model, folder)
    pipe = hftrainer.load_pipeline(folder)
    write_known(folder, *make_known(pipe.embed_texts, normalize=True, spelling=True, seconds=True))
    return folder


def test_features_have_their_names(knowing):
    pipe = hftrainer.load_pipeline(knowing)
    known = pipe.knowledge.known
    got = features("a person walks", pipe.embed_texts(["a person walks"])[0], known, pipe.knowledge.examples)
    assert len(got) == len(FEATURES)
    assert np.isfinite(got).all()


def test_a_pipeline_says_what_it_knows(knowing):
    pipe = hftrainer.load_pipeline(knowing)
    one, same = pipe(["A person WLAKS forward for 0.4 seconds", "a person walks forward"], seed=3, seconds=None)
    assert one.known
    assert one.prompt.startswith("A person WLAKS")
    assert (len(one.motion), one.prompt_seconds) == (12, 0.4)
    assert one.tokens.tolist()[:3] == same.tokens.tolist()[:3]  # it is shown the same text
    assert len(pipe("walk for 5 s", seconds=0.2)[0].motion) == 6  # what is asked for has precedence
    with pytest.warns(PromptWarning, match="does not know this prompt"):
        assert pipe("a person cooks pasta", seconds=0.2)[0].known is False
    with pytest.raises(UnknownPrompt, match="'a person cooks pasta': the model does not know"):
        pipe(["walk forward", "a person cooks pasta"], strict=True)
    frames = np.concatenate(list(pipe.stream("walk forward for 0.4 seconds")))
    assert len(frames) == 12
    made = pipe.timeline([("walk", 0.2), ("a person cooks pasta", 0.2)])
    assert made.known is False
    assert made.warnings[0].startswith("'a person cooks pasta': ")


def test_a_length_beyond_the_model_is_cut_and_said(knowing):
    said = hftrainer.load_pipeline(knowing).assess("walk for 99 seconds")
    assert said.seconds == 10.0
    assert said.warnings[-1] == "99 s are longer than a motion of this model, which ends after 10 s"


def test_a_model_without_the_files_says_nothing(tiny_model):
    pipe = hftrainer.load_pipeline(tiny_model)
    made = pipe("a person cooks PASTA for 5 seconds", seconds=0.2)[0]
    assert (made.known, made.similarity, made.warnings, made.prompt_seconds) == (None, None, (), None)
    with pytest.raises(UnknownPrompt, match="cannot tell which prompts it knows"):
        pipe("walk", strict=True)


def test_another_text_encoder_is_not_judged_by(knowing):
    assert hftrainer.load_pipeline(knowing, text_encoder=str(knowing / "text_encoder")).knowledge is None


def test_the_command_warns_and_refuses(knowing, tmp_path, capsys):
    command = ["generate", "a person cooks pasta", "--model", str(knowing), "--seconds", "0.2", "--formats", "npy"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    assert "warning: 'a person cooks pasta': the model does not know this prompt" in capsys.readouterr().err
    item = json.loads((tmp_path / "a" / "manifest.json").read_text())["items"][0]
    assert item["known"] is False
    assert item["similarity"] < 0.5
    assert len(item["nearest"]) == 3
    assert "does not know" in item["warnings"][0]
    assert main([*command, "--strict", "--out", str(tmp_path / "b")]) == 1
    assert "the nearest actions that it knows" in capsys.readouterr().err
    assert not list((tmp_path / "b").glob("*.npy"))
