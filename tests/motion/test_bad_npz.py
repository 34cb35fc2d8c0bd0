"""What a .npz of a motion must hold, and what becomes of other files exported with a bad one."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.apps.export_files import export_files
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.body import BodyMotion, smpl_body
from hftrainer.motion.fit import pose
from hftrainer.motion.io.npz import amass_arrays, motion_arrays
from hftrainer.motion.io.read_body import read_motions
from hftrainer.render.export import ExportOptions

MOTION = pose(make_motion("walk", 20, 3).astype(np.float64), smpl_body())
OURS, AMASS = motion_arrays(MOTION), amass_arrays(MOTION)


def without_parts(arrays, **changed):
    """AMASS's arrays with all poses in one."""
    return {key: value for key, value in arrays.items() if key not in ("root_orient", "pose_body")} | changed


BAD = {
    "offsets": (OURS | {"bone_offsets": np.zeros((5, 3))}, r"'bone_offsets': expected shape \(22, 3\), got \(5, 3\)"),
    "flat-offsets": (OURS | {"bone_offsets": np.ones(66)}, r"'bone_offsets': expected shape \(22, 3\), got \(66,\)"),
    "rates": (OURS | {"fps": np.array([30.0, 60.0])}, r"'fps': expected one number, got shape \(2,\)"),
    "zero": (OURS | {"rotations": 0 * OURS["rotations"]}, "'rotations': expected rotation matrices"),
    "mirrored": (OURS | {"rotations": -OURS["rotations"]}, "'rotations': expected rotation matrices"),
    "doubled": (OURS | {"rotations": 2 * OURS["rotations"]}, "'rotations': expected rotation matrices"),
    "nan-path": (OURS | {"root_position": np.full((20, 3), np.nan)}, "finite root positions"),
    "short-path": (OURS | {"root_position": np.zeros((19, 3))}, r"got \(20, 22, 3, 3\) and \(19, 3\)"),
    "poses": (without_parts(AMASS, poses=np.zeros(165)), r"'poses': expected 20 frames .* got shape \(165,\)"),
    "trans": (AMASS | {"trans": np.zeros((20, 2))}, r"'trans': expected shape \(frames, 3\), got \(20, 2\)"),
    "mocap-rates": (AMASS | {"mocap_frame_rate": np.ones(3)}, "'mocap_frame_rate': expected one number"),
    "joints": (AMASS | {"pose_body": np.zeros((20, 21, 3))}, r"'pose_body': expected shape \(20, 63\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_no_motion_are_refused_by_file_and_name(tmp_path, name):
    arrays, words = BAD[name]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=rf"bad\.npz.*{words}"):
        read_motions(tmp_path / "bad.npz")


def test_a_rate_in_a_list_of_one_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", **(OURS | {"fps": np.array([30.0])}))
    assert read_motions(tmp_path / "a.npz")[0][1].fps == 30


def test_one_bad_file_does_not_end_the_others(tmp_path):
    np.savez(tmp_path / "bad.npz", **BAD["offsets"][0])
    np.savez(tmp_path / "good.npz", **OURS)
    out = tmp_path / "out"
    out.mkdir()
    count, failed = export_files([tmp_path / "bad.npz", tmp_path / "good.npz"], out, ["bvh"], ExportOptions())
    assert (count, list(failed)) == (1, [tmp_path / "bad.npz"])
    assert [path.name for path in out.iterdir()] == ["good.bvh"]


def test_outputs_replace_neither_each_other_nor_inputs(tmp_path):
    sources = [tmp_path / "x.npz", tmp_path / "x.amass.npz"]
    np.savez(sources[0], **OURS)
    np.savez(sources[1], **AMASS)
    before = [path.read_bytes() for path in sources]
    out = tmp_path / "out"
    out.mkdir()
    assert export_files(sources, out, ["amass", "npz"], ExportOptions()) == (2, {})
    assert {path.name for path in out.iterdir()} == {"x.npz", "x.amass.npz", "x_2.npz", "x_2.amass.npz"}
    for path in out.iterdir():
        with np.load(path) as arrays:
            assert ("trans" in arrays) == path.name.endswith(".amass.npz")
    assert export_files(sources[1:], tmp_path, ["amass"], ExportOptions()) == (1, {})
    assert (tmp_path / "x_2.amass.npz").is_file()
    assert [path.read_bytes() for path in sources] == before


def test_a_motion_says_which_numbers_are_not_finite():
    with pytest.raises(ValueError, match="finite root positions, got NaN"):
        BodyMotion(MOTION.rotations, np.full((20, 3), np.nan), MOTION.body)
