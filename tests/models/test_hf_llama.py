"""The exported Llama is the same function, and its own loop makes the same codes."""

from __future__ import annotations

import json

import pytest
import torch

from hftrainer.bench.engines import generate_with_transformers
from hftrainer.models.motion.motionmillion.hf_llama import export_llama, prefill_mask, to_llama
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig

SIZES = {"vocab_size": 202, "n_layer": 2, "n_head": 4, "n_embd": 64, "clip_dim": 16}


def make_model(**sizes) -> LLaMAHF:
    torch.manual_seed(0)
    model = LLaMAHF(LLaMAHFConfig(**{**SIZES, **sizes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.15) if weight.ndim > 1 else weight.uniform_(0.5, 1.5)
    return model


@torch.no_grad()
def test_prefill_logits_are_equal_with_padded_text():
    model = make_model()
    features, lengths = torch.randn(3, 7, 16), torch.tensor([7, 1, 4])
    mask = torch.arange(7)[None] < lengths[:, None]
    got = to_llama(model)(
        inputs_embeds=model.llama_proj(features), attention_mask=prefill_mask(mask, torch.float32)
    ).logits[:, :, :201]
    idx = torch.full((3, 7), model.config.pad_id)
    want = model(idx, features, mask)
    torch.testing.assert_close(got[mask], want[mask], atol=2e-5, rtol=0)


@torch.no_grad()
def test_its_generate_makes_the_same_codes():
    model, features = make_model(), torch.randn(3, 7, 16)
    mask = torch.ones(3, 7, dtype=torch.bool)
    want = model.generate(features, mask, 25, min_new_tokens=25).tokens
    assert torch.equal(generate_with_transformers(to_llama(model), model, features, 25), want)


@torch.no_grad()
def test_an_exported_folder_loads_by_itself(tmp_path):
    from transformers import LlamaForCausalLM

    model = make_model()
    export_llama(model, tmp_path / "llama")
    other = LlamaForCausalLM.from_pretrained(tmp_path / "llama").eval()
    ids = torch.randint(0, 200, (2, 9))
    want = to_llama(model)(input_ids=ids).logits
    torch.testing.assert_close(other(input_ids=ids).logits, want, atol=1e-6, rtol=0)
    assert other.generation_config.suppress_tokens == [201]
    assert json.loads((tmp_path / "llama" / "config.json").read_text())["eos_token_id"] == 200
    assert "text_projection.safetensors" in (tmp_path / "llama" / "README.md").read_text()


def test_a_rounded_rotary_table_cannot_be_exported():
    with pytest.raises(ValueError, match="rope_dtype='bfloat16' rounds the rotary table"):
        to_llama(make_model(rope_dtype="bfloat16"))
