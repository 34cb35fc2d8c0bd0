"""The MotionStreamer-272 evaluator: golden latents, every file form, and embeddings that do not depend on the batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hftrainer.manifest import verify_manifest
from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.motion.motionstreamer import MotionStreamer272Config, MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer.network.actor import Transformer
from hftrainer.registry import EVALUATORS
from tests.conftest import GOLDEN
from tests.tiny import golden_fill, tiny_evaluator

TINY_DISTILBERT = GOLDEN / "tiny_distilbert"
FILL = golden_fill()


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A Lightning checkpoint of the released sizes and names, with what else such a file holds."""
    folder = tmp_path_factory.mktemp("lightning")
    from transformers import AutoConfig, AutoModel

    from hftrainer.models.motion.motionstreamer.network import MotionEncoder, TextEncoder

    sizes = {"width": 256, "layers": 4, "heads": 4, "hidden": 1024, "dropout": 0.1, "positions": 5000}
    text_model = AutoModel.from_config(AutoConfig.from_pretrained(TINY_DISTILBERT))
    parts = {"textencoder": TextEncoder(text_model, 96, **sizes), "motionencoder": MotionEncoder(272, **sizes)}
    state = {}
    for prefix, part in parts.items():
        FILL.fill(part, scale=0.05, prefix=f"{prefix}.")
        state |= {f"{prefix}.{name}": tensor for name, tensor in part.state_dict().items()}
    state |= {
        "motiondecoder.final_layer.weight": torch.zeros(2, 2),
        "_losses.losses_train.total": torch.zeros(()),
        "filter_model.0.auto_model.embeddings.word_embeddings.weight": torch.zeros(2, 2),
        "textencoder.text_model.embeddings.position_ids": torch.arange(64)[None],
    }
    torch.save({"epoch": 99, "global_step": 1, "state_dict": state, "hyper_parameters": {}}, folder / "epoch=99.ckpt")
    np.save(folder / "Mean.npy", np.zeros(272))  # the golden inputs are normalized already
    np.save(folder / "Std.npy", np.ones(272))
    return folder


@pytest.fixture(scope="module")
def evaluator(released) -> MotionStreamer272Evaluator:
    return MotionStreamer272Evaluator.from_lightning_checkpoint(
        released / "epoch=99.ckpt", text_model=TINY_DISTILBERT, mean=released / "Mean.npy", std=released / "Std.npy"
    )


@pytest.fixture
def motions(golden) -> list[np.ndarray]:
    lengths = golden("evaluator_pub")["lens"]
    return [FILL.values(f"pub/eval_motion_{i}", (n, 272), 1.0) for i, n in enumerate(lengths)]


def test_golden_motion_latents(evaluator, motions, golden):
    want = golden("evaluator_pub")
    np.testing.assert_allclose(evaluator.encode_motions(motions), want["motion_mu"], atol=1e-4)
    lengths = torch.tensor([len(m) for m in motions])
    padded = torch.zeros(len(motions), 300, 272)
    for row, motion in enumerate(motions):
        padded[row, : len(motion)] = torch.from_numpy(motion)
    with torch.inference_mode():
        gaussian = evaluator.motion_gaussian(padded, lengths)
    np.testing.assert_allclose(gaussian.mean.numpy(), want["motion_mu"], atol=1e-4)
    np.testing.assert_allclose(gaussian.std.numpy(), want["motion_std"], atol=1e-4)


def test_golden_text_latents(evaluator, golden):
    want = golden("evaluator_pub")
    captions = [str(caption) for caption in want["captions"]]
    np.testing.assert_allclose(evaluator.encode_texts(captions), want["text_mu"], atol=1e-4)
    with torch.inference_mode():
        np.testing.assert_allclose(evaluator.text_gaussian(captions).std.numpy(), want["text_std"], atol=1e-4)


@pytest.mark.parametrize("part", ["motion", "text"])
def test_state_dict_names_are_the_releases(evaluator, part):
    want = json.loads((GOLDEN / f"{part}encoder_state_dict_pub.json").read_text())
    have = {name: list(t.shape) for name, t in getattr(evaluator, f"{part}_encoder").state_dict().items()}
    assert have == want


def test_a_layer_is_torchs_own():
    """An independent oracle: torch's encoder with the same weights, all positions, in train mode without dropout."""
    ours = Transformer(16, 2, 4, 32, 0.0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True)
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    theirs.load_state_dict(ours.state_dict())
    x, mask = torch.randn(3, 7, 16), torch.arange(7)[None] < torch.tensor([[7], [3], [5]])
    want = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask, keep=7), want)
    torch.testing.assert_close(ours(x, mask, keep=2), want[:, :2])


def test_embeddings_do_not_depend_on_batch_order_or_padding(motions):
    evaluator = tiny_evaluator()
    alone = np.concatenate([evaluator.encode_motions([m]) for m in motions])
    np.testing.assert_allclose(evaluator.encode_motions(motions, batch_size=2), alone, atol=1e-5)
    texts = ["a person walks forward", "wave", "someone is walking ahead, then waves"]
    alone = np.concatenate([evaluator.encode_texts([t]) for t in texts])
    np.testing.assert_allclose(evaluator.encode_texts(texts), alone, atol=1e-5)


def test_lengths_cut_motions(motions):
    evaluator = tiny_evaluator()
    whole = evaluator.encode_motions([m[:4] for m in motions])
    np.testing.assert_array_equal(evaluator.encode_motions(motions, lengths=[4] * 5), whole)
    assert not np.allclose(evaluator.encode_motions(motions), whole)


def test_motions_are_normalized_with_the_evaluators_statistics(motions):
    evaluator = tiny_evaluator()
    plain = evaluator.encode_motions(motions)
    mean, std = np.linspace(-1, 1, 272), np.linspace(0.5, 2, 272)
    evaluator.set_statistics(mean, std)
    np.testing.assert_allclose(evaluator.encode_motions([m * std + mean for m in motions]), plain, atol=1e-5)


def test_save_and_load_give_the_same_embeddings(tmp_path, motions):
    evaluator = tiny_evaluator()
    evaluator.set_statistics(np.linspace(-1, 1, 272), np.full(272, 0.3))
    evaluator.save_pretrained(tmp_path / "saved")
    loaded = MotionStreamer272Evaluator.from_pretrained(tmp_path / "saved")
    assert verify_manifest(tmp_path / "saved") >= 7
    assert loaded.config.latent_dim == evaluator.config.latent_dim
    assert loaded.identity() == evaluator.identity()
    np.testing.assert_array_equal(loaded.encode_motions(motions), evaluator.encode_motions(motions))
    np.testing.assert_array_equal(loaded.encode_texts(["a man walks"]), evaluator.encode_texts(["a man walks"]))
    by_name = EVALUATORS.get("motionstreamer272").from_pretrained(tmp_path / "saved")
    assert by_name.identity() == evaluator.identity()
    loaded.save_pretrained(tmp_path / "saved")  # over itself
    assert MotionStreamer272Evaluator.from_pretrained(tmp_path / "saved").identity() == evaluator.identity()


def test_a_motius_folder_loads(tmp_path, evaluator, motions):
    """Their configuration leaves sizes out; those are read off the tensors."""
    folder = tmp_path / "motius"
    evaluator.save_pretrained(folder)
    (folder / "manifest.json").unlink()
    config = {
        "architectures": ["MotionStreamer272Evaluator"], "format_version": 1, "library_name": "motius",
        "model_type": "motius-motionstreamer-272-evaluator", "weights_file": "model.safetensors", "motion_nfeats": 272,
        "latent_dim": 256, "num_layers": 4, "num_heads": 4, "text_backbone": "distilbert-base-uncased",
        "source": {"checkpoint_retrained": False},
    }  # fmt: skip
    preprocessor = {
        "motion_representation": "MotionStreamer-272", "fps": 30, "max_motion_length": 300, "unit_length": 4,
        "caption_protocol": "HumanML3D selected caption", "mean": "stats/mean.npy", "std": "stats/std.npy",
        "tokenizer": "tokenizer",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    loaded = MotionStreamer272Evaluator.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.encode_motions(motions), evaluator.encode_motions(motions))


def test_embeddings_are_remembered_by_content(tmp_path, motions, monkeypatch):
    tiny_evaluator().save_pretrained(tmp_path / "model")
    calls = []
    encode = MotionStreamer272Evaluator.motion_gaussian
    monkeypatch.setattr(
        MotionStreamer272Evaluator, "motion_gaussian", lambda s, m, n: (calls.append(len(m)), encode(s, m, n))[1]
    )
    first = MotionStreamer272Evaluator.from_pretrained(tmp_path / "model", cache_dir=tmp_path / "cache")
    want = first.encode_motions([*motions, motions[0]])
    assert sum(calls) == 5  # the sixth is the first again
    np.testing.assert_array_equal(want[0], want[5])
    np.testing.assert_array_equal(first.encode_motions(motions[::-1]), want[:5][::-1])
    again = MotionStreamer272Evaluator.from_pretrained(tmp_path / "model", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.encode_motions(motions), want[:5])
    assert sum(calls) == 5
    changed = motions[0].copy()
    changed[7, 3] += 1e-3
    assert not np.array_equal(again.encode_motions([changed])[0], want[0])
    assert sum(calls) == 6


def test_other_weights_do_not_get_old_embeddings(tmp_path, motions):
    tiny_evaluator().save_pretrained(tmp_path / "a")
    tiny_evaluator(seed=5).save_pretrained(tmp_path / "b")
    cached = [
        MotionStreamer272Evaluator.from_pretrained(tmp_path / name, cache_dir=tmp_path / "cache") for name in "ab"
    ]
    a, b = (evaluator.encode_motions(motions) for evaluator in cached)
    assert not np.allclose(a, b)
    cached[0].load_state_dict(cached[1].state_dict())
    np.testing.assert_array_equal(cached[0].encode_motions(motions), b)
    trained = tiny_evaluator()
    before = trained.encode_motions(motions)
    trained.requires_grad_(True)
    with torch.no_grad():
        trained.motion_encoder.skel_embedding.weight.mul_(2)
    assert not np.allclose(trained.encode_motions(motions), before)


def test_a_cache_of_something_else_is_refused(tmp_path, motions):
    tiny_evaluator().save_pretrained(tmp_path / "model")

    def fresh():
        return MotionStreamer272Evaluator.from_pretrained(tmp_path / "model", cache_dir=tmp_path / "cache")

    fresh().encode_motions(motions)
    file = next((tmp_path / "cache").glob("*-motion.npz"))
    with np.load(file) as content:
        arrays = dict(content)
    np.savez(file, **{**arrays, "identity": np.array("someone else")})
    with pytest.raises(ValueError, match="another evaluator"):
        fresh().encode_motions(motions)
    file.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a cache of embeddings"):
        fresh().encode_motions(motions)


def test_dropout_is_off_while_encoding_and_on_again_after(motions):
    evaluator = tiny_evaluator().requires_grad_(True)
    evaluator.motion_encoder.train()
    np.testing.assert_array_equal(evaluator.encode_motions(motions), evaluator.encode_motions(motions))
    assert evaluator.motion_encoder.seqTransEncoder.layers[0].dropout.training


@pytest.mark.parametrize(
    ("motions", "lengths", "message"),
    [
        ([np.zeros((5, 263))], None, r"motion 0: expected \(frames, 272\) floats, got \(5, 263\)"),
        ([np.zeros((5, 272), int)], None, "floats"),
        ([np.zeros((0, 272))], None, "at least 1"),
        ([np.zeros((5, 272))], [6], "length 6 of 5 frames"),
        ([np.zeros((5, 272))], [5, 5], "1 motions and 2 lengths"),
        ([np.zeros((301, 272))], None, "301 frames, this evaluator reads 300"),
        ([np.full((5, 272), np.nan)], None, "motion 0: frame 0 holds a NaN"),
    ],
)
def test_motions_that_cannot_be_encoded(motions, lengths, message):
    with pytest.raises(ValueError, match=message):
        tiny_evaluator().encode_motions(motions, lengths)


def test_texts_that_cannot_be_encoded():
    evaluator = tiny_evaluator()
    with pytest.raises(TypeError, match="list of strings"):
        evaluator.encode_texts("a person walks")
    with pytest.raises(ValueError, match=r"a text has \d+ tokens, the language model reads 24"):
        evaluator.encode_texts(["walk " * 60])
    assert evaluator.encode_texts([]).shape == (0, evaluator.config.latent_dim)
    assert evaluator.encode_motions([]).shape == (0, evaluator.config.latent_dim)


def test_files_that_are_not_an_evaluators(tmp_path, released):
    torch.save({"state_dict": {"vae.weight": torch.zeros(2)}}, tmp_path / "other.ckpt")
    statistics = {"mean": np.zeros(272), "std": np.ones(272)}
    with pytest.raises(CheckpointError, match=r"no tensor is called textencoder\.\*"):
        MotionStreamer272Evaluator.from_lightning_checkpoint(
            tmp_path / "other.ckpt", text_model=TINY_DISTILBERT, **statistics
        )
    with pytest.raises(CheckpointError, match=r"text model .* cannot be loaded"):
        MotionStreamer272Evaluator.from_lightning_checkpoint(
            released / "epoch=99.ckpt", text_model=tmp_path / "nowhere", **statistics
        )
    with pytest.raises(CheckpointError, match="expected 272 finite floats"):
        MotionStreamer272Evaluator.from_lightning_checkpoint(
            released / "epoch=99.ckpt", text_model=TINY_DISTILBERT, mean=np.zeros(263), std=np.ones(263)
        )
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        MotionStreamer272Evaluator.from_pretrained(tmp_path)


def test_a_folder_cannot_name_files_outside_itself(tmp_path):
    tiny_evaluator().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_file": "../model.safetensors"}))
    with pytest.raises(CheckpointError, match="is not a valid file name below"):
        MotionStreamer272Evaluator.from_pretrained(tmp_path / "model")


def test_a_damaged_weight_file_names_what_is_wrong(tmp_path):
    tiny_evaluator().save_pretrained(tmp_path / "model")
    shutil.copy(tmp_path / "model" / "config.json", tmp_path / "config.json")
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**stored, "ff_size": 48}))
    with pytest.raises(CheckpointError, match="shapes wrong"):
        MotionStreamer272Evaluator.from_pretrained(tmp_path / "model")


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="num_heads=6"):
        MotionStreamer272Config(num_heads=6)
    with pytest.raises(ValueError, match="positions=100"):
        MotionStreamer272Config(positions=100)
