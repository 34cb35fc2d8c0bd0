"""How far reconstructions are: each error on motions whose error is known, and a tokenizer's figures put together."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hftrainer.cli import main
from hftrainer.data.folder import DatasetFolder
from hftrainer.evaluation.reconstruction import acceleration_error, foot_slide, mpjpe, pa_mpjpe
from hftrainer.evaluation.tokenizer import evaluate_tokenizer
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.motion.representation import motion272
from hftrainer.motion.rotation import axis_angle_to_matrix
from hftrainer.zoo.load import load_tokenizer
from tests.tiny import tiny_evaluator

RNG = np.random.default_rng(0)
JOINTS = RNG.normal(size=(30, 22, 3))


def test_mpjpe_forgets_where_the_pelvis_is_and_nothing_else():
    assert mpjpe(JOINTS + RNG.normal(size=(30, 1, 3)), JOINTS) == pytest.approx(0, abs=1e-12)
    off = JOINTS.copy()
    off[:, 5] += [0.03, 0, 0.04]
    np.testing.assert_allclose(mpjpe(off, JOINTS), 0.05 / 22)
    np.testing.assert_allclose(mpjpe(torch.from_numpy(off), torch.from_numpy(JOINTS)).numpy(), 0.05 / 22)


def test_mpjpe_of_motion272(golden):
    motion = golden("representation_pub")["c0_272"]
    joints = motion272.to_joints(motion)
    wider = motion.copy()
    wider[:, 8 + 3 * 4] += 0.022  # the left knee, sideways
    np.testing.assert_allclose(mpjpe(motion272.to_joints(wider), joints), 0.001, atol=1e-9)


def test_procrustes_takes_out_turn_scale_and_shift():
    turn = axis_angle_to_matrix(RNG.normal(size=(30, 1, 3)))[:, 0]
    moved = 1.7 * JOINTS @ turn.swapaxes(-1, -2) + RNG.normal(size=(30, 1, 3))
    np.testing.assert_allclose(pa_mpjpe(moved, JOINTS), 0, atol=1e-9)
    assert mpjpe(moved, JOINTS).min() > 0.1


def test_procrustes_is_the_best_there_is_and_does_not_mirror():
    optimize = pytest.importorskip("scipy.optimize")
    target, other = JOINTS[0], RNG.normal(size=(22, 3))

    def squares(x):
        turned = np.exp(x[3]) * other @ axis_angle_to_matrix(x[None, :3])[0].T + x[4:]
        return ((turned - target) ** 2).sum()

    starts = RNG.normal(size=(6, 7))
    best = min((optimize.minimize(squares, start) for start in starts), key=lambda found: found.fun)
    turned = np.exp(best.x[3]) * other @ axis_angle_to_matrix(best.x[None, :3])[0].T + best.x[4:]
    want = np.linalg.norm(turned - target, axis=-1).mean()
    assert pa_mpjpe(other[None], target[None])[0] == pytest.approx(want, rel=1e-4)
    assert pa_mpjpe(JOINTS * [-1, 1, 1], JOINTS).min() > 0.1


def test_acceleration_error_sees_shaking_but_no_drift():
    drift = np.arange(30)[:, None, None] * [0.1, 0, 0.2]
    np.testing.assert_allclose(acceleration_error(JOINTS + drift + 1, JOINTS), 0, atol=1e-12)
    shaken = JOINTS.copy()
    shaken[::2, :, 1] += 0.01  # second difference: 0.02 every frame
    np.testing.assert_allclose(acceleration_error(shaken, JOINTS), np.full(28, 0.02))


def test_foot_slide_counts_frames_in_which_the_real_feet_stand():
    real = np.zeros((10, 22, 3))
    real[5:, :, 2] = np.arange(1, 6)[:, None] * 0.1  # moves from frame 4 on
    made = np.zeros((10, 22, 3))
    made[:, :, 0] = np.arange(10)[:, None] * 0.02
    made[:, :, 1] = np.arange(10)[:, None] * 0.5  # up, which is no slide
    assert foot_slide(made, real, fps=30) == pytest.approx(0.02)
    assert foot_slide(real, fps=30) == 0
    assert np.isnan(foot_slide(real + np.arange(10)[:, None, None], fps=30))


@pytest.fixture(scope="module")
def bundle(tiny_model) -> MotionMillionBundle:
    return MotionMillionBundle.from_pretrained(tiny_model, text_encoder=None, load_ar=False)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def motions(synthetic) -> list[np.ndarray]:
    folder = DatasetFolder(synthetic)
    return [folder.motion(name) for name in folder.names()[:4]]


def test_figures_of_a_tokenizer(bundle, tokenizer, motions):
    got = evaluate_tokenizer(tokenizer, iter(motions))
    errors, aligned, shaking, codes = [], [], [], []
    for motion in motions:
        even = motion[: len(motion) // 2 * 2]
        with torch.inference_mode():
            found = bundle.encode_motion(torch.from_numpy(motion)[None])
            made = bundle.decode_codes(found)[0].numpy()
        pair = [motion272.to_joints(m.astype(np.float64)) for m in (made, even)]
        errors.append(mpjpe(*pair))
        aligned.append(pa_mpjpe(*pair))
        shaking.append(acceleration_error(*pair))
        codes += found.flatten().tolist()
    assert got["clips"] == 4
    assert got["MPJPE mm"] == pytest.approx(1000 * np.mean([e.mean() for e in errors]), rel=1e-4)
    assert got["MPJPE mm, over frames"] == pytest.approx(1000 * np.concatenate(errors).mean(), rel=1e-4)
    assert got["PA-MPJPE mm, over frames"] == pytest.approx(1000 * np.concatenate(aligned).mean(), rel=1e-3)
    assert got["PA-MPJPE mm, over frames"] < got["MPJPE mm, over frames"]
    shaken = got["acceleration error mm a frame², over frames"]
    assert shaken == pytest.approx(1000 * np.concatenate(shaking).mean(), rel=1e-3)
    share = np.unique(codes, return_counts=True)[1] / len(codes)
    assert got["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)
    assert got["codes used"] == pytest.approx(len(share) / bundle.vqvae.codebook_size)
    assert "FID of reconstruction" not in got


class Perfect:
    """A tokenizer that loses nothing; any class with these attributes is one."""

    representation, codebook_size, frames_per_code, sha256 = "motion272", 8, 2, "none"

    def encode(self, motions):
        self.motions = [motion[: len(motion) // 2 * 2] for motion in motions]
        return [np.zeros(len(motion) // 2, np.int64) for motion in motions]

    def decode(self, codes):
        return self.motions


def test_fid_of_reconstruction(tokenizer, motions):
    evaluator = tiny_evaluator()
    got = evaluate_tokenizer(tokenizer, motions, evaluator=evaluator)
    assert got["clips embedded"] == 4
    assert got["FID of reconstruction"] > 0
    assert got["FID-unit of reconstruction"] > 0
    got = evaluate_tokenizer(Perfect(), motions, evaluator=evaluator)
    assert got["FID of reconstruction"] == pytest.approx(0, abs=1e-4)
    seen, encode = [], evaluator.encode_motions
    evaluator.encode_motions = lambda clips, lengths: seen.extend(lengths) or encode(clips, lengths)
    evaluate_tokenizer(Perfect(), [motions[0][:43], motions[1][:38]], evaluator=evaluator)
    assert seen == [40, 36, 40, 36]  # whole units of four frames
    assert got["MPJPE mm"] == pytest.approx(0, abs=1e-2)
    assert got["perplexity"] == pytest.approx(1)
    assert got["codes used"] == 1 / 8


def test_what_cannot_be_reconstructed(tokenizer, motions):
    with pytest.raises(ValueError, match="1 frames is shorter than one code"):
        evaluate_tokenizer(tokenizer, [motions[0][:1]])
    with pytest.raises(ValueError, match="no clip"):
        evaluate_tokenizer(tokenizer, [])


def test_the_command_writes_fid_if_it_is_given_an_evaluator(tiny_model, synthetic, tmp_path, capsys):
    tiny_evaluator().save_pretrained(tmp_path / "judge")
    command = ["evaluate", "tokenizer", str(tiny_model), "--data", str(synthetic), "--split", "test"]
    assert main([*command, "--evaluator", str(tmp_path / "judge"), "--out", str(tmp_path / "out")]) == 0
    figures = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["figures"]
    assert figures["FID of reconstruction"] > 0
    assert "PA-MPJPE mm, over frames" in capsys.readouterr().out


def test_clips_whose_feet_never_slide(motions):
    """The ratio to nothing was a ZeroDivisionError."""
    still = np.tile(motions[0][:1], (20, 1))
    still[:, :8] = 0  # neither velocity nor turning
    assert np.isnan(evaluate_tokenizer(Perfect(), [still])["Slide, reconstructed / real"])
