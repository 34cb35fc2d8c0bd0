"""Captions from labels, mirrored and joined clips."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hftrainer.cli import main
from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.prepare.augment import JoinConfig, join_split, mirror_split
from hftrainer.data.prepare.captions import (
    CaptionTemplates,
    Style,
    gerund,
    load_templates,
    make_captions,
    mirrored_parts,
    third_person,
    write_captions,
)
from hftrainer.data.prepare.trials import styled_trials, trials, unseen_trials
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.files import only_writer
from hftrainer.motion.blend import find_passage, join, join_at, shorten
from hftrainer.motion.representation import motion272
from hftrainer.motion.skeleton import bone_offsets, forward_kinematics

BANDAI = load_templates("bandai-namco")


def test_the_shipped_templates_are_consistent():
    assert set(BANDAI.mirrored) | set(BANDAI.croppable) <= set(BANDAI.contents)
    assert all(BANDAI.mirrored[other] == name for name, other in BANDAI.mirrored.items())
    for name, other in BANDAI.mirrored.items():  # left phrases are right phrases with the word exchanged
        if name != other:
            swapped = {p.replace("left", "@").replace("right", "left").replace("@", "right")
                       for p in BANDAI.contents[name]}  # fmt: skip
            assert swapped == set(BANDAI.contents[other])
    names = ["a/dataset-2_walk-turn-left_elderly_012", "something else"]
    assert BANDAI.labels_of(names) == [{"set": "2", "content": "walk-turn-left", "style": "elderly"}, None]


@pytest.mark.parametrize(
    ("verb", "third", "ing"),
    [("walk", "walks", "walking"), ("dash", "dashes", "dashing"), ("go", "goes", "going"), ("box", "boxes", "boxing"),
     ("wave", "waves", "waving"), ("run", "runs", "running"), ("step", "steps", "stepping"), ("lie", "lies", "lying"),
     ("play", "plays", "playing"), ("carry", "carries", "carrying")],
)  # fmt: skip
def test_inflection(verb, third, ing):
    assert third_person(verb) == third
    assert gerund(verb) == ing


def test_captions_are_different_reproducible_and_say_what_the_labels_say():
    parts = [{"content": "wave-left-hand", "style": "tired"}]
    captions = make_captions(parts, BANDAI, 20, np.random.default_rng(1))
    assert captions == make_captions(parts, BANDAI, 20, np.random.default_rng(1))
    assert len(set(captions)) == 20
    assert all("left" in caption and "right" not in caption for caption in captions)
    words = BANDAI.styles["tired"]
    said = [w for w in words.adverbs + words.adjectives + words.endings]
    assert all(any(word in caption.lower() for word in said) for caption in captions)


def test_two_parts_come_in_order():
    parts = [{"content": "walk", "style": "happy"}, {"content": "bow", "style": "sad"}]
    for caption in make_captions(parts, BANDAI, 30, np.random.default_rng(2)):
        bow = min((caption.find(w) for w in ("bow", "Bow", "bend", "greet") if w in caption), default=-1)
        assert bow > 5, caption
        assert "*" not in caption


def test_verbs_behind_an_asterisk_are_inflected_too():
    templates = CaptionTemplates(
        "(?P<content>.+)", {"x": ["lift an arm and *wave"]}, {"plain": Style(plain=True)}, ["she"]
    )
    captions = make_captions([{"content": "x"}], templates, 4, np.random.default_rng(0))
    stripped = {caption.strip(".").lower() for caption in captions}
    assert stripped <= {"she lifts an arm and waves", "she is lifting an arm and waving"}


def test_writing_captions_reports_clips_without_labels(tmp_path):
    dataset = DatasetFolder(tmp_path, create=True)
    for name in ("dataset-1_bow_happy_001", "unknown", "dataset-1_fly_happy_001"):
        dataset.write_motion(name, make_motion("stand", 30, 0))
    failed = write_captions(dataset, BANDAI, count=3, seed=0)
    assert set(failed) == {"unknown", "dataset-1_fly_happy_001"}
    assert "no content 'fly'" in failed["dataset-1_fly_happy_001"]
    assert len(dataset.captions("dataset-1_bow_happy_001")) == 3
    assert dataset.labels()["dataset-1_bow_happy_001"]["style"] == "happy"


# --- mirroring and joining ----------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path) -> DatasetFolder:
    """Synthetic motions under the names of real ones."""
    dataset = DatasetFolder(tmp_path, create=True)
    kinds = {"walk": "walk", "wave-right-hand": "wave", "bow": "squat", "guide": "wave"}
    for content, motion in kinds.items():
        for i in range(3):
            dataset.write_motion(f"dataset-1_{content}_normal_{i:03d}", make_motion(motion, 100 + 20 * i, i))
    write_captions(dataset, BANDAI, count=2, seed=0)
    dataset.write_split("train", dataset.names())
    return dataset


@pytest.mark.parametrize("verb", ["captions --templates bandai-namco", "split", "mirror", "join"])
def test_of_two_commands_that_rewrite_labels_or_splits_one_is_refused(dataset, verb, capsys):
    """The labels that one of them wrote were once lost."""
    name, *flags = verb.split()
    with only_writer(dataset.root):
        assert main(["data", name, str(dataset.root), *flags]) == 1
    assert "another command is writing" in capsys.readouterr().err


def test_mirrored_clips_get_mirrored_labels(dataset):
    made, _ = mirror_split(dataset, BANDAI, "train", "train_aug")
    assert len(made) == 9  # guide is one-sided
    name = "M_dataset-1_wave-right-hand_normal_001"
    assert dataset.labels()[name]["content"] == "wave-left-hand"
    original = dataset.motion("dataset-1_wave-right-hand_normal_001")
    np.testing.assert_array_equal(dataset.motion(name), motion272.mirror(original))
    assert len(dataset.names("train_aug")) == 12 + 9
    assert len(dataset.names("train")) == 12
    assert mirrored_parts([{"content": "guide"}], BANDAI) is None


def test_clips_without_templates_are_mirrored_and_joined_with_their_own_captions(tmp_path):
    dataset = DatasetFolder(tmp_path, create=True)
    labels = {}
    for content, motion in {"walk": "walk", "wave": "wave", "sneak": "squat"}.items():
        for i in range(2):
            name = f"cmu_{content}_{i}"
            dataset.write_motion(name, make_motion(motion, 200, i))
            dataset.write_captions(name, [Caption(f"A person {content}s with the left foot {n}.") for n in range(3)])
            labels[name] = {"content": content, "style": "", "single": content == "walk"}
    dataset.write_labels(labels)
    dataset.write_split("train", dataset.names())
    mirrored, _ = mirror_split(dataset, BANDAI, "train", "train_aug")
    assert next(c.text for c in dataset.captions("M_cmu_walk_0")) == "A person walks with the right foot 0."
    assert len(mirrored) == 6
    made = join_split(dataset, None, "train_aug", "train_aug", JoinConfig(count=10, seed=1))
    assert len(made) >= 8
    for name in made:
        first, second = (part["content"] for part in dataset.labels()[name]["parts"])
        texts = [caption.text for caption in dataset.captions(name)]
        assert len(texts) == 3
        assert first != second
        assert all(re.fullmatch(rf"A person {first}s .*\d,? .*a person {second}s .*\.", text) for text in texts)


def test_joined_clips_are_two_different_actions_on_one_skeleton(dataset):
    made = join_split(dataset, BANDAI, "train", "train_aug", JoinConfig(count=12, seed=4))
    assert len(made) >= 10
    labels = dataset.labels()
    for name in made:
        first, second = labels[name]["parts"]
        assert first["content"] != second["content"]
        motion = dataset.motion(name).astype(np.float64)
        assert 60 < len(motion) <= 300
        assert 30 < labels[name]["join_frame"] < len(motion)
        joints = motion272.to_joints(motion)
        rotations, root = motion272.to_rotations(motion)
        rebuilt = forward_kinematics(rotations, root, bone_offsets(joints, rotations))
        assert np.abs(rebuilt - joints).max() < 1e-4
        assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() < 0.25  # no jump at the passage
    assert write_captions(dataset, BANDAI, count=2, seed=0) == {}
    again = join_split(dataset, BANDAI, "train", "train_aug", JoinConfig(count=12, seed=4))
    assert again == made


def test_the_second_clip_goes_on_from_where_the_first_stands():
    walk, wave = make_motion("turn-left", 90, 0), make_motion("wave", 80, 0)
    joined, at = join(walk, wave)
    joints, alone = motion272.to_joints(joined), motion272.to_joints(walk)
    np.testing.assert_allclose(joints[:at], alone[:at], atol=1e-9)
    after = joints[at + 12 :]
    moved = np.linalg.norm(after[:, 0, [0, 2]] - alone[at + 6, 0, [0, 2]], axis=-1)
    assert moved.max() < 0.3
    heading = motion272.to_rotations(joined)[0][-1, 0, :, 2]
    before = motion272.to_rotations(walk)[0][at + 6, 0, :, 2]
    assert np.dot(heading[[0, 2]], before[[0, 2]]) > 0.95


def test_the_passage_is_where_the_poses_are_nearest():
    walk = make_motion("walk", 120, 0)
    out_at, in_at, distance = find_passage(walk, walk, leave=(60, 60), enter=(0, 40))
    assert distance < 0.02
    rate = 30 / 0.9 / 1.0
    assert abs((60 - in_at) % rate) < 8 or abs((60 - in_at) % rate - rate) < 8  # a whole number of strides apart
    assert out_at == 60


def test_shortening_keeps_both_ends():
    wave = make_motion("wave", 150, 0)
    short = shorten(wave, 110)
    assert abs(len(short) - 110) <= 12
    np.testing.assert_allclose(short[:30, 8:74], wave[:30, 8:74], atol=1e-6)
    np.testing.assert_allclose(short[-30:, 8:74], wave[-30:, 8:74], atol=1e-6)
    assert shorten(wave, 200) is wave
    with pytest.raises(ValueError, match="cannot be shortened to 20"):
        shorten(wave, 20)
    with pytest.raises(ValueError, match="cannot start at frame 145"):
        join_at(wave, wave, 145, 0)


# --- prompts for tests of models ----------------------------------------------------------------------------------


def test_trials_cover_every_action_and_unseen_prompts_are_unseen():
    rows = trials(BANDAI, seeds=3, pairs=10)
    assert len(rows) == 3 * len(BANDAI.contents) + 10
    assert all(len(set(contents)) == 2 for _, _, contents, _ in rows[-10:])
    labels = {"a": {"content": "walk", "style": "old"}, "b": {"content": "bow", "style": "normal"}}
    assert {(c, s) for _, _, c, s in styled_trials(BANDAI, labels, 4)} == {(("walk",), "old")}
    phrases = {phrase.replace("*", "") for phrases in BANDAI.contents.values() for phrase in phrases}
    for prompt, _, (content,), style in unseen_trials():
        assert content in BANDAI.contents
        assert style is None or style in BANDAI.styles
        assert prompt not in phrases
