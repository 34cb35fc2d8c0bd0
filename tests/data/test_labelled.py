"""Clips with their labels: which are taken, how they are cropped, and how often each label comes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.text_motion.labelled import LabelledClips, LabelledClipsConfig, collate_labelled

FRAMES = {"walk-1": 50, "walk-2": 400, "walk-3": 60, "wave-1": 30}


@pytest.fixture
def root(tmp_path):
    """Clips whose frames are numbered."""
    folder = DatasetFolder(tmp_path / "data", create=True)
    for name, frames in {**FRAMES, "joined": 90}.items():
        motion = np.zeros((frames, 272), np.float32)
        motion[:, 0] = np.arange(frames)
        folder.write_motion(name, motion)
    labels = {n: {"content": n.partition("-")[0], "style": "sad" if n == "walk-3" else "normal"} for n in FRAMES}
    joined = {"content": "joined", "parts": [labels["walk-1"], labels["wave-1"]]}
    folder.write_labels({**labels, "joined": joined})
    folder.write_split("train_aug", [*FRAMES, "joined"])
    folder.write_split("val", ["walk-2", "wave-1", "joined"])
    (folder.root / "mean_std").mkdir()
    mean = np.zeros(272, np.float32)
    mean[9] = 0.9
    np.save(folder.root / "mean_std" / "mean.npy", mean)
    np.save(folder.root / "mean_std" / "std.npy", np.ones(272, np.float32))
    return folder.root


def clips(root, **settings) -> LabelledClips:
    return LabelledClips(LabelledClipsConfig(root=str(root), batch_size=2, **settings))


def test_joined_clips_have_no_one_label_and_are_left_out(root):
    data = clips(root)
    assert data.contents == ["walk", "wave"]
    assert data.styles == ["normal", "sad"]
    assert data.train().names == list(FRAMES)


def test_crops_lie_in_their_clip_and_are_long_enough(root):
    dataset = clips(root, whole=0.5).train()
    seen = [dataset[(1, seed)] for seed in range(300)]
    lengths = np.array([len(motion) for motion, _, _ in seen])
    assert (lengths == 300).mean() == pytest.approx(0.5, abs=0.1)
    assert lengths.min() >= 40
    assert lengths.min() < 60
    starts = [int(motion[0, 0]) for motion, _, _ in seen]
    assert min(starts) < 20
    assert max(starts) > 300
    for motion, content, style in seen[:20]:
        assert (np.diff(motion[:, 0]) == 1).all()
        assert (content, style) == (0, 0)
    assert {len(dataset[(3, seed)][0]) for seed in range(50)} == {30}  # shorter than the shortest crop: whole
    assert dataset[(2, 0)][1:] == (0, 1)
    np.testing.assert_array_equal(dataset[(1, 7)][0], dataset[(1, 7)][0])


def test_validation_shows_whole_clips_by_length(root):
    (batch,) = clips(root).val()
    assert batch.lengths.tolist() == [30, 300]
    assert batch.content.tolist() == [1, 0]
    assert torch.equal(batch.motion[0, :30, 0], torch.arange(30.0))
    assert not batch.motion[0, 30:].any()
    assert clips(root, val_split=None).val() == []


def test_contents_are_drawn_evenly(root):
    even, plain = clips(root, balance_power=1.0), clips(root, balance_power=0.0)
    counts = []
    for data in (even, plain):
        dataset = data.train()
        drawn = [i for number in range(500) for i, _ in data.plan(dataset, seed=1).batch(number)]
        counts.append(np.mean([dataset.names[i] == "wave-1" for i in drawn]))
    assert counts[0] == pytest.approx(0.5, abs=0.06)
    assert counts[1] == pytest.approx(0.25, abs=0.06)


def test_batches(root):
    dataset = clips(root).train()
    batch = collate_labelled([dataset[(i, 0)] for i in (2, 3)])
    assert batch.motion.shape[0] == 2
    assert batch.content.tolist() == [0, 1]
    assert batch.style.tolist() == [1, 0]


def test_a_folder_without_labels_says_so(root):
    (root / "labels.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="has no clip with one content and style"):
        clips(root).train()
