"""The T5 wrapper: padding changes nothing, long text is cut, the folder is plain transformers."""

from __future__ import annotations

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
    batch = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    hidden = encoder.model(**batch).last_hidden_state
    got = encoder(TEXTS)
    assert torch.equal(got.mask, batch["attention_mask"].bool())
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
    ids = tokenizer("a person walks")["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a person walks"
