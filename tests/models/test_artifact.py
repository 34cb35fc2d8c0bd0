"""Model folders: ours, the published ones' layouts, upstream's files, and damaged ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hftrainer.config import ConfigError
from hftrainer.manifest import ManifestError, fingerprint, verify_manifest
from hftrainer.models.checkpoint import CheckpointError, open_checkpoint, write_index
from hftrainer.models.motion.motionmillion import MotionMillionBundle, artifact
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.upstream import sizes_of
from hftrainer.registry import TRANSFORMERS
from hftrainer.zoo.load import load_pipeline
from tests.tiny import make_tiny_bundle, tiny_text_encoder

TEXTS = ["a person walks forward", "someone stands still, then waves"]


@pytest.fixture
def copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


@torch.no_grad()
def answers(bundle: MotionMillionBundle) -> list[torch.Tensor]:
    text = bundle.encode_text(TEXTS)
    made = bundle.ar.generate(text.features, text.mask, max_new_tokens=20)
    return [text.features, made.tokens, bundle.decode_codes(made.tokens.clamp(max=200), made.lengths.clamp(min=1))]


def test_save_and_load_give_the_same_answers_bit_for_bit(tmp_path):
    bundle = make_tiny_bundle()
    bundle.save_pretrained(tmp_path / "model")
    loaded = MotionMillionBundle.from_pretrained(tmp_path / "model")
    for got, want in zip(answers(loaded), answers(bundle), strict=True):
        assert torch.equal(got, want)


def test_an_artifact_has_the_published_layout(tiny_model):
    names = {path.name for path in tiny_model.iterdir()}
    assert names == {
        "fsq.safetensors", "ar.safetensors", "mm_config.json", "model_index.json", "mean.npy", "std.npy",
        "text_encoder", "manifest.json",
    }  # fmt: skip
    index = json.loads((tiny_model / "model_index.json").read_text())
    assert index["_class_name"] == "MotionMillionPipeline"
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in tiny_model.rglob("*"))


def test_dtype_is_the_transformers_alone(tiny_model):
    bundle = MotionMillionBundle.from_pretrained(tiny_model, dtype=torch.bfloat16)
    assert bundle.ar.lm_head.weight.dtype == torch.bfloat16
    assert next(bundle.vqvae.parameters()).dtype == torch.float32
    answers(bundle)


def test_half_precision_files_load_into_float32_tokenizers(tmp_path):
    make_tiny_bundle().save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert load_file(tmp_path / "half" / "fsq.safetensors")["vqvae.encoder.model.1.weight"].dtype == torch.float16
    bundle = MotionMillionBundle.from_pretrained(tmp_path / "half", dtype=torch.float32)
    assert next(bundle.vqvae.parameters()).dtype == torch.float32
    answers(bundle)


def test_parts_can_be_left_out(tiny_model):
    bundle = MotionMillionBundle.from_pretrained(tiny_model, text_encoder=None, load_ar=False)
    assert bundle.ar is None
    assert bundle.text_model is None
    with pytest.raises(ValueError, match="without a text encoder"):
        bundle.encode_text(TEXTS)


@pytest.mark.parametrize("torch_files", [False, True], ids=["safetensors", "pt"])
@pytest.mark.parametrize("form", ["hftrainer-motionmillion-v1", "motius-motionmillion-v1"])
def test_published_layouts_load(tmp_path, tiny_model, form, torch_files):
    """A folder as the published hftrainer and Motius write it: preset name, no sizes, released tokenizer."""
    folder = tmp_path / "published"
    shutil.copytree(tiny_model, folder)
    config = LLaMAHFConfig.from_name("44M", n_layer=1, clip_dim=32, vocab_size=242)
    save_file({k: v.contiguous() for k, v in LLaMAHF(config).state_dict().items()}, folder / "ar.safetensors")
    if torch_files:  # what they write with safe_serialization=False
        for stem in ("fsq", "ar"):
            torch.save(load_file(folder / f"{stem}.safetensors"), folder / f"{stem}.pt")
            (folder / f"{stem}.safetensors").unlink()
    (folder / "manifest.json").unlink()
    library = form.partition("-")[0]
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "MotionMillionPipeline", "_diffusers_version": library,
        "pipeline": {"library": library, "class_name": "MotionMillionPipeline"},
        "weights": {"fsq": "fsq.safetensors", "ar": "ar.safetensors", "text_encoder": "text_encoder"},
    }))  # fmt: skip
    vqvae = json.loads((folder / "mm_config.json").read_text())["config"]["vqvae"]
    raw = {
        "model_type": "motionmillion",
        "artifact_format": form,
        "text_model_name": "google/flan-t5-xl",
        "text_encoder": {
            "stored_in_artifact": True,
            "path": "text_encoder",
            "source": "x",
            "type": "google/flan-t5-xl",
        },
        "config": {
            "vqvae": vqvae,
            "ar": {"config_name": "tiny-test", "block_size": 301, "clip_dim": 32, "tie_weights": False},
        },
    }
    from hftrainer.models.motion.motionmillion.network.llama import PRESETS

    PRESETS["tiny-test"] = {"n_layer": 1, "n_head": 8, "n_embd": 512}
    try:
        (folder / "mm_config.json").write_text(json.dumps(raw))
        bundle = MotionMillionBundle.from_pretrained(folder)
        pipeline = load_pipeline(folder)
    finally:
        del PRESETS["tiny-test"]
    assert bundle.ar.config == config
    assert bundle.config.training_splits == "unknown"
    want = answers(bundle)[1]
    assert torch.equal(answers(pipeline.bundle)[1], want)
    bundle.save_pretrained(tmp_path / "ours")  # and from there on it is ours
    assert torch.equal(answers(MotionMillionBundle.from_pretrained(tmp_path / "ours"))[1], want)


def test_a_published_artifact_without_its_text_encoder(tmp_path, tiny_model):
    """The two have no such thing as stored features; here such a folder loads without, with another, or with them."""
    folder = shutil.copytree(tiny_model, tmp_path / "bare")
    shutil.move(folder / "text_encoder", tmp_path / "t5")
    with pytest.raises(CheckpointError, match="should hold its text encoder in text_encoder/, which is not there"):
        MotionMillionBundle.from_pretrained(folder)
    assert MotionMillionBundle.from_pretrained(folder, text_encoder=None).text_encoder is None
    named = MotionMillionBundle.from_pretrained(folder, text_encoder=str(tmp_path / "t5"))
    for got, want in zip(answers(named), answers(make_tiny_bundle()), strict=True):
        assert torch.equal(got, want)
    wide = tmp_path / "wide"
    tiny_text_encoder(width=64).save_pretrained(wide)
    with pytest.raises(CheckpointError, match=r"makes features 64 wide; this model reads 32"):
        MotionMillionBundle.from_pretrained(folder, text_encoder=str(wide))


def test_parts_are_placed_by_name(tiny_model):
    """The meta device stands for one that this machine has not."""
    bundle = MotionMillionBundle.from_pretrained(tiny_model, device_map={"ar": "meta"})
    assert bundle.ar.lm_head.weight.device.type == "meta"
    assert {bundle.vqvae.vqvae.decoder.model[0].weight.device.type, bundle.text_encoder.device.type} == {"cpu"}
    assert bundle.device.type == "cpu"
    bundle = MotionMillionBundle.from_pretrained(tiny_model, device="meta", device_map={"ar": "cpu"})
    assert bundle.ar.lm_head.weight.device.type == "cpu"
    assert {bundle.mean.device.type, bundle.std.device.type, bundle.text_encoder.device.type} == {"meta"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": {"decoder": "cpu"}}, r"device_map places vqvae, ar, text_encoder; it names \['decoder'\]"),
        ({"device": "gpu"}, "there is no device 'gpu' for vqvae"),
        ({"device_map": {"ar": "cuda"}}, "ar should go to 'cuda', but this machine or this torch has no CUDA device"),
        ({"dtype": "int8"}, "dtype must be bfloat16, float32 or float16, got 'int8'"),
    ],
)
def test_wrong_places_and_types_are_refused(tiny_model, monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        MotionMillionBundle.from_pretrained(tiny_model, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_text_encoder_on_the_cpu_feeds_a_transformer_on_the_gpu(tiny_model):
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline

    texts = ["a person walks forward", "run"]
    want = MotionMillionPipeline.from_pretrained(tiny_model).infer_t2m(texts, max_sample_steps=5)
    for device_map in ({"text_encoder": "cpu"}, {"text_encoder": "cpu", "vqvae": "cpu"}, {"ar": "cpu"}):
        pipe = MotionMillionPipeline.from_pretrained(tiny_model, device="cuda", device_map=device_map)
        for got, motion in zip(pipe.infer_t2m(texts, max_sample_steps=5), want, strict=True):
            np.testing.assert_allclose(got, motion, atol=1e-3)


def test_sharded_weights_load(copy):
    state = load_file(copy / "ar.safetensors")
    names = sorted(state)
    halves = {"ar-00001-of-00002.safetensors": names[::2], "ar-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: state[name] for name in part}, copy / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    write_index(copy / "ar.safetensors.index.json", weight_map, 0)
    (copy / "ar.safetensors").unlink()
    loaded = MotionMillionBundle.from_pretrained(copy)
    for name, tensor in loaded.ar.state_dict().items():
        assert torch.equal(tensor, state[name])
    write_index(copy / "ar.safetensors.index.json", {"x": "../ar.safetensors"}, 0)
    with pytest.raises(CheckpointError, match="is not a valid file name below"):
        MotionMillionBundle.from_pretrained(copy)


def test_tied_weights_are_written_once_and_tied_again(tmp_path):
    bundle = make_tiny_bundle()
    config = LLaMAHFConfig(vocab_size=242, n_layer=1, n_head=2, n_embd=32, clip_dim=32, tie_weights=True)
    bundle.ar, bundle.config.ar = LLaMAHF(config), TRANSFORMERS.part_of(config)
    bundle.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "ar.safetensors")
    loaded = MotionMillionBundle.from_pretrained(tmp_path / "tied")
    assert loaded.ar.lm_head.weight is loaded.ar.transformer.wte.weight


def test_matrices_in_8_bits_are_within_half_a_step_of_their_row(tmp_path):
    bundle = make_tiny_bundle()
    tied = LLaMAHF(LLaMAHFConfig(**{**vars(bundle.ar.config), "tie_weights": True}))
    tied.transformer.wte.weight.data[3] = 0.0
    bundle.ar = tied
    bundle.config.ar.config.tie_weights = True
    bundle.save_pretrained(tmp_path / "model", dtype=torch.float16, int8_matrices=True)
    stored = load_file(tmp_path / "model" / "ar.safetensors")
    assert stored["transformer.wte.weight"].dtype == torch.int8
    assert "lm_head.weight" not in stored
    loaded = MotionMillionBundle.from_pretrained(tmp_path / "model")
    assert loaded.ar.lm_head.weight is loaded.ar.transformer.wte.weight
    for name, tensor in tied.state_dict().items():
        got = loaded.ar.state_dict()[name]
        if tensor.ndim == 2:
            assert got.dtype == torch.float32
            steps = tensor.abs().amax(dim=1, keepdim=True) / 127
            assert ((got - tensor).abs() <= 0.501 * steps).all()  # float32 of the scale
        else:
            torch.testing.assert_close(got, tensor, rtol=1e-3, atol=0)  # float16
    assert all(torch.isfinite(made).all() for made in answers(loaded))
    save_file({**stored, "transformer.wte.weight.scale": torch.ones(2)}, tmp_path / "model" / "ar.safetensors")
    with pytest.raises(CheckpointError, match="scales, expected one a row"):
        MotionMillionBundle.from_pretrained(tmp_path / "model")


def test_saving_over_an_artifact_replaces_it_whole(copy):
    (copy / "leftover.txt").write_text("old")
    make_tiny_bundle(seed=5).save_pretrained(copy)
    assert not (copy / "leftover.txt").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_artifact(copy, monkeypatch):
    from hftrainer.models.motion.motionmillion import artifact

    monkeypatch.setattr(artifact, "index", lambda **_: 1 / 0)
    before = (copy / "fsq.safetensors").read_bytes()
    with pytest.raises(ZeroDivisionError):
        make_tiny_bundle(seed=5).save_pretrained(copy)
    assert (copy / "fsq.safetensors").read_bytes() == before
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


# --- what the files are ---------------------------------------------------------------------------------------------


def test_the_manifest_finds_every_change(copy):
    assert verify_manifest(copy) == len([p for p in copy.rglob("*") if p.is_file()]) - 1
    before = fingerprint(copy)
    path = copy / "ar.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (copy / "std.npy").unlink()
    with pytest.raises(ManifestError, match=r"ar\.safetensors does not match its hash; std\.npy is missing"):
        verify_manifest(copy)
    path.write_bytes(data[:-1])
    with pytest.raises(ManifestError, match=r"ar\.safetensors has \d+ bytes, \d+ expected"):
        verify_manifest(copy)
    assert fingerprint(copy) != before  # the identity is that of the bytes, whatever the manifest states
    (copy / "manifest.json").unlink()
    assert fingerprint(copy) != before
    with pytest.raises(ManifestError, match=r"has no manifest\.json"):
        verify_manifest(copy)


def test_verify_while_loading(copy):
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline

    MotionMillionPipeline.from_pretrained(copy, verify=True)
    (copy / "text_encoder" / "config.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"text_encoder/config\.json"):
        MotionMillionPipeline.from_pretrained(copy, verify=True)


@pytest.mark.parametrize("content", ["{", '{"files": [{"path": "../x", "bytes": 1, "sha256": "a"}]}', '{"files": [1]}'])
def test_damaged_manifests(copy, content):
    (copy / "manifest.json").write_text(content)
    with pytest.raises(ManifestError, match=r"damaged|is not a valid file name below"):
        verify_manifest(copy)


# --- upstream's own files ------------------------------------------------------------------------------------------


def test_upstream_files_load(tmp_path, golden):
    """fsq and transformer as torch files with the keys and prefixes of the release; sizes are read off tensors."""
    torch.manual_seed(0)
    vqvae = HumanVQVAE()
    ar = LLaMAHF(LLaMAHFConfig.from_name("44M", clip_dim=2048))
    torch.save({"net": {f"module.{k}": v for k, v in vqvae.state_dict().items()}, "nb_iter": 6}, tmp_path / "fsq.zip")
    half = {f"module.{k}": v.bfloat16() for k, v in ar.state_dict().items()}
    torch.save({"trans": half, "nb_iter": 2}, tmp_path / "t2m.pth")
    np.save(tmp_path / "mean.npy", np.where(np.arange(272) == 9, 0.85, 0.0))
    np.save(tmp_path / "std.npy", np.full(272, 0.1))
    bundle = MotionMillionBundle(fsq_path=tmp_path / "fsq.zip", ar_path=tmp_path / "t2m.pth")
    assert bundle.ar.config == LLaMAHFConfig.from_name("44M")
    for name, tensor in ar.state_dict().items():
        assert torch.equal(bundle.ar.state_dict()[name], tensor.bfloat16())
    motion = torch.randn(1, 20, 272)
    torch.testing.assert_close(bundle.vqvae(motion).motion, vqvae(motion).motion)


def test_unknown_sizes_are_refused(tmp_path):
    state = LLaMAHF(LLaMAHFConfig(n_layer=3, n_head=2, n_embd=32, vocab_size=20, clip_dim=8)).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "ar.safetensors")
    with pytest.raises(CheckpointError, match="no preset has 3 layers of width 32"):
        sizes_of(open_checkpoint(tmp_path / "ar.safetensors"))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"'transformer\.wte\.weight' is missing"):
        sizes_of(open_checkpoint(tmp_path / "other.safetensors"))


# --- damage ----------------------------------------------------------------------------------------------------------


def edit(path, change):
    state = load_file(path)
    change(state)
    save_file(state, path)


DAMAGE = {
    "truncated file": (
        lambda f: (f / "ar.safetensors").write_bytes((f / "ar.safetensors").read_bytes()[:5000]),
        r"ar\.safetensors is not a complete safetensors file: it holds 5000 bytes",
    ),
    "missing name": (
        lambda f: edit(f / "ar.safetensors", lambda s: s.pop("llama_proj.bias")),
        r"ar\.safetensors does not fit LLaMAPart: 1 names missing, e\.g\. llama_proj\.bias",
    ),
    "extra name": (
        lambda f: edit(f / "ar.safetensors", lambda s: s.update(more=torch.zeros(1))),
        r"1 names unknown, e\.g\. more",
    ),
    "wrong shape": (
        lambda f: edit(f / "fsq.safetensors", lambda s: s.update({"vqvae.encoder.model.1.bias": torch.zeros(7)})),
        r"vqvae\.encoder\.model\.1\.bias: \(7,\) in the file, \(32,\) expected",
    ),
    "NaN": (
        lambda f: edit(f / "ar.safetensors", lambda s: s["llama_proj.bias"].fill_(float("nan"))),
        r"llama_proj\.bias holds NaN",
    ),
    "missing file": (lambda f: (f / "fsq.safetensors").unlink(), r"has no fsq\.safetensors"),
    "wrong mean": (
        lambda f: np.save(f / "mean.npy", np.zeros(263)),
        r"mean\.npy: expected floats \(272,\) of motion272, got \(263,\)",
    ),
    "mean of something else": (
        lambda f: np.save(f / "mean.npy", np.full(272, 7.0)),
        r"mean pelvis height \(channel 9\) is 7 m",
    ),
    "zero std": (lambda f: np.save(f / "std.npy", np.zeros(272)), r"standard deviations must be positive"),
    "std with NaN": (lambda f: np.save(f / "std.npy", np.full(272, np.nan)), r"holds a NaN or infinite value"),
    "config is not JSON": (lambda f: (f / "mm_config.json").write_text("{"), r"mm_config\.json is not a JSON file"),
    "unknown format": (
        lambda f: (f / "mm_config.json").write_text('{"artifact_format": "x", "config": {}}'),
        r"artifact_format is 'x', expected one of",
    ),
    "no config": (lambda f: (f / "mm_config.json").unlink(), r"is not a Go to Zero model"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_artifacts_say_what_is_wrong(copy, damage):
    harm, message = DAMAGE[damage]
    harm(copy)
    with pytest.raises((CheckpointError, ConfigError, ValueError), match=message):
        MotionMillionBundle.from_pretrained(copy)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    """torch files are opened with weights_only; the reader has a corpus of its own when it learns more forms."""
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with open(tmp_path / "fsq.pth", "wb") as stream:
        pickle.dump({"net": Evil()}, stream)
    with pytest.raises(CheckpointError, match=r"not a torch weight file|refused and nothing was run"):
        MotionMillionBundle(fsq_path=tmp_path / "fsq.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["mean.npy", "mm_config.json", "fsq.safetensors"])
def test_a_file_that_is_deleted_while_others_are_written_is_noticed(tmp_path, monkeypatch, name):
    bundle, write = make_tiny_bundle(), artifact.write_manifest

    def disturbed(folder, needed):
        (folder / name).unlink()
        write(folder, needed)

    monkeypatch.setattr(artifact, "write_manifest", disturbed)
    with pytest.raises(FileNotFoundError, match=rf"{name} was deleted while other files"):
        bundle.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
