"""AMASS and other SMPL motions in .npz: their rotations come through as they are, upright, whatever axis is up."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.prepare.convert_motion import ImportSettings, convert_motion
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.body import BodyMotion, smpl_body
from hftrainer.motion.io.npz import amass_arrays, write_npz
from hftrainer.motion.io.smpl_npz import read_smpl_npz
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.representation import motion272
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.rotation import angle_between, axis_angle_to_matrix, matrix_to_axis_angle
from hftrainer.motion.skeleton_map import load_map

WALK = make_motion("turn-left", 60, 3)
ROTATIONS, ROOT = (np.asarray(part, dtype=np.float64) for part in motion272.to_rotations(WALK.astype(np.float64)))
TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


def vectors(rotations):
    return np.asarray(matrix_to_axis_angle(rotations)).reshape(len(rotations), -1)


def check(path, skeleton="smpl", fps=30.0):
    clip = retarget(read_smpl_npz(path), load_map(skeleton), RetargetOptions(fps=fps))
    assert np.degrees(angle_between(clip.rotations[:, 1:], ROTATIONS[:, 1:])).max() < 0.01
    assert clip.joints[..., 1].max() - clip.joints[..., 1].min() > 1.2  # upright
    made = convert_motion(path, ImportSettings(load_map(skeleton)))
    assert not any("--up" in doubt for doubt in made.doubts)
    return clip


def test_amass_stands_along_z_and_is_put_upright(tmp_path):
    turned = ROTATIONS.copy()
    turned[:, 0] = TO_Z_UP @ turned[:, 0]
    poses = np.concatenate([vectors(turned), np.zeros((60, 156 - 66))], axis=1)  # SMPL-H, with hands
    np.savez(tmp_path / "a.npz", poses=poses, trans=ROOT @ TO_Z_UP.T, mocap_framerate=30.0, betas=np.zeros(16),
             gender="male", dmpls=np.zeros((60, 8)))  # fmt: skip
    clip = check(tmp_path / "a.npz")
    assert any("is Z up" in note for note in clip.notes)
    np.testing.assert_allclose(np.diff(clip.root, axis=0), np.diff(ROOT, axis=0), atol=1e-6)


def test_smpl_x_with_root_and_body_apart_and_any_rate(tmp_path):
    v = vectors(ROTATIONS)
    np.savez(tmp_path / "x.npz", root_orient=v[:, :3], pose_body=v[:, 3:66], trans=ROOT, mocap_frame_rate=30,
             surface_model_type="smplx")  # fmt: skip
    check(tmp_path / "x.npz")
    np.savez(
        tmp_path / "e.npz", global_orient=v[:, None, :3], body_pose=v[:, 3:72].reshape(60, -1, 3), transl=ROOT, fps=30
    )
    check(tmp_path / "e.npz")


def test_our_own_export_comes_back(tmp_path):
    motion = BodyMotion(ROTATIONS, ROOT, smpl_body())
    write_npz(tmp_path / "ours.npz", motion)
    np.testing.assert_allclose(check(tmp_path / "ours.npz").joints, motion.joints, atol=1e-5)
    np.savez(tmp_path / "amass.npz", **amass_arrays(motion))
    check(tmp_path / "amass.npz")
    check(tmp_path / "ours.npz", "smpl22")


def test_a_file_without_a_rate_asks_for_one(tmp_path):
    np.savez(tmp_path / "a.npz", poses=vectors(ROTATIONS), trans=ROOT)
    with pytest.raises(MotionFileError, match="give it with --fps"):
        convert_motion(tmp_path / "a.npz", ImportSettings(load_map("smpl")))
    made = convert_motion(tmp_path / "a.npz", ImportSettings(load_map("smpl"), RetargetOptions(recorded_fps=60.0)))
    assert len(made.motion) == 30


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"joints": np.zeros((4, 22, 3))}, "no SMPL motion"),
        ({"poses": np.zeros((4, 60))}, r"should be \(frames, 66 or more\)"),
        ({"poses": np.zeros((4, 66)), "trans": np.zeros((3, 3))}, "4 poses, but translations"),
        ({"poses": np.full((4, 66), np.nan), "trans": np.zeros((4, 3))}, "NaN"),
        ({"poses": np.array(["a", "b"])}, "poses"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(MotionFileError, match=message):
        read_smpl_npz(tmp_path / "a.npz")


def test_rotation_vectors_are_what_they_say():
    np.testing.assert_allclose(axis_angle_to_matrix(vectors(ROTATIONS).reshape(60, 22, 3)), ROTATIONS, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mocap_framerate": np.nan}, "frame rate should be one number"),
        ({"mocap_framerate": np.zeros(0)}, "frame rate should be one number"),
        ({"root_orient": np.zeros((1, 3))}, "1 rotations of the root, but 60 poses of the body"),
    ],
)
def test_rates_and_lengths_that_cannot_be_are_named(tmp_path, change, said):
    v = vectors(ROTATIONS)
    arrays = {"root_orient": v[:, :3], "pose_body": v[:, 3:66], "trans": ROOT, "mocap_framerate": 30.0}
    np.savez(tmp_path / "x.npz", **(arrays | change))
    with pytest.raises(MotionFileError, match=rf"x\.npz: .*{said}"):
        read_smpl_npz(tmp_path / "x.npz")
