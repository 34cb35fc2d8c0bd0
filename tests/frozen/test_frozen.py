"""Artifacts that released versions wrote load with this one and give the numbers that they gave."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from hftrainer import cli
from hftrainer.models.checkpoint import open_checkpoint
from tests.frozen.make import TRAIN
from tests.frozen.read import read

HERE = Path(__file__).parent
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz"))
# Float32 through a few layers: processors multiply and add in another order, which has been seen to change the last
# two or three digits. Anything that is a different computation (another rotary table, normalization, body) is larger.
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(params=VERSIONS)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unpacked artifacts of a version."""
    with tarfile.open(HERE / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path / request.param, filter="data")
    return tmp_path / str(request.param)


def test_there_are_frozen_versions_and_they_stay_small():
    assert "0.2.0" in VERSIONS
    assert all((HERE / f"{version}.tar.xz").stat().st_size < 300_000 for version in VERSIONS)


def test_artifacts_give_what_they_gave(frozen):
    found = read(frozen)
    with np.load(frozen / "expected.npz") as expected:
        assert set(expected.files) <= set(found)
        for name in expected.files:
            if expected[name].dtype.kind == "f":
                np.testing.assert_allclose(found[name], expected[name], err_msg=name, **TOLERANCE)
            else:
                np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_finished_motions_are_kept(frozen, capsys):
    """The manifest's keys and hashes still mean the same: the same command makes nothing again."""
    files = list((frozen / "generated").glob("*.npy"))
    before = [path.stat().st_mtime_ns for path in files]
    prompt = "a person walks forward, then waves"
    line = ["generate", prompt, "--model", str(frozen / "model"), "--seconds", "0.3", "--formats", "npy", "--device",
            "cpu", "--out", str(frozen / "generated")]  # fmt: skip
    assert cli.main(line) == 0, capsys.readouterr().err
    assert [path.stat().st_mtime_ns for path in files] == before
    assert list((frozen / "generated").glob("*.npy")) == files


@pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning")  # by a newer one
def test_runs_are_continued(frozen, synthetic):
    pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")
    run = frozen / "run"
    before = open_checkpoint(run / "checkpoints/last.ckpt")
    old = {name: before[name].clone() for name in before}
    line = [*TRAIN, f"data.root={synthetic}", f"output_dir={run}", "trainer.max_steps=5"]
    assert cli.main([*line, "resume.allow=[data.root,trainer.max_steps]"]) == 0
    after = open_checkpoint(run / "checkpoints/last.ckpt")
    assert set(after) == set(old)
    moved = max(float((after[name].double() - old[name].double()).abs().max()) for name in old)
    assert 0 < moved < 0.1  # one step further, not a fresh start
