"""Captions with motions: which stretches there are, how they are cut, and which rows say the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hftrainer.config import ConfigError, typed
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.text_motion.pairs import TextMotion, TextMotionConfig, collate_text_motion


@pytest.fixture
def root(tmp_path):
    """Clips whose frames are numbered, so that a crop shows where it was taken."""
    folder = DatasetFolder(tmp_path / "data", create=True)
    for name, frames in (("long", 400), ("middle", 100), ("short", 19), ("parts", 120)):
        motion = np.zeros((frames, 272), np.float32)
        motion[:, 0] = np.arange(frames)
        folder.write_motion(name, motion)
    folder.write_captions("long", ["a person walks", "someone walks"])
    folder.write_captions("middle", ["a person waves"])
    folder.write_captions("short", ["too short"])
    folder.write_captions("parts", ["whole#whole/NOUN#0.0#0.0", "middle#m/NOUN#1.0#3.0", "tiny#t/NOUN#0.0#0.5"])
    folder.write_split("train", ["long", "middle", "short", "parts"])
    folder.write_split("val", ["middle", "long"])
    (folder.root / "mean_std").mkdir()
    mean = np.zeros(272, np.float32)
    mean[9] = 0.9
    np.save(folder.root / "mean_std" / "mean.npy", mean)
    np.save(folder.root / "mean_std" / "std.npy", np.ones(272, np.float32))
    return folder.root


def source(root, **settings) -> TextMotion:
    return TextMotion(typed(TextMotionConfig, {"root": str(root), "batch_size": 2, **settings}))


def test_stretches_are_whole_clips_and_captioned_parts(root):
    entries = source(root).train().entries
    assert [(e.name, e.start, e.end) for e in entries] == [
        ("long", 0, 400), ("middle", 0, 100), ("parts", 0, 120), ("parts", 30, 90),
    ]  # fmt: skip
    assert entries[0].captions == ("a person walks", "someone walks")
    assert entries[3].captions == ("middle",)


def test_crops_follow_the_releases_rule(root):
    dataset = source(root, longest=None).train()
    lengths, starts, captions = set(), set(), set()
    for seed in range(200):
        _, motion, _ = dataset[(1, seed)]
        lengths.add(len(motion))
        starts.add(int(motion[0, 0]))
        assert (np.diff(motion[:, 0]) == 1).all()
        captions.add(dataset[(0, seed)][0])
    assert lengths == {100, 96}
    assert starts == {0, 1, 2, 3, 4}
    assert captions == {"a person walks", "someone walks"}
    share = np.mean([len(dataset[(1, seed)][1]) == 96 for seed in range(600)])
    assert share == pytest.approx(1 / 3, abs=0.05)
    part = dataset[(3, 5)][1][:, 0]
    assert part[0] >= 30
    assert part[-1] < 90


def test_long_clips_are_shown_in_stretches(root):
    dataset = source(root).train()
    assert list(dataset.lengths) == [300, 100, 120, 60]
    starts = {int(dataset[(0, seed)][1][0, 0]) for seed in range(300)}
    assert {len(dataset[(0, seed)][1]) for seed in range(50)} == {300, 296}
    assert max(starts) > 90
    caption, motion, _ = dataset.plain(0)
    assert (caption, len(motion), motion[0, 0]) == ("a person walks", 300, 0)


def test_reading_from_disk_gives_the_same(root):
    in_memory, on_disk = source(root).train(), source(root, in_memory=False).train()
    for item in [(0, 1), (3, 2)]:
        np.testing.assert_array_equal(in_memory[item][1], on_disk[item][1])
    assert not on_disk._motions


def test_groups_are_what_labels_say(root):
    labels = {
        "long": {"content": "walk", "style": "happy"}, "middle": {"content": "walk", "style": "happy"},
        "parts": {"content": "joined", "parts": [{"content": "walk", "style": "a"}, {"content": "run", "style": "b"}]},
    }  # fmt: skip
    (root / "labels.json").write_text(json.dumps(labels))
    data = source(root, groups=["content", "style"])
    assert data.group("long") == data.group("middle") != data.group("parts")
    assert data.group("short") == -1
    labels["middle"]["style"] = "sad"
    (root / "labels.json").write_text(json.dumps(labels))
    data = source(root, groups=["content", "style"])
    assert len({data.group(name) for name in ("long", "middle", "parts")}) == 3
    assert source(root).group("long") == -1


def test_batches(root):
    data = source(root)
    rows = [data.train().plain(i) for i in (1, 3)]
    batch = collate_text_motion(rows)
    assert batch.motion.shape == (2, 100, 272)
    assert batch.lengths.tolist() == [100, 60]
    assert batch.captions == ["a person waves", "middle"]
    assert not batch.motion[1, 60:].any()
    assert torch.equal(batch.motion[1, :60, 0], torch.arange(30.0, 90.0))
    val = data.val()
    assert sorted(c for b in val for c in b.captions) == ["a person walks", "a person waves"]
    assert sorted(set(data.train_captions())) == sorted(
        ["a person walks", "someone walks", "a person waves", "too short", "whole", "middle", "tiny"]
    )
    plan = data.plan(data.train(), seed=1)
    assert sorted(i for n in range(2) for i, _ in plan.batch(n)) == [0, 1, 2, 3]


def test_even_drawing(root):
    labels = {"long": {"content": "walk"}, "middle": {"content": "walk"}, "parts": {"content": "run"}}
    (root / "labels.json").write_text(json.dumps(labels))
    data = source(root, balance="content")
    weights = data.plan(data.train(), seed=1).weights
    assert weights is not None
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.5, 0.5])


def test_mistakes(root):
    with pytest.raises(ConfigError, match="must be at least two units"):
        source(root, shortest=7)
    with pytest.raises(ConfigError, match="below shortest"):
        source(root, longest=10)
    with pytest.raises(ConfigError, match=r"shorten_prob must be at least 0 and at most 1, got 2.0"):
        source(root, shorten_prob=2.0)
    (root / "texts" / "middle.txt").unlink()
    with pytest.raises(ValueError, match="clip 'middle' of split 'train' has no caption"):
        source(root).train()
    (root / "split" / "train.txt").write_text("short\n")
    with pytest.raises(ValueError, match="has no clip of 20 frames"):
        source(root).train()
