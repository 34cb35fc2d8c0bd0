"""Data sets that say what their motions are: conversion, statistics, packed sets, and what does not fit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from hftrainer.cli import main
from hftrainer.data.flat import PackedTokens
from hftrainer.data.folder import REPRESENTATION, DatasetFolder
from hftrainer.data.motion.packed import PackedMotions, PackedWindows, PackedWindowsConfig, pack_motions
from hftrainer.data.motion.windows import MotionWindows, MotionWindowsConfig
from hftrainer.data.prepare.convert_dataset import convert_dataset
from hftrainer.data.prepare.verify import verify
from hftrainer.data.synthetic.datasets import SyntheticWindows, SyntheticWindowsConfig
from hftrainer.data.synthetic.motions import make_motion, write_tokens
from hftrainer.data.tokens.captioned import TextTokens, TextTokensConfig
from hftrainer.data.tokens.pack import pack_tokens
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.representation.convert import motion272_to_hml263
from hftrainer.motion.statistics import compute_statistics


@pytest.fixture(scope="module")
def hml(synthetic, tmp_path_factory) -> DatasetFolder:
    out = tmp_path_factory.mktemp("hml") / "data"
    command = ["data", "convert-representation", str(synthetic), "--to", "hml263", "--out", str(out)]
    assert main(command) == 0
    return DatasetFolder(out)


def test_a_data_set_becomes_one_of_another_representation(synthetic, hml):
    source = DatasetFolder(synthetic)
    assert (source.representation, hml.representation) == ("motion272", "hml263")
    assert not (source.root / REPRESENTATION).exists()
    assert hml.names() == source.names()
    assert {split: hml.names(split) for split in hml.splits()} == {s: source.names(s) for s in source.splits()}
    name = source.names()[3]
    assert hml.captions(name) == source.captions(name)
    assert hml.labels() == source.labels()
    np.testing.assert_allclose(hml.motion(name), motion272_to_hml263(source.motion(name).astype(np.float64)), atol=1e-6)
    mean, std = hml.statistics()
    wanted = compute_statistics(map(hml.motion, hml.names("train")), get_representation("hml263"))
    np.testing.assert_allclose((mean, std), wanted, rtol=1e-6)
    assert len(set(std[4:67].tolist())) == 1
    report = verify(hml)
    assert report.good, report.problems
    assert "of hml263" in report.facts["motions"]


@pytest.mark.parametrize("target", ["joints", "joints66"])
def test_a_data_set_of_joints_has_rows_and_can_be_read_again(synthetic, tmp_path, target):
    assert not convert_dataset(synthetic, tmp_path / target, target).failed
    made, name = DatasetFolder(tmp_path / target), DatasetFolder(synthetic).names("train")[0]
    assert made.motion(name).shape == (len(DatasetFolder(synthetic).motion(name)), 66)
    assert verify(made).good
    assert not convert_dataset(tmp_path / target, tmp_path / "back", "hml263").failed


def test_a_second_conversion_makes_what_changed(synthetic, tmp_path, capsys):
    source = shutil.copytree(synthetic, tmp_path / "in")
    out = tmp_path / "out"
    convert_dataset(source, out, "joints66")
    name = DatasetFolder(source).names("train")[0]
    DatasetFolder(source).write_motion(name, make_motion("squat", 50, 9))
    bad = DatasetFolder(source).names("train")[1]
    DatasetFolder(source).motion_path(bad).write_bytes(b"no numpy")
    report = convert_dataset(source, out, "joints66")
    assert report.made == [name]
    assert list(report.failed) == [bad]
    made = DatasetFolder(out)
    assert made.motion(name).shape == (50, 66)
    assert bad not in made.names("train")
    assert set(verify(made).problems) <= {"unreadable, NaN or wrong shape"}
    command = ["data", "convert-representation", str(source), "--from", "hml263", "--to", "joints66", "--out", "x"]
    assert main(command) == 1
    assert "is a dataset of motion272, not of hml263" in capsys.readouterr().err


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_gone_in_the_source_leaves(synthetic, tmp_path):
    """A clip, captions and a split that were removed once stayed in the converted dataset."""
    source, out = shutil.copytree(synthetic, tmp_path / "in"), tmp_path / "out"
    convert_dataset(source, out, "joints66")
    gone, silent, *_ = DatasetFolder(source).names("train")
    (out / "split" / "mine.txt").write_text(f"{silent}\n")
    for path in (f"motion_data/{gone}.npy", f"texts/{gone}.txt", f"texts/{silent}.txt", "split/test.txt"):
        (source / path).unlink()
    for split in DatasetFolder(source).splits():
        DatasetFolder(source).write_split(split, [n for n in DatasetFolder(source).names(split) if n != gone])
    assert convert_dataset(source, out, "joints66").left == [gone]
    (out / "split" / "mine.txt").unlink()
    convert_dataset(source, tmp_path / "fresh", "joints66")
    assert content(out) == content(tmp_path / "fresh")


def test_statistics_follow_after_a_kill(synthetic, tmp_path, monkeypatch):
    """A run that was killed after its last clip once left the statistics of the clips before for good."""
    source, out = shutil.copytree(synthetic, tmp_path / "in"), tmp_path / "out"
    convert_dataset(source, out, "joints66")
    name = DatasetFolder(source).names("train")[0]
    DatasetFolder(source).write_motion(name, make_motion("squat", 50, 9))
    monkeypatch.setattr("hftrainer.data.prepare.convert_dataset.write_statistics", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert_dataset(source, out, "joints66")
    monkeypatch.undo()
    convert_dataset(source, out, "joints66")
    convert_dataset(source, tmp_path / "fresh", "joints66")
    assert content(out) == content(tmp_path / "fresh")


def test_other_settings_and_other_datasets_stay_as_they_are(synthetic, hml, tmp_path):
    """A refused conversion once changed what the dataset says that it holds, and one into a dataset replaced it."""
    other = shutil.copytree(synthetic, tmp_path / "other")
    for out, target in ((hml.root, "joints66"), (other, "hml263"), (synthetic / "motion_data" / "in", "hml263")):
        before = content(out) if out.is_dir() else None
        with pytest.raises(ValueError, match="choose a"):
            convert_dataset(synthetic, out, target)
        assert (content(out) if out.is_dir() and before is not None else None) == before
    shutil.rmtree(synthetic / "motion_data" / "in", ignore_errors=True)


def test_a_synthetic_dataset_is_replaced_whole_and_no_other(tmp_path, capsys):
    """One of fewer clips once left clips of the one before, and any dataset's splits and labels were replaced."""

    def make(out, clips):
        return main(["data", "synthetic", "--out", str(tmp_path / out), "--clips", str(clips)])

    assert make("a", 7) == make("a", 5) == make("b", 5) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert main(["data", "mirror", str(tmp_path / "a"), "--split", "all"]) == 0
    before = content(tmp_path / "a")
    assert make("a", 5) == 1
    assert "holds more than a synthetic dataset" in capsys.readouterr().err
    assert content(tmp_path / "a") == before


def test_a_synthetic_dataset_is_there_whole_or_not(tmp_path, monkeypatch):
    """Training that was killed while it made its data once found a dataset without statistics for ever."""
    monkeypatch.setattr("hftrainer.data.synthetic.motions.write_statistics", lambda *_, **__: 1 / 0)
    config = SyntheticWindowsConfig(root=str(tmp_path / "data"), clips=5)
    with pytest.raises(ZeroDivisionError):
        SyntheticWindows(config)
    monkeypatch.undo()
    SyntheticWindows(config)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_mirrored_windows_are_the_representations(hml):
    windows = MotionWindows(MotionWindowsConfig(root=str(hml.root), mirror=1.0, window=20))
    assert windows.representation == "hml263"
    train = windows.train()
    name, motion = train[(0, 5)]
    whole = get_representation("hml263").mirror(hml.motion(name))
    assert any(np.array_equal(whole[i : i + 20], motion) for i in range(len(whole) - 19))


def test_packed_sets_keep_the_name(hml, tmp_path):
    pack_motions(hml, tmp_path / "motions", dtype="float16")
    packed = PackedMotions(tmp_path / "motions")
    assert packed.representation == "hml263"
    assert packed.motion.shape[1] == 263
    np.testing.assert_array_equal(packed.statistics(), hml.statistics())
    assert PackedWindows(PackedWindowsConfig(root=str(tmp_path / "motions"))).representation == "hml263"
    data = DatasetFolder(shutil.copytree(hml.root, tmp_path / "data"))
    write_tokens(data, codebook_size=240)
    assert TextTokens(TextTokensConfig(root=str(data.root))).representation == "hml263"
    pack_tokens(data, tmp_path / "tokens")
    assert PackedTokens(tmp_path / "tokens").representation == "hml263"


def test_a_caption_of_a_part_is_timed_at_the_rate_of_the_motions(hml, tmp_path):
    """Seconds 1 to 2 are frames 20 to 40 of a data set at 20 fps, codes 10 to 20."""
    data = DatasetFolder(shutil.copytree(hml.root, tmp_path / "data"))
    write_tokens(data, codebook_size=240)
    name = next(n for n in data.names("train") if data.frames(n) > 50)
    data.write_split("train", [name])
    (data.texts / f"{name}.txt").write_text("a person waves#a/DET#1.0#2.0\n")
    rules = {"root": str(data.root), "drop_token": 0.0, "batch_size": 1}
    rows = TextTokens(TextTokensConfig(**rules)).train()
    caption, codes = rows[(0, 7)]
    assert caption == "a person waves"
    np.testing.assert_array_equal(codes, rows.table.codes[rows.table.offsets[rows.entries[0]] :][10:20])
    assert len(TextTokens(TextTokensConfig(**rules, fps=30.0)).train()[(0, 7)][1]) == 15


def test_what_the_folder_says_must_be_known_and_fit(synthetic, tmp_path):
    root = shutil.copytree(synthetic, tmp_path / "data")
    (root / REPRESENTATION).write_text(json.dumps({"representation": "hml264"}))
    with pytest.raises(ValueError, match=r"representation\.json: .*Did you mean 'hml263'"):
        DatasetFolder(root)
    (root / REPRESENTATION).write_text("{}")
    with pytest.raises(ValueError, match=r"representation\.json: expected .* got None"):
        DatasetFolder(root)
    (root / REPRESENTATION).write_text(json.dumps({"representation": "hml263"}))
    folder = DatasetFolder(root)
    with pytest.raises(ValueError, match=r"expected floats \(frames, 263\) of hml263, got \(\d+, 272\)"):
        folder.motion(folder.names()[0])
    with pytest.raises(ValueError, match=r"expected floats \(263,\) of hml263"):
        folder.statistics()


@pytest.mark.parametrize("kind", ["z-scored", "centimetres", "sign", "frozen"])
def test_verify_names_what_a_263_is_not(hml, tmp_path, kind):
    data = DatasetFolder(shutil.copytree(hml.root, tmp_path / "data"))
    mean, std = data.statistics()
    spoil = {
        "z-scored": lambda m: (m - mean) / std,
        "centimetres": lambda m: m * [1.0, *[100.0] * 66, *[1.0] * 126, *[100.0] * 66, *[1.0] * 4],
        "sign": lambda m: -m,
        "frozen": lambda m: m[:1].repeat(len(m), 0),
    }[kind]
    for name in data.names():
        data.write_motion(name, spoil(data.motion(name)))
    found = verify(data).problems
    wanted = {"z-scored": "normalized", "centimetres": "bones that are too long", "sign": "upside down",
              "frozen": "nothing moves"}[kind]  # fmt: skip
    assert any(problem.startswith(wanted) for problem in found), found
