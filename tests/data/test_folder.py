"""Dataset folders: the layouts that exist, captions, statistics, splits, verification."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.folder import Caption, DatasetFolder, parse_caption
from hftrainer.data.prepare.splits import split_names
from hftrainer.data.prepare.verify import verify
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.representation.spec import MOTION272
from hftrainer.motion.statistics import compute_statistics


def test_upstreams_layout_opens_as_it_is(tmp_path):
    """motion_data/vector_272, mean_std/vector_272, splits in folders, names in folders."""
    for folder in ("motion_data/vector_272/MotionGV/folder0", "mean_std/vector_272", "split/version1/t2m_60_300"):
        (tmp_path / folder).mkdir(parents=True)
    motion = make_motion("walk", 60, 0)
    np.save(tmp_path / "motion_data/vector_272/MotionGV/folder0/a.npy", motion)
    mean, std = compute_statistics([motion], get_representation("motion272"))
    np.save(tmp_path / "mean_std/vector_272/mean.npy", mean)
    np.save(tmp_path / "mean_std/vector_272/std.npy", std)
    (tmp_path / "split/version1/t2m_60_300/train.txt").write_text("MotionGV/folder0/a\n")
    dataset = DatasetFolder(tmp_path)
    assert dataset.names() == dataset.names("version1/t2m_60_300/train") == ["MotionGV/folder0/a"]
    assert dataset.frames("MotionGV/folder0/a") == 60
    np.testing.assert_allclose(dataset.statistics()[0], mean, atol=1e-7)


def test_humanml3ds_capital_statistics_and_captions(tmp_path):
    (tmp_path / "mean_std").mkdir()
    (tmp_path / "texts").mkdir()
    mean, std = compute_statistics([make_motion("walk", 60, 0)], get_representation("motion272"))
    np.save(tmp_path / "mean_std/Mean.npy", mean)
    np.save(tmp_path / "mean_std/Std.npy", std)
    lines = "a man walks.#a/DET man/NOUN walk/VERB#0.0#0.0\nhe turns#he/PRON turn/VERB#1.5#nan\n\nplain # sentence\n"
    (tmp_path / "texts/000001.txt").write_text(lines)
    dataset = DatasetFolder(tmp_path)
    np.testing.assert_allclose(dataset.statistics()[1], std, rtol=1e-6)
    assert dataset.captions("000001") == [
        Caption("a man walks."), Caption("he turns", 1.5, 0.0), Caption("plain # sentence"),
    ]  # fmt: skip
    assert dataset.captions("000002") == []
    assert parse_caption("x#y#a#b") == Caption("x#y#a#b")
    assert parse_caption("is #1#is/AUX#0#2").text == "is #1"
    for caption in (Caption("sits"), Caption("is #1", 0.5, 2.0, "is/AUX"), Caption("sits", 1.0, 2.5)):
        assert parse_caption(str(caption)) == caption


def test_statistics_equal_numpy_and_groups_share_one_deviation():
    clips = [make_motion("walk", 50, 0), make_motion("wave", 70, 1)]
    everything = np.concatenate(clips)
    mean, std = compute_statistics(clips, get_representation("motion272"), grouped=False)
    np.testing.assert_allclose(mean, everything.mean(0), atol=1e-12)
    np.testing.assert_allclose(std, np.maximum(everything.std(0), 1e-8), atol=1e-9)
    _, grouped = compute_statistics(clips, get_representation("motion272"))
    for channel in MOTION272.channels:
        part = MOTION272[channel]
        np.testing.assert_allclose(grouped[part], everything.std(0)[part].mean(), atol=1e-7)
    mirrored, _ = compute_statistics(clips, get_representation("motion272"), with_mirrored=True)
    both = np.concatenate([*clips, *map(motion272.mirror, clips)])
    np.testing.assert_allclose(mirrored, both.mean(0), atol=1e-12)
    with pytest.raises(ValueError, match="at least one clip"):
        compute_statistics([], get_representation("motion272"))


def test_splits_are_disjoint_complete_and_hold_every_label():
    labels = {f"{label}{i}": label for label, n in {"a": 100, "b": 10, "c": 5, "d": 2}.items() for i in range(n)}
    parts = split_names(list(labels), labels, val=0.1, test=0.2, seed=3)
    joined = parts["train"] + parts["val"] + parts["test"]
    assert sorted(joined) == parts["all"] == sorted(labels)
    count = {part: {label: sum(labels[n] == label for n in names) for label in "abcd"} for part, names in parts.items()}
    assert count["test"] == {"a": 20, "b": 2, "c": 1, "d": 0}
    assert count["val"] == {"a": 10, "b": 1, "c": 1, "d": 0}
    assert split_names(list(labels), labels, val=0.1, test=0.2, seed=3) == parts
    assert split_names(list(labels), labels, val=0.1, test=0.2, seed=4) != parts
    with pytest.raises(ValueError, match="leave some for training"):
        split_names(["a"], {}, val=0.5, test=0.5)


BREAK = {
    "unreadable, NaN or wrong shape": lambda d, n: d.motion_path(n).write_bytes(b"no numpy"),
    "no caption": lambda d, n: (d.texts / f"{n}.txt").unlink(),
    "in split train without a motion file": lambda d, n: d.write_split("train", [*d.names("train"), "gone"]),
    "in both test and train": lambda d, n: d.write_split("train", [*d.names("train"), d.names("test")[0]]),
    "split has duplicate names": lambda d, n: d.write_split("all", [*d.names("all"), n]),
    "statistics do not describe these motions": lambda d, n: np.save(
        d.root / "mean_std/std.npy", 10 * np.load(d.root / "mean_std/std.npy")
    ),
    "a joint moves more than": lambda d, n: d.write_motion(n, d.motion(n) + 0.6 * (np.arange(272) == 0)),
    "root not at the origin": lambda d, n: d.write_motion(n, d.motion(n) + 0.1 * (np.arange(272) == 8)),
    "normalized (z-scores)": lambda d, n: d.write_motion(n, d.motion(n) + 1),
    "velocities that do not belong": lambda d, n: d.write_motion(n, d.motion(n) * [*[1] * 74, *[99] * 66, *[1] * 132]),
}


@pytest.mark.parametrize("problem", BREAK)
def test_verify_finds_each_problem(synthetic, tmp_path, problem):
    import shutil

    dataset = DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))
    assert verify(dataset).good
    BREAK[problem](dataset, dataset.names("train")[0])
    report = verify(dataset)
    assert not report.good
    assert any(problem in found for found in report.problems), report.problems
    assert any(line.startswith("WRONG") for line in report.lines())


def test_missing_things_are_named(tmp_path):
    with pytest.raises(ValueError, match="there is no dataset folder"):
        DatasetFolder(tmp_path / "nowhere")
    dataset = DatasetFolder(tmp_path)
    with pytest.raises(ValueError, match="has no split 'train'"):
        dataset.names("train")
    with pytest.raises(ValueError, match="hftrainer data stats"):
        dataset.statistics()
    assert not verify(dataset).good


def test_an_empty_motion_file_is_named(tmp_path):
    folder = DatasetFolder(tmp_path, create=True)
    folder.motions.mkdir()
    folder.motion_path("a").write_bytes(b"")
    for read in (folder.motion, folder.frames):
        with pytest.raises(ValueError, match=r"a\.npy cannot be read as a numpy array"):
            read("a")
