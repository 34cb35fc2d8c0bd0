"""Converting folders: records, reruns, broken files, exit status."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hftrainer.cli import main
from hftrainer.data.prepare.representation import MANIFEST, convert_folder
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.representation.convert import motion272_to_hml263, motion272_to_joints
from hftrainer.motion.representation.motion135 import CANON272_OFFSETS


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "in"
    for i, name in enumerate(("000001", "M000001", "deep/er")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", make_motion("walk", 40 + i, i))
    return root


def command(folder, out, *more, target="hml263"):
    return main(["data", "convert-representation", str(folder), "--from", "motion272", "--to", target,
                 "--out", str(out), *more])  # fmt: skip


def test_every_file_is_converted_once(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(folder, out) == 0
    assert "3 converted, 0 kept, 0 failed" in capsys.readouterr().out
    got = np.load(out / "deep/er.npy")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, motion272_to_hml263(np.load(folder / "deep/er.npy").astype(float)), atol=1e-6)
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["settings"] == {"from": "motion272", "to": "hml263"}
    assert manifest["clips"]["deep/er"] | {"source": "", "sha256": ""} == {
        "source": "", "sha256": "", "source_frames": 42, "frames": 27, "fps": 20.0,
    }  # fmt: skip
    assert command(folder, out) == 0
    assert "0 converted, 3 kept" in capsys.readouterr().out


def test_what_changed_on_either_side_is_made_again(folder, tmp_path):
    out = tmp_path / "out"
    convert_folder(folder, out, "motion272", "hml263")
    (out / "000001.npy").write_bytes((out / "000001.npy").read_bytes()[:200])  # a damaged result
    np.save(folder / "M000001.npy", make_motion("squat", 30, 0))  # another source
    report = convert_folder(folder, out, "motion272", "hml263")
    assert (report.made, report.kept) == (["000001", "M000001"], ["deep/er"])
    assert np.load(out / "000001.npy").shape == (26, 263)
    assert np.load(out / "M000001.npy").shape == (19, 263)


def test_results_are_never_taken_for_sources(folder, tmp_path, capsys):
    """A second run into a folder of the source once failed for the results of the first."""
    for out in (folder, folder / "out", folder / "deep" / "out"):
        assert command(folder, out) == 1
        assert "or inside it" in capsys.readouterr().err
    assert command(folder / "deep", tmp_path / "in") == 1
    assert "no results of a conversion" in capsys.readouterr().err
    assert len(list(folder.rglob("*"))) == 4


def test_an_interrupted_run_goes_on(folder, tmp_path):
    out = tmp_path / "out"

    def stop_after_one(names):
        yield names[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_folder(folder, out, "motion272", "hml263", progress=stop_after_one)
    report = convert_folder(folder, out, "motion272", "hml263")
    assert len(report.kept) == 1
    assert len(report.made) == 2


def test_broken_files_are_named_and_the_exit_status_is_1(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(folder, out) == 0
    nan = make_motion("walk", 40, 0)
    nan[7] = np.nan
    np.save(folder / "000001.npy", nan)
    np.save(folder / "wide.npy", np.zeros((10, 263), np.float32))
    np.save(folder / "short.npy", make_motion("walk", 2, 0))
    (folder / "empty.npy").write_bytes(b"")
    np.save(folder / "pickle.npy", np.array([{}], dtype=object))
    assert command(folder, out) == 1
    shown = capsys.readouterr()
    assert "0 converted, 2 kept, 5 failed" in shown.out
    for part in ("000001.npy: frame 7 holds a NaN", "expected floats (frames, 272) of motion272, got (10, 263)",
                 "2 frames at 30 fps are 1 at 20 fps", "empty.npy cannot be read",
                 "pickle.npy cannot be read"):  # fmt: skip
        assert part in shown.err
    assert not (out / "000001.npy").exists()  # what was made of the older file is not left behind
    assert json.loads((out / MANIFEST).read_text())["failed"].keys() == {"000001", "wide", "short", "empty", "pickle"}


def test_other_settings_need_another_folder(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(folder, out, target="motion135") == 0
    assert command(folder, out, "--layout", "columns", target="motion135") == 1
    assert "choose another --out" in capsys.readouterr().err
    assert command(folder, folder, target="motion135") == 1
    assert "or inside it" in capsys.readouterr().err


def test_options_reach_the_conversion(folder, tmp_path):
    np.save(tmp_path / "skeleton.npy", np.array(CANON272_OFFSETS))
    convert_folder(folder, tmp_path / "out", "motion272", "joints", skeleton=tmp_path / "skeleton.npy")
    motion = np.load(folder / "000001.npy").astype(float)
    want = motion272_to_joints(motion, offsets=np.array(CANON272_OFFSETS))
    np.testing.assert_allclose(np.load(tmp_path / "out/000001.npy"), want, atol=1e-6)
    report = convert_folder(tmp_path / "out", tmp_path / "slow", "joints", "hml263", fps=20.0)
    assert len(report.made) == 3
    assert np.load(tmp_path / "slow/000001.npy").shape == (39, 263)


def test_what_cannot_be_done_is_said_before_work(folder, tmp_path):
    with pytest.raises(ValueError, match="source and target are both motion272"):
        convert_folder(folder, tmp_path / "out", "motion272", "motion272")
    with pytest.raises(ValueError, match=r"no \.npy files"):
        convert_folder(tmp_path / "nothing", tmp_path / "out", "motion272", "hml263")
    assert not (tmp_path / "out").exists()
