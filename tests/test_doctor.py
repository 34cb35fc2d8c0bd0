"""`hftrainer doctor`: what is installed, whether a model is whole, what it is, and which rotary table it wants."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from hftrainer.cli import main


@pytest.fixture(scope="module")
def dataset(synthetic, tiny_model, tmp_path_factory):
    """A dataset with tokens of the tiny model."""
    root = shutil.copytree(synthetic, tmp_path_factory.mktemp("doctor") / "data")
    assert main(["data", "tokenize", str(root), "--model", str(tiny_model)]) == 0
    return root


def test_without_a_model_it_lists_packages_and_devices(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch 2" in out
    assert "threads" in out


def test_a_whole_model(tiny_model, capsys):
    assert main(["doctor", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    assert "identity     sha256:" in out
    assert "files match manifest.json" in out
    assert "240 codes of 2 frames" in out
    assert "unknown splits (not recorded)" in out


def test_a_damaged_model_fails_and_may_be_looked_at_anyway(tiny_model, tmp_path, capsys):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    np.save(model / "std.npy", np.full(272, 0.06, np.float32))
    assert main(["doctor", str(model)]) == 1
    captured = capsys.readouterr()
    assert "std.npy does not match its hash" in captured.err
    assert "codes of" not in captured.out
    assert main(["doctor", str(model), "--no-verify"]) == 0
    (model / "manifest.json").unlink()
    assert main(["doctor", str(model)]) == 0
    assert "not compared: the folder has no manifest.json" in capsys.readouterr().out


def test_a_model_without_a_text_encoder(tiny_model, tmp_path, capsys):
    from hftrainer.models.motion.motionmillion import MotionMillionBundle

    MotionMillionBundle.from_pretrained(tiny_model, text_encoder=None).save_pretrained(tmp_path / "bare")
    assert main(["doctor", str(tmp_path / "bare")]) == 0
    assert "text_encoder none" in capsys.readouterr().out


@pytest.mark.parametrize("inside", [False, True], ids=["dataset", "tokens"])
def test_rope_check_on_a_datasets_tokens(dataset, tiny_model, capsys, inside):
    where = dataset / "tokens" if inside else dataset
    assert main(["doctor", str(tiny_model), "--rope-check", str(where), "--split", "train", "--clips", "5"]) == 0
    out = capsys.readouterr().out
    assert "over 5 clips" in out
    assert "difference, 95 % interval" in out


def test_rope_check_on_upstreams_files(dataset, tiny_model, tmp_path, capsys):
    """One (1, l) file a clip, in the folder that the official code names after its codebook."""
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.tokens.folder import TokenSet

    root = shutil.copytree(dataset, tmp_path / "data")
    tokens = TokenSet(root / "tokens")
    folder = root / "VQVAE_codebook_65536_FSQ_all"
    folder.mkdir()
    for name in DatasetFolder(root).names("train"):
        np.save(folder / f"{name}.npy", tokens[tokens.names.index(name)][None].astype(np.int32))
    shutil.rmtree(root / "tokens")
    arguments = [str(tiny_model), "--split", "train", "--clips", "5", "--rope-check"]
    assert main(["doctor", *arguments, str(root)]) == 0
    upstreams = capsys.readouterr().out.splitlines()[-4:]
    assert main(["doctor", *arguments, str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == upstreams
    assert main(["doctor", *arguments, str(dataset)]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == upstreams
    first = folder / f"{DatasetFolder(root).names('train')[0]}.npy"
    np.save(first, np.full((1, 8), 64_000))
    assert main(["doctor", *arguments, str(root)]) == 1
    assert "codes 64000..64000, the model has 240" in capsys.readouterr().err


def test_rope_check_refuses_what_it_cannot_use(dataset, tiny_model, tmp_path, capsys):
    assert main(["doctor", "--rope-check", str(dataset)]) == 1
    assert "--rope-check needs a model" in capsys.readouterr().err
    assert main(["doctor", str(tiny_model), "--rope-check", str(dataset), "--split", "nowhere"]) == 1
    assert "has no split 'nowhere'" in capsys.readouterr().err
    from tests.tiny import make_tiny_bundle

    make_tiny_bundle(seed=3).save_pretrained(tmp_path / "other")  # another tokenizer
    assert main(["doctor", str(tmp_path / "other"), "--rope-check", str(dataset), "--split", "train"]) == 1
    assert "made by another tokenizer" in capsys.readouterr().err
