"""Our T5 encoder and tokenizer against those of transformers, which they replace."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from hftrainer.models.network.t5 import T5Encoder, T5Sizes, relative_buckets
from hftrainer.models.t5_files import load_t5_model, read_t5_sizes, write_t5_model
from hftrainer.models.t5_tokenizer import T5Tokenizer, read_t5_tokenizer

NANO = Path(__file__).parents[2] / "checkpoints" / "gotozero-nano" / "text_encoder"
SIZES = T5Sizes(vocab_size=50, d_model=24, d_kv=6, d_ff=40, num_layers=3, num_heads=5, feed_forward_proj="gated-gelu")
# float32 of order 1; versions of transformers differ in the order of attention's sums
CLOSE = {"atol": 1e-6, "rtol": 1e-6}

TEXTS = [
    "a person walks forward, then waves with the left hand", "RUNS as fast as possible!!", "", " ",
    "  two  spaces\tand\n", "Grüße, naïve café — “quoted” … ½ ﬁne", "走る人", "🕺 dances",
    "<pad> </s> <unk> <extra_id_3>", "a" * 300, "x\u200by\u00a0z", "e\u0301 is decomposed",
    "0123456789 12.5 3/4", "don't (stop) [now] {ok} \\ / | ~ ^", "\x00\x01 control",
]  # fmt: skip


def their_model(sizes: T5Sizes, seed: int = 0) -> torch.nn.Module:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    config = T5Config(**asdict(sizes))
    model: torch.nn.Module = T5EncoderModel(config).eval()
    return model


def ours_of(theirs: torch.nn.Module, sizes: T5Sizes) -> T5Encoder:
    ours = T5Encoder(sizes).eval()
    state = theirs.state_dict()
    state.pop("encoder.embed_tokens.weight")
    ours.load_state_dict(state)
    return ours


def batch(sizes: T5Sizes, length: int = 45) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(sizes.vocab_size, (3, length), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(length)[None] < torch.tensor([length, 7, 1])[:, None]


@pytest.mark.parametrize(
    "changes",
    [
        {},  # the gated layers of Flan-T5
        {"feed_forward_proj": "relu"},  # T5 v1.0
        {"feed_forward_proj": "gated-silu"},
        {"feed_forward_proj": "gelu", "layer_norm_epsilon": 0.1},
        {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
    ],
    ids=str,
)
@torch.no_grad()
def test_hidden_states_are_those_of_transformers(changes):
    sizes = T5Sizes(**{**asdict(SIZES), **changes})
    theirs = their_model(sizes)
    ours = ours_of(theirs, sizes)
    ids, mask = batch(sizes)
    want = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours(ids, mask)[mask], want[mask], **CLOSE)
    torch.testing.assert_close(ours(ids), theirs(input_ids=ids).last_hidden_state, **CLOSE)
    half = ours.to(torch.bfloat16)(ids, mask)[mask]
    want = theirs.to(torch.bfloat16)(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
    torch.testing.assert_close(half, want, atol=2**-6, rtol=2**-6)  # two steps of bfloat16


def test_dropout_and_gradients_are_those_of_transformers():
    theirs = their_model(SIZES)
    ours = ours_of(theirs, SIZES)
    ids, mask = batch(SIZES)
    made = []
    for model in (theirs, ours):
        model.train()
        torch.manual_seed(3)
        hidden = model(ids, mask) if model is ours else model(input_ids=ids, attention_mask=mask.long())[0]
        hidden[mask].square().sum().backward()
        made.append(hidden[mask].detach())
    torch.testing.assert_close(made[1], made[0], **CLOSE)
    wanted = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        scale = float(wanted[name].abs().max())  # sums over all tokens: compared in units of the largest
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-5 * scale, rtol=0)


def test_a_row_without_a_token_and_a_batch_without_rows_give_no_nan():
    model = T5Encoder(SIZES).eval()
    assert model(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool)).isfinite().all()
    assert model(torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool)).shape == (0, 1, 24)


def test_fresh_weights_have_the_spread_of_the_authors():
    torch.manual_seed(0)
    sizes = T5Sizes(vocab_size=500, d_model=64, d_kv=16, d_ff=200, num_layers=2, num_heads=8, initializer_factor=0.5)
    ours, theirs = T5Encoder(sizes), their_model(sizes).state_dict()
    ours.reset_parameters()
    for name, tensor in ours.named_parameters():
        if tensor.numel() >= 1000:  # of so many draws the spread is known to a few percent
            assert float(tensor.detach().std()) == pytest.approx(float(theirs[name].std()), rel=0.1), name


def test_near_positions_have_buckets_of_their_own_and_far_ones_share_the_last():
    table = relative_buckets(300, 32, 128)
    assert table[0, :8].tolist() == [0, 17, 18, 19, 20, 21, 22, 23]
    assert table[7, :8].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert set(table[0, 128:].tolist()) == {31}
    assert set(table[299, :170].tolist()) == {15}


# --- files ------------------------------------------------------------------------------------------------------------

# the published config.json of google/flan-t5-xl
FLAN_T5_XL = {
    "architectures": ["T5ForConditionalGeneration"], "d_ff": 5120, "d_kv": 64, "d_model": 2048,
    "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "t5",
    "n_positions": 512, "num_decoder_layers": 24, "num_heads": 32, "num_layers": 24, "output_past": True,
    "pad_token_id": 0, "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False, "use_cache": True, "vocab_size": 32128,
}  # fmt: skip


def config_of(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**FLAN_T5_XL, **changes}))
    return folder


def test_the_sizes_of_flan_t5_xl_are_read(tmp_path):
    sizes = read_t5_sizes(config_of(tmp_path))
    assert (sizes.d_model, sizes.num_layers, sizes.num_heads, sizes.d_ff) == (2048, 24, 32, 5120)
    assert (sizes.gated, sizes.activation) == (True, "gelu_new")
    config_of(tmp_path, hidden_size=64, num_hidden_layers=3)
    assert (read_t5_sizes(tmp_path).d_model, read_t5_sizes(tmp_path).num_layers) == (64, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feed_forward_proj": "gated-tanh"}, "feed_forward_proj is 'gated-tanh'; known: relu"),
        ({"is_decoder": True}, "asks for a decoder"),
        ({"quantization_config": {"load_in_8bit": True}}, "asks for quantized weights"),
        ({"dense_act_fn": "relu"}, "dense_act_fn is 'relu', but feed_forward_proj is 'gated-gelu'"),
        ({"num_heads": 0}, "num_heads must be a whole number of at least 1, got 0"),
        ({"dropout_rate": "much"}, "dropout_rate must be a number"),
        ({"relative_attention_max_distance": 8}, "a largest distance above a quarter"),
        ({"model_type": "umt5"}, "model of type umt5"),
    ],
)
def test_what_is_not_computed_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_t5_sizes(config_of(tmp_path, **changes))


@torch.no_grad()
def test_the_embedded_models_encoder_is_that_of_transformers():
    from transformers import AutoTokenizer, T5EncoderModel

    theirs, ours = T5EncoderModel.from_pretrained(NANO).eval(), load_t5_model(NANO)
    rows = read_t5_tokenizer(NANO)(TEXTS)
    assert rows == AutoTokenizer.from_pretrained(NANO)(TEXTS)["input_ids"]
    for row in rows[:2]:
        ids = torch.tensor([row])
        torch.testing.assert_close(ours(ids), theirs(input_ids=ids).last_hidden_state, **CLOSE)


@torch.no_grad()
def test_what_is_written_is_read_by_transformers(tmp_path):
    from transformers import AutoTokenizer, T5EncoderModel

    sizes = T5Sizes(**{**asdict(SIZES), "feed_forward_proj": "gated-silu", "relative_attention_num_buckets": 12})
    ours = T5Encoder(sizes).eval()
    ours.reset_parameters()
    write_t5_model(ours, tmp_path)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -4.0) for letter in "abcdefgh")]
    tokenizer = T5Tokenizer.of_pieces(pieces, model_max_length=64)
    tokenizer.save_pretrained(tmp_path)
    ids, mask = batch(sizes)
    theirs = T5EncoderModel.from_pretrained(tmp_path).eval()
    want = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours(ids, mask)[mask], want[mask], **CLOSE)
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert read(TEXTS)["input_ids"] == tokenizer(TEXTS) == read_t5_tokenizer(tmp_path)(TEXTS)
    assert (read.pad_token_id, read.model_max_length, len(read)) == (0, 64, len(tokenizer))


def test_a_normalizer_is_kept_by_both_readers(tmp_path):
    from transformers import AutoTokenizer

    from hftrainer.training.text_distillation import new_t5_tokenizer

    config_of(tmp_path)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -4.0) for letter in "abcdefgh")]
    tokenizer = new_t5_tokenizer(pieces, normalize=True)
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer(["A  Bead, a fAce!"]) == tokenizer(["a bead a face"])
    texts = ["A  Bead, a fAce!", *TEXTS]
    assert read_t5_tokenizer(tmp_path)(texts) == AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"]


def test_a_sentencepiece_model_is_converted(tmp_path):
    import sentencepiece
    from transformers import AutoTokenizer

    config_of(tmp_path)
    (tmp_path / "text").write_text("a person walks forward and waves\nsomeone runs ahead\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spiece"), vocab_size=40, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    ours = read_t5_tokenizer(tmp_path)
    assert ours(["a person runs"]) == AutoTokenizer.from_pretrained(tmp_path)(["a person runs"])["input_ids"]
    assert ours.decode(ours(["a person runs"])[0]) == "a person runs"


def test_a_folder_without_words_is_refused(tmp_path):
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(NANO / name, tmp_path / name)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="has no tokenizer that transformers can read"):
        read_t5_tokenizer(tmp_path)
