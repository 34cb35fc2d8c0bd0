"""Packed motions give what the folder gives, and read no more than a window."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.motion.packed import PackedMotions, pack_motions
from hftrainer.motion.representation import motion272
from hftrainer.registry import DATASETS


@pytest.fixture
def dataset(synthetic, tmp_path) -> DatasetFolder:
    return DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))


def pair(dataset, **rules):
    packed = dataset.root / "packed_motions"
    if not packed.is_dir():
        pack_motions(dataset, packed)
    return [
        DATASETS.build({"name": name, "root": str(root), "batch_size": 6, "val_batch_size": 4, **rules})
        for name, root in (("motion_windows", dataset.root), ("packed_windows", packed))
    ]


def same(a, b) -> bool:
    return a.names == b.names and torch.equal(a.motion, b.motion) and torch.equal(a.lengths, b.lengths)


@pytest.mark.parametrize(
    "rules",
    [
        {"window": 64},
        {"window": 100, "short_clips": "skip", "draw_by": "frames", "mirror": 0.5},
        {"balance": "content"},
    ],
    ids=["plain", "by_frames", "balanced"],
)
def test_a_packed_set_gives_the_windows_of_its_folder(dataset, rules):
    folder, packed = pair(dataset, **rules)
    trains = [source.train() for source in (folder, packed)]
    plans = [source.plan(train, seed=2) for source, train in zip((folder, packed), trains, strict=True)]
    for number in range(10):
        assert plans[0].batch(number) == plans[1].batch(number)
        a, b = (folder.collate([train[item] for item in plans[0].batch(number)]) for train in trains)
        assert same(a, b)
    assert len(packed.val()) == len(folder.val()) == 2
    assert all(same(a, b) for a, b in zip(packed.val(), folder.val(), strict=True))
    np.testing.assert_array_equal(packed.statistics[1], folder.statistics[1])


def test_half_precision_says_what_it_costs(dataset):
    counts = pack_motions(dataset, dataset.root / "half", dtype="float16", splits=["val"])
    packed = PackedMotions(dataset.root / "half")
    assert packed.motion.dtype == np.float16
    assert packed.verify() == []
    errors = []
    for i, name in enumerate(dataset.names("val")):
        assert packed.name_of(i) == name
        moved = motion272.to_joints(packed[i]) - motion272.to_joints(dataset.motion(name))
        errors.append(np.linalg.norm(moved, axis=-1).max() * 1000)
    assert counts.error_mm == pytest.approx(max(errors))
    assert 0.01 < counts.error_mm < 20
    assert packed.made_from["float16_error_mm"] == counts.error_mm
    sent = pickle.dumps(packed)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent)[0], packed[0])  # noqa: S301


def test_a_clip_that_cannot_be_used_is_named(dataset):
    name = dataset.names("train")[2]
    broken = dataset.motion(name)
    broken[5, 7] = np.nan
    dataset.write_motion(name, broken)
    with pytest.raises(ValueError, match=rf"{name}.npy: frame 5 holds a NaN"):
        pack_motions(dataset, dataset.root / "packed_motions")
    assert not (dataset.root / "packed_motions").exists()
    with pytest.raises(ValueError, match="one of float32, float16, got 'int8'"):
        pack_motions(dataset, dataset.root / "packed_motions", dtype="int8")
