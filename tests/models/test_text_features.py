"""Stored text features: what an encoder said, without the encoder."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from hftrainer.cli import main
from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.motion.motionmillion import MotionMillionBundle
from hftrainer.models.text_features import MissingTextFeatures, StoredTextFeatures, text_hash, write_text_features
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.pipelines.prompts import PromptTooLong
from tests.tiny import tiny_text_encoder

TEXTS = ["a person walks forward, then waves", "run", "someone stands still and turns left while walking", "squat ü"]


@pytest.fixture(scope="module")
def stored(tiny_model, tmp_path_factory):
    """Made by the command, from a file of prompts with one of them twice, by the tiny model's own encoder."""
    folder = tmp_path_factory.mktemp("features")
    (folder / "prompts.txt").write_text("\n".join([*TEXTS, "", TEXTS[0]]), encoding="utf-8")
    arguments = ["--prompts", str(folder / "prompts.txt"), "--model", str(tiny_model), "--batch-size", "2"]
    assert main(["data", "text-features", *arguments, "--out", str(folder / "f.safetensors")]) == 0
    return folder / "f.safetensors"


@torch.no_grad()
def test_answers_are_the_encoders(stored):
    encoder, held = tiny_text_encoder(), StoredTextFeatures(stored)
    assert len(held) == len(TEXTS)
    assert set(held.texts) == set(TEXTS)
    for batch in (TEXTS, TEXTS[::-1], TEXTS[1:2], [TEXTS[0], TEXTS[0]]):
        got, want = held(batch), encoder(batch)
        assert torch.equal(got.mask, want.mask)
        assert torch.equal(got.tokens, want.tokens)
        torch.testing.assert_close(got.features, want.features, atol=1e-5, rtol=0)
    assert held.count_tokens(TEXTS) == encoder.count_tokens(TEXTS)


def test_a_model_makes_the_same_motions_from_them(stored, tiny_model):
    want = MotionMillionPipeline.from_pretrained(tiny_model).infer_t2m(TEXTS, max_sample_steps=10)
    pipe = MotionMillionPipeline.from_pretrained(tiny_model, text_features=stored)
    assert pipe.bundle.text_model is None
    for got, motion in zip(pipe.infer_t2m(TEXTS, max_sample_steps=10), want, strict=True):
        np.testing.assert_allclose(got, motion, atol=1e-5)
    assert pipe(TEXTS[0], seconds=0.2)[0].text_tokens == tiny_text_encoder().count_tokens(TEXTS[:1])[0]


def test_an_artifact_without_an_encoder_generates_by_the_command(stored, tiny_model, tmp_path):
    bare = tmp_path / "bare"
    MotionMillionBundle.from_pretrained(tiny_model, text_encoder=None).save_pretrained(bare)
    assert not (bare / "text_encoder").exists()
    arguments = ["--model", str(bare), "--out", str(tmp_path / "o"), "--formats", "npy", "--seconds", "0.2"]
    assert main(["generate", TEXTS[1], *arguments, "--text-features", str(stored)]) == 0
    assert np.load(next((tmp_path / "o").glob("*.npy"))).shape == (6, 272)


def test_guidance_finds_the_empty_text_in_every_file(stored, tiny_model, tmp_path):
    scale = {"do_sample": True, "guidance_scale": 2.0, "seed": 0, "max_sample_steps": 10}
    want = MotionMillionPipeline.from_pretrained(tiny_model).infer_t2m(TEXTS, **scale)
    pipe = MotionMillionPipeline.from_pretrained(tiny_model, text_features=stored)
    for got, motion in zip(pipe.infer_t2m(TEXTS, **scale), want, strict=True):
        np.testing.assert_allclose(got, motion, atol=1e-5)
    pipe.bundle.text_encoder._entries.pop(text_hash(""))  # as in files that were made before
    assert len(pipe.bundle.text_encoder) == len(TEXTS)
    assert len(pipe.infer_t2m(TEXTS[:1], max_sample_steps=2)) == 1
    with pytest.raises(MissingTextFeatures, match=r"no features of an empty text.*make it again"):
        pipe.infer_t2m(TEXTS[:1], **scale)


def test_missing_prompts_are_named(stored, tiny_model):
    pipe = MotionMillionPipeline.from_pretrained(tiny_model, text_features=stored)
    with pytest.raises(MissingTextFeatures, match=r"2 prompts have no stored .* holds 4 texts:\n  'jump'\n  'Run'\n"):
        pipe.infer_t2m([TEXTS[0], "jump", "Run", "jump"], max_sample_steps=2)
    with pytest.raises(MissingTextFeatures, match=r"12 prompts(.|\n)*prompt 9'\n  \.\.\. and 2 more"):
        pipe([f"prompt {i}" for i in range(12)])
    with pytest.raises(TypeError, match="must be a list of strings"):
        StoredTextFeatures(stored)("run")


def test_long_texts_are_cut_and_said_to_be(tmp_path):
    long = "walk " * 400
    write_text_features(tmp_path / "f.safetensors", [long, "run"], tiny_text_encoder())
    held = StoredTextFeatures(tmp_path / "f.safetensors")
    assert held([long]).features.shape[1] == 150
    assert int(held([long]).tokens[0]) > 400
    pipe = MotionMillionPipeline.__new__(MotionMillionPipeline)
    pipe.bundle = type("B", (), {"text_encoder": held})()
    with pytest.raises(PromptTooLong):
        pipe.check_prompt_lengths([long])


def test_bfloat16_halves_the_file(stored, tmp_path):
    write_text_features(tmp_path / "half.safetensors", TEXTS, tiny_text_encoder(), dtype="bfloat16")
    half, whole = StoredTextFeatures(tmp_path / "half.safetensors")(TEXTS), StoredTextFeatures(stored)(TEXTS)
    assert half.features.dtype == torch.bfloat16
    torch.testing.assert_close(half.features, whole.features.bfloat16(), atol=1e-2, rtol=1e-2)
    with pytest.raises(ValueError, match="stored as one of"):
        write_text_features(tmp_path / "x", TEXTS, tiny_text_encoder(), dtype="float16")


def edit_config(folder, change):
    path = folder / "mm_config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_features_of_another_encoder_are_refused(stored, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    assert json.loads((model / "mm_config.json").read_text())["text_encoder"]["sha256"]
    edit_config(model, lambda c: c["text_encoder"].update(sha256="0" * 64))
    with pytest.raises(ValueError, match=r"was made by another text encoder: .* this model's are 000000000000"):
        MotionMillionBundle.from_pretrained(model, text_features=stored)
    edit_config(model, lambda c: c["text_encoder"].update(sha256=None, max_tokens=20))
    with pytest.raises(ValueError, match="holds the first 150 tokens of each text, this model is shown 20"):
        MotionMillionBundle.from_pretrained(model, text_features=stored)
    write_text_features(tmp_path / "wide.safetensors", TEXTS, tiny_text_encoder(width=64))
    with pytest.raises(ValueError, match="64 wide; this model reads 32"):
        MotionMillionBundle.from_pretrained(tiny_model, text_features=tmp_path / "wide.safetensors")


def test_other_files_are_refused(stored, tiny_model, tmp_path):
    with pytest.raises(CheckpointError, match="holds no text features: its format is 'pt'"):
        StoredTextFeatures(tiny_model / "fsq.safetensors")
    with pytest.raises(CheckpointError, match="there is no file"):
        StoredTextFeatures(tmp_path / "nowhere.safetensors")
    data = stored.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-10])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        StoredTextFeatures(tmp_path / "cut.safetensors")
    at = data.index(b'"text_starts"')
    (tmp_path / "renamed.safetensors").write_bytes(data[:at] + b'"texx_starts"' + data[at + 13 :])
    with pytest.raises(CheckpointError, match=r"is damaged: missing \['text_starts'\]"):
        StoredTextFeatures(tmp_path / "renamed.safetensors")


def test_nothing_is_written_if_there_is_nothing_to_encode(tmp_path, tiny_model, capsys):
    with pytest.raises(ValueError, match="some are empty or there are none"):
        write_text_features(tmp_path / "x", ["run", " "], tiny_text_encoder())
    arguments = ["--model", str(tiny_model), "--out", str(tmp_path / "x")]
    assert main(["data", "text-features", *arguments]) == 1
    assert "give --prompts FILE or a dataset" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_prompts_are_not_overwritten(tmp_path, tiny_model, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a person walks\n")
    line = ["data", "text-features", "--prompts", str(prompts), "--model", str(tiny_model), "--out"]
    assert main([*line, str(prompts)]) == 1
    assert "is there already and would be replaced" in capsys.readouterr().err
    assert prompts.read_text() == "a person walks\n"
    assert main([*line, str(tmp_path / "made")]) == main([*line, str(tmp_path / "made")]) == 0


def test_the_captions_of_a_dataset(synthetic, tiny_model, tmp_path):
    from hftrainer.data.folder import DatasetFolder

    out = tmp_path / "f.safetensors"
    arguments = [str(synthetic), "--split", "val", "--encoder", str(tiny_model / "text_encoder"), "--out", str(out)]
    assert main(["data", "text-features", *arguments]) == 0
    dataset = DatasetFolder(synthetic)
    wanted = {caption.text for name in dataset.names("val") for caption in dataset.captions(name)}
    assert set(StoredTextFeatures(out).texts) == wanted
