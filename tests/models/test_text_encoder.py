"""The T5 wrapper: padding changes nothing, long text is cut, the folder is plain transformers."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from hftrainer.models.text_encoder import TextEncoder, TextEncoderConfig, load_t5
from tests.tiny import tiny_text_encoder

TEXTS = ["a person walks forward, then waves", "run", "someone stands still and turns left while walking"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return tiny_text_encoder()


@torch.no_grad()
def test_a_batch_equals_one_by_one(encoder):
    together = encoder(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = encoder([text])
        n = int(together.mask[row].sum())
        assert alone.features.shape[1] == n
        torch.testing.assert_close(together.features[row, :n], alone.features[0], atol=1e-5, rtol=0)
        assert not together.features[row, n:].any()


@torch.no_grad()
def test_features_are_the_encoders_last_hidden_states(encoder):
    batch = encoder.tokenize(TEXTS)
    hidden = encoder.model(batch["input_ids"], batch["attention_mask"])
    got = encoder(TEXTS)
    assert torch.equal(got.mask, batch["attention_mask"])
    torch.testing.assert_close(got.features, hidden * batch["attention_mask"][..., None], atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_end_of_text_is_a_position_and_long_text_is_cut(encoder):
    one = encoder(["run"])
    assert encoder.tokenize(["run"])["input_ids"][0, -1] == encoder.tokenizer.eos_token_id
    assert int(one.mask.sum()) == int(one.tokens)
    long = encoder(["walk " * 400, "run"])
    assert long.features.shape[1] == 150
    assert int(long.tokens[0]) > 400
    torch.testing.assert_close(long.features[1, : int(one.tokens)], one.features[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_saved_folders_are_plain_transformers(encoder, tmp_path):
    from transformers import AutoTokenizer, T5EncoderModel

    encoder.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in tmp_path.iterdir()}
    model, tokenizer = T5EncoderModel.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(TEXTS[:1], return_tensors="pt")
    torch.testing.assert_close(model(**batch).last_hidden_state, encoder(TEXTS[:1]).features)
    again = TextEncoder(TextEncoderConfig(source=str(tmp_path)))
    assert torch.equal(again(TEXTS).features, encoder(TEXTS).features)
    half = TextEncoder(TextEncoderConfig(source=str(tmp_path), dtype="bfloat16"))
    assert half(TEXTS).features.dtype == torch.bfloat16


def test_a_string_and_a_missing_folder_are_refused(encoder, tmp_path):
    with pytest.raises(TypeError, match="must be a list of strings"):
        encoder("run")
    with pytest.raises(ValueError, match="there is no text encoder folder"):
        load_t5(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_t5("google/flan-t5-xl", local_files_only=True)


def test_learned_pieces_make_a_working_tokenizer():
    from hftrainer.training.text_distillation import learn_pieces, new_t5_tokenizer
    from tests.tiny import SENTENCES

    pieces = learn_pieces(SENTENCES, 80)
    assert [piece for piece, _ in pieces[:3]] == ["<pad>", "</s>", "<unk>"]
    tokenizer = new_t5_tokenizer(pieces)
    ids = tokenizer(["a person walks"])[0]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == "a person walks"


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("t5")
    encoder.save_pretrained(out)
    return out


@torch.no_grad()
def test_weights_are_mapped_and_equal_those_of_transformers(folder):
    from transformers import T5EncoderModel

    ours, _ = load_t5(folder)
    theirs = T5EncoderModel.from_pretrained(folder)
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    state = theirs.state_dict()
    assert ours.state_dict().keys() == state.keys() - {"encoder.embed_tokens.weight"}  # the second name of a tied table
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    ids = torch.tensor([[3, 4, 5, 1]])
    torch.testing.assert_close(ours(ids), theirs(ids).last_hidden_state, atol=1e-6, rtol=0)  # float32, of order 1


@torch.no_grad()
def test_of_a_whole_t5_the_decoder_is_not_read(encoder, tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(**asdict(encoder.model.config), num_decoder_layers=2, is_encoder_decoder=True)
    whole = T5ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    loaded = TextEncoder(TextEncoderConfig(source=str(tmp_path)))
    ids = torch.tensor([[3, 4, 5, 1]])
    torch.testing.assert_close(loaded.model(ids), whole.encoder(ids).last_hidden_state, atol=1e-6, rtol=0)


def test_a_folder_with_torch_weights_loads_too(encoder, folder, tmp_path):
    import shutil

    from safetensors.torch import load_file

    shutil.copytree(folder, tmp_path / "t5")
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "t5" / "pytorch_model.bin")
    (tmp_path / "t5" / "model.safetensors").unlink()
    loaded = TextEncoder(TextEncoderConfig(source=str(tmp_path / "t5")))
    assert torch.equal(loaded(TEXTS).features, encoder(TEXTS).features)
    assert loaded.sha256() == encoder.sha256()


@torch.no_grad()
def test_on_demand_and_freed(encoder, folder):
    lazy = TextEncoder(TextEncoderConfig(source=str(folder)), on_demand=True)
    assert lazy.model is None
    assert lazy.width == 32
    assert lazy.count_tokens(TEXTS) == encoder.count_tokens(TEXTS)
    assert lazy.model is None  # counting needs the tokenizer alone
    for _ in range(2):
        assert torch.equal(lazy(TEXTS).features, encoder(TEXTS).features)
        lazy.free()
        assert lazy.model is None
    with pytest.raises(ValueError, match="made in memory, so its weights could not be loaded again"):
        encoder.free()


def test_a_freed_encoder_comes_back_where_it_was(folder):
    lazy = TextEncoder(TextEncoderConfig(source=str(folder)), on_demand=True).to("meta")
    lazy.load()
    assert lazy.device.type == "meta"
    lazy.free()
    assert lazy.device.type == "meta"


def test_damaged_weights_and_types_that_overflow_are_refused(folder, tmp_path):
    import shutil

    from hftrainer.models.checkpoint import CheckpointError

    shutil.copytree(folder, tmp_path / "t5")
    path = tmp_path / "t5" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a complete safetensors file"):
        load_t5(tmp_path / "t5")
    with pytest.raises(ValueError, match="float16 overflows"):
        TextEncoderConfig(dtype="float16")


def test_texts_of_megabytes_are_refused():
    """Two million words take gigabytes to tokenize, for the first 150 of them."""
    from hftrainer.models.text_encoder_base import MAX_TEXT, check_list

    assert check_list(["walk", "a" * MAX_TEXT]) == ["walk", "a" * MAX_TEXT]
    with pytest.raises(ValueError, match="a text has 100001 letters, the limit is 100000; it begins with 'bbb"):
        check_list(["walk", "b" * (MAX_TEXT + 1)])
    with pytest.raises(ValueError, match="a text is not UTF-8"):
        check_list(["a \udcff walk"])
