"""The transformer as a `LlamaForCausalLM`, so that other engines can run it.

The two are the same function. Rows of queries and keys are permuted inside each head, because theirs rotates channel
j with channel j + head_size / 2 and ours with its neighbour; the head gets a row for PAD, which must be suppressed;
text goes in as `inputs_embeds` = `text_projection` (features), and while it does, every text position sees all of it:

    positions    0 .. n-1 (text)                       n .. (motion)
    mask         0 for keys 0 .. n-1 of real text      the usual causal mask over what is cached
                 -inf for padding

as a 4-D additive mask for the first call. Afterwards decoding is that of any Llama.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hftrainer.files import atomic_folder, write_json, write_text
from hftrainer.models.checkpoint.safetensors import write_safetensors
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig

_README = """# Go to Zero as a LlamaForCausalLM

Load with `transformers.LlamaForCausalLM.from_pretrained`. Text enters as `inputs_embeds`: Flan-T5 features times
`text_projection.safetensors` (`weight`, `bias`). The first call takes them with a 4-D additive mask of zeros for real
text and -inf for padding: text sees all text, it is not causal. Then decode as usual from the cache. END is token
{end}, PAD {pad}; suppress PAD (its row in the head is made up). {note}
"""


def llama_config(config: LLaMAHFConfig) -> Any:
    """The `transformers.LlamaConfig` of the same network."""
    from transformers import LlamaConfig

    if config.rope_dtype != "float32":
        raise ValueError(
            f"rope_dtype={config.rope_dtype!r} rounds the rotary table, which LlamaForCausalLM does not; "
            "export with rope_dtype='float32' if the weights accept it (hftrainer doctor MODEL --rope-check)"
        )
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_head,
        max_position_embeddings=config.block_size,
        rms_norm_eps=1e-5,
        hidden_act="silu",
        attention_bias=False,
        mlp_bias=False,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=config.end_id,
        pad_token_id=config.pad_id,
    )


def llama_tensors(model: LLaMAHF) -> dict[str, Tensor]:
    """Weights under the names of `LlamaForCausalLM`."""
    heads, head_size = model.config.n_head, model.config.head_size
    tensors = {
        "model.embed_tokens.weight": model.transformer.wte.weight,
        "model.norm.weight": model.transformer.ln_f.scale,
        "lm_head.weight": torch.cat(
            [
                model.lm_head.weight[: model.config.vocab_size - 1],
                torch.zeros_like(model.lm_head.weight[:1]),
            ]
        ),
    }
    for i, block in enumerate(model.transformer.blocks()):
        q, k, v = block.attn.c_attn.weight.chunk(3)
        prefix = f"model.layers.{i}."
        tensors |= {
            f"{prefix}self_attn.q_proj.weight": _halves(q, heads, head_size),
            f"{prefix}self_attn.k_proj.weight": _halves(k, heads, head_size),
            f"{prefix}self_attn.v_proj.weight": v,
            f"{prefix}self_attn.o_proj.weight": block.attn.c_proj.weight,
            f"{prefix}mlp.gate_proj.weight": block.mlp.c_fc1.weight,
            f"{prefix}mlp.up_proj.weight": block.mlp.c_fc2.weight,
            f"{prefix}mlp.down_proj.weight": block.mlp.c_proj.weight,
            f"{prefix}input_layernorm.weight": block.rms_1.scale,
            f"{prefix}post_attention_layernorm.weight": block.rms_2.scale,
        }
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def to_llama(model: LLaMAHF) -> Any:
    """A `LlamaForCausalLM` in memory."""
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        other = LlamaForCausalLM(llama_config(model.config))
    other.load_state_dict(llama_tensors(model), assign=True)
    device = model.lm_head.weight.device
    other.model.rotary_emb = type(other.model.rotary_emb)(other.config).to(device)  # its table is no parameter
    return other.eval().requires_grad_(False)


def export_llama(model: LLaMAHF, folder: str | os.PathLike[str]) -> None:
    """Write config.json, model.safetensors, text_projection.safetensors and a README, atomically."""
    config = llama_config(model.config)
    config.architectures = ["LlamaForCausalLM"]
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", config.to_diff_dict())
        write_json(
            temporary / "generation_config.json",
            {
                "eos_token_id": model.config.end_id,
                "pad_token_id": model.config.pad_id,
                "suppress_tokens": [model.config.pad_id],
                "max_new_tokens": 150,
            },
        )
        _save(temporary / "model.safetensors", llama_tensors(model))
        projection = {"weight": model.llama_proj.weight.detach(), "bias": model.llama_proj.bias.detach()}
        _save(temporary / "text_projection.safetensors", projection)
        note = f"Rows hold at most {model.config.block_size} positions, text and motion together."
        text = _README.format(end=model.config.end_id, pad=model.config.pad_id, note=note)
        write_text(temporary / "README.md", text)


def prefill_mask(text_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive mask (b, 1, n, n) of the first call for `text_mask` (b, n), True on real text."""
    n = text_mask.shape[1]
    mask = torch.zeros(len(text_mask), 1, n, n, dtype=dtype, device=text_mask.device)
    return mask.masked_fill(~text_mask.bool()[:, None, None, :], torch.finfo(dtype).min)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_safetensors(path, kinds, tensors.__getitem__)


def _halves(weight: Tensor, heads: int, head_size: int) -> Tensor:
    """Even channels of each head first, then odd ones."""
    return weight.view(heads, head_size // 2, 2, -1).transpose(1, 2).reshape(weight.shape)
