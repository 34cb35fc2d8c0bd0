"""CLIP's and sentence models' text encoders: features, pooling, files, what is refused. Nothing is downloaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from hftrainer.models.checkpoint import CheckpointError
from hftrainer.models.hf_text_encoder import CLIPConfig, CLIPTextEncoder, SentenceConfig, SentenceTextEncoder
from hftrainer.models.text_features import StoredTextFeatures, estimate_text_features, write_text_features
from hftrainer.registry import TEXT_ENCODERS
from tests.conftest import GOLDEN
from tests.tiny_encoders import tiny_bert, tiny_clip

TEXTS = ["a person walks forward, then waves", "run", "someone stands still and turns left while walking"]
KINDS = [("clip", p) for p in ("tokens", "eos", "projected")] + [("sentence", p) for p in ("tokens", "mean", "cls")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return {
        "clip": tiny_clip(root / "clip"), "both": tiny_clip(root / "both", both=True),
        "sentence": tiny_bert(root / "bert"),
    }  # fmt: skip


def build(folders, name, pooling, **more):
    return TEXT_ENCODERS.build({"name": name, "source": str(folders[name]), "pooling": pooling}, **more)


@torch.no_grad()
@pytest.mark.parametrize(("name", "pooling"), KINDS)
def test_a_batch_equals_one_by_one(folders, name, pooling):
    encoder = build(folders, name, pooling)
    together = encoder(TEXTS)
    assert together.features.shape[2] == encoder.width == (16 if pooling == "projected" else 32)
    assert together.tokens.tolist() == encoder.count_tokens(TEXTS)
    assert together.mask.sum(dim=1).tolist() == encoder.positions(encoder.count_tokens(TEXTS))
    for row, text in enumerate(TEXTS):
        single = encoder([text])
        n = int(together.mask[row].sum())
        assert single.features.shape[1] == n == (1 if pooling != "tokens" else int(single.tokens[0]))
        # float32 sums of attention in another order
        torch.testing.assert_close(together.features[row, :n], single.features[0], atol=1e-5, rtol=0)
        assert not together.features[row, n:].any()
    assert not torch.allclose(together.features[0, 0], together.features[2, 0], atol=1e-3) or pooling == "tokens"


@torch.no_grad()
def test_clip_features_are_those_of_transformers(folders):
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = CLIPModel.from_pretrained(folders["both"]).eval(), CLIPTokenizer.from_pretrained(folders["both"])
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    hidden = model.text_model(**batch)
    wanted = {
        "tokens": hidden.last_hidden_state * batch["attention_mask"][..., None],
        "eos": hidden.pooler_output[:, None],
        "projected": model.text_projection(hidden.pooler_output)[:, None],
    }
    for pooling, features in wanted.items():
        encoder = TEXT_ENCODERS.build({"name": "clip", "source": str(folders["both"]), "pooling": pooling})
        torch.testing.assert_close(encoder(TEXTS).features, features, atol=1e-5, rtol=0)


@torch.no_grad()
def test_sentence_features_are_those_of_transformers(folders):
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(folders["sentence"]) for kind in (AutoModel, AutoTokenizer))
    hidden = [model.eval()(**tokenizer([text], return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    for pooling, of in (("mean", lambda rows: rows.mean(dim=0)), ("cls", lambda rows: rows[0])):
        got = build(folders, "sentence", pooling)(TEXTS).features[:, 0]
        torch.testing.assert_close(got, torch.stack([of(rows) for rows in hidden]), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("name", "pooling"), [("clip", "tokens"), ("clip", "eos"), ("sentence", "tokens")])
def test_long_text_is_cut_before_its_last_special_token(folders, name, pooling):
    encoder = build(folders, name, pooling)
    encoder.config.max_tokens = 9
    long, short = "walk " * 50, "run"
    batch = encoder.tokenize([long, short])
    end = encoder.tokenize([short])["input_ids"][0, -1]
    assert batch["input_ids"].shape == (2, 9)
    assert batch["input_ids"][0, -1] == end
    assert int(batch["tokens"][0]) > 50
    assert encoder([long, short]).features.shape[1] == (9 if pooling == "tokens" else 1)


@torch.no_grad()
@pytest.mark.parametrize(("name", "pooling"), KINDS)
def test_a_saved_encoder_is_the_same(folders, name, pooling, tmp_path):
    encoder = build(folders, name, pooling)
    assert encoder.save_artifact(tmp_path / "same") == encoder.sha256()
    files = {path.name for path in (tmp_path / "same").iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    again = build({name: tmp_path / "same"}, name, pooling)
    assert torch.equal(again(TEXTS).features, encoder(TEXTS).features)
    assert again.sha256() == encoder.sha256()
    half = encoder.save_artifact(tmp_path / "half", dtype=torch.bfloat16)
    rounded = build({name: tmp_path / "half"}, name, pooling)
    assert half == rounded.sha256() != encoder.sha256()
    assert rounded(TEXTS).features.dtype == torch.float32
    torch.testing.assert_close(rounded(TEXTS).features, encoder(TEXTS).features, atol=0.1, rtol=0.1)
    sizes = [(tmp_path / kind / "model.safetensors").stat().st_size for kind in ("half", "same")]
    assert sizes[0] < 0.7 * sizes[1]


def test_the_text_half_of_a_clip_is_the_same_from_either_file(folders, tmp_path):
    from transformers import CLIPModel

    CLIPModel.from_pretrained(folders["both"]).text_model.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders["both"] / file, tmp_path)
    whole = TEXT_ENCODERS.build({"name": "clip", "source": str(folders["both"])})
    half = TEXT_ENCODERS.build({"name": "clip", "source": str(tmp_path)})
    assert whole.sha256() == half.sha256()


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "sentence"])
def test_on_demand_and_freed(folders, name):
    lazy, encoder = build(folders, name, "tokens", on_demand=True), build(folders, name, "tokens")
    assert lazy.model is None
    assert (lazy.width, lazy.count_tokens(TEXTS)) == (32, encoder.count_tokens(TEXTS))
    assert lazy.sha256() == encoder.sha256()
    assert lazy.model is None
    for _ in range(2):
        assert torch.equal(lazy(TEXTS).features, encoder(TEXTS).features)
        lazy.free()
        assert lazy.model is None
    lazy.to("meta").load()
    assert lazy.device.type == "meta"


def test_every_parameter_that_trains_takes_part(folders):
    for name, pooling in KINDS:
        encoder = build(folders, name, pooling)
        encoder.model.requires_grad_(True)
        encoder(TEXTS).features.square().sum().backward()
        assert [n for n, p in encoder.model.named_parameters() if p.grad is None] == []


# --- outlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config", "parameters", "width"),
    [
        (CLIPTextEncoder, CLIPConfig(), 63_165_952, 512),
        (CLIPTextEncoder, CLIPConfig(pooling="projected"), 63_428_096, 512),
        (CLIPTextEncoder, CLIPConfig(source="openai/clip-vit-large-patch14"), 123_060_480, 768),
        # all-MiniLM-L6-v2 has 22,713,216 with its pooler of 384 x 384 + 384
        (SentenceTextEncoder, SentenceConfig(), 22_713_216 - 147_840, 384),
    ],
)
def test_published_sizes_stand_in_for_files(kind, config, parameters, width):
    encoder, notes = kind.outline(config)
    assert encoder.width == width
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert {p.device.type for p in encoder.parameters()} == {"meta"}
    assert notes == [f"the text encoder {config.source} is not here: its published sizes are used"]


def test_outlines_of_files_and_of_nothing(folders):
    for name, pooling in KINDS:
        real = build(folders, name, pooling)
        outlined, notes = type(real).outline(real.config)
        assert (outlined.width, notes) == (real.width, [])
        shapes = [{n: p.shape for n, p in encoder.model.named_parameters()} for encoder in (outlined, real)]
        assert shapes[0] == shapes[1]
    tokenizer_only = SentenceConfig(source=str(GOLDEN / "tiny_distilbert"), max_tokens=64)
    assert SentenceTextEncoder.outline(tokenizer_only)[0].width == 96
    unknown = CLIPConfig(source="someone/some-clip")
    assert CLIPTextEncoder.outline(unknown)[0] is None
    encoder, notes = CLIPTextEncoder.outline(unknown, width=7)
    assert encoder.width == 7
    assert "its size is not known" in notes[0]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be(folders):
    with pytest.raises(ValueError, match="pooling must be one of tokens, eos, projected, got 'mean'"):
        CLIPConfig(pooling="mean")
    with pytest.raises(ValueError, match="pooling must be one of tokens, mean, cls, got 'eos'"):
        SentenceConfig(pooling="eos")
    with pytest.raises(ValueError, match="reads 77 tokens at most, got max_tokens=150"):
        CLIPTextEncoder(CLIPConfig(source=str(folders["clip"]), max_tokens=150))
    with pytest.raises(ValueError, match="float16 overflows"):
        CLIPConfig(dtype="float16")
    with pytest.raises(TypeError, match="must be a list of strings"):
        build(folders, "clip", "tokens")("run")


def test_a_model_of_another_kind_is_refused_with_the_name_to_write(folders, tiny_model):
    t5 = str(tiny_model / "text_encoder")
    for name, source, advice in (
        ("clip", folders["sentence"], "of type bert, .* write name: sentence"),
        ("sentence", folders["both"], "of type clip, .* write name: clip"),
        ("sentence", t5, "of type t5, .* write name: t5"),
        ("clip", t5, "of type t5, .* write name: t5"),
        ("t5", folders["clip"], "of type clip_text_model, .* write name: clip"),
    ):
        with pytest.raises(ValueError, match=advice):
            TEXT_ENCODERS.build({"name": name, "source": str(source)})


def test_absent_damaged_and_incomplete_files(folders, tmp_path):
    with pytest.raises(ValueError, match=r"'openai/clip-vit-base-patch32' cannot be loaded: .* Download it first"):
        CLIPTextEncoder(CLIPConfig(), local_files_only=True)
    with pytest.raises(ValueError, match="there is no text encoder folder"):
        CLIPTextEncoder(CLIPConfig(source=str(tmp_path / "nowhere")))
    shutil.copytree(folders["clip"], tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a complete safetensors file"):
        CLIPTextEncoder(CLIPConfig(source=str(tmp_path / "cut")))
    shutil.copytree(folders["sentence"], tmp_path / "deeper")
    sizes = json.loads((tmp_path / "deeper" / "config.json").read_text())
    (tmp_path / "deeper" / "config.json").write_text(json.dumps({**sizes, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"16 weights are missing, e\.g\. encoder\.layer\.2\."):
        SentenceTextEncoder(SentenceConfig(source=str(tmp_path / "deeper")))
    (tmp_path / "deeper" / "config.json").write_text(json.dumps({**sizes, "intermediate_size": 50}))
    with pytest.raises(CheckpointError, match=r"do not have the sizes of its config\.json"):
        SentenceTextEncoder(SentenceConfig(source=str(tmp_path / "deeper")))


@pytest.mark.parametrize("name", ["clip", "sentence", "t5"])
def test_an_encoder_without_its_tokenizer_is_refused(folders, name, tiny_model, tmp_path):
    source = tiny_model / "text_encoder" if name == "t5" else folders[name]
    shutil.copytree(source, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ValueError, match=r"has no tokenizer that transformers can read|cannot be loaded"):
        TEXT_ENCODERS.build({"name": name, "source": str(tmp_path / "bare")})


@torch.no_grad()
@pytest.mark.parametrize("kind", ["Roberta", "MPNet"])
def test_positions_that_start_behind_the_padding_are_not_counted(folders, kind, tmp_path):
    """Of 34 positions these models use 32; one token more would be read past the end of the table."""
    import transformers

    folder = shutil.copytree(folders["sentence"], tmp_path / kind, ignore=shutil.ignore_patterns("*.safetensors"))
    sizes = getattr(transformers, f"{kind}Config")(
        vocab_size=30, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    getattr(transformers, f"{kind}Model")(sizes).save_pretrained(folder)
    encoder = SentenceTextEncoder(SentenceConfig(source=str(folder), max_tokens=32))
    assert encoder(["run " * 60]).features.shape == (1, 32, 32)
    with pytest.raises(ValueError, match="reads 32 tokens at most, got max_tokens=33"):
        SentenceTextEncoder(SentenceConfig(source=str(folder), max_tokens=33))


def test_torch_weights_are_read_without_running_code(folders, tmp_path):
    from safetensors.torch import load_file

    folder = shutil.copytree(folders["sentence"], tmp_path / "bin")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert build({"sentence": folder}, "sentence", "mean").sha256() == build(folders, "sentence", "mean").sha256()


def test_code_that_a_model_brings_is_never_run(folders, tmp_path):
    folder = shutil.copytree(folders["sentence"], tmp_path / "own")
    sizes = json.loads((folder / "config.json").read_text())
    mark = tmp_path / "it ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')")
    own = {"model_type": "own-kind", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps({**sizes, **own}))
    with pytest.raises(ValueError, match="code that a model brings is never run"):
        SentenceTextEncoder(SentenceConfig(source=str(folder)))
    assert not mark.exists()


def test_a_layer_behind_the_pooling_is_not_passed_over(folders, tmp_path):
    folder = shutil.copytree(folders["sentence"], tmp_path / "dense")
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{k}"} for k in kinds]))
    with pytest.raises(ValueError, match=r"has a layer after its pooling \(Dense\), which is not applied"):
        SentenceTextEncoder(SentenceConfig(source=str(folder), pooling="mean"))
    assert SentenceTextEncoder(SentenceConfig(source=str(folder))).width == 32


# --- stored features --------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("name", "pooling"), KINDS)
def test_stored_features_stand_in_for_it(folders, name, pooling, tmp_path):
    encoder = build(folders, name, pooling)
    size = estimate_text_features(TEXTS, encoder)
    assert write_text_features(tmp_path / "f.safetensors", TEXTS, encoder) == len(TEXTS)
    held = StoredTextFeatures(tmp_path / "f.safetensors")
    assert size.rows == int(encoder(TEXTS).mask.sum())
    assert held.kind == {"name": name, "pooling": pooling}
    assert held.positions([5, 500]) == encoder.positions([5, 500])
    got, want = held(TEXTS), encoder(TEXTS)
    assert torch.equal(got.mask, want.mask)
    assert torch.equal(got.tokens, want.tokens)
    torch.testing.assert_close(got.features, want.features, atol=1e-5, rtol=0)
    for other_name, other in KINDS:
        part = TEXT_ENCODERS.part({"name": other_name, "pooling": other, "source": "anything"})
        if (other_name, other) == (name, pooling):
            held.check_kind(part)
        else:
            with pytest.raises(ValueError, match=f"holds features of name: {name}, pooling: {pooling}, the model's"):
                held.check_kind(part)
    assert encoder.sha256() not in {build(folders, *kind).sha256() for kind in KINDS if kind != (name, pooling)}
