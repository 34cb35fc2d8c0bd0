"""How others sample from this model, written from descriptions of what they do, on the same weights.

`uncached`: the released sampler. Every code costs a full pass over text and all codes so far, with logits at every
position. `concatenating`: the cached sampler of a later release. One prompt at a time; keys and values grow by
concatenation in every layer, every choice takes a softmax and a top-k and is read by the host.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hftrainer.models.motion.motionmillion.network import LLaMAHF
from hftrainer.models.motion.motionmillion.network.rope import apply_rope


@torch.no_grad()
def uncached(model: LLaMAHF, features: Tensor, mask: Tensor, codes: int) -> Tensor:
    """Exactly `codes` codes (1, codes) for one text, END not allowed."""
    config = model.config
    row = torch.full((1, features.shape[1]), config.pad_id, device=features.device)
    for _ in range(codes):
        chosen = _choose(model(row, features, mask)[:, -1].float(), config.end_id)
        row = torch.cat([row, chosen], dim=1)
    return row[:, features.shape[1] :]


@torch.no_grad()
def concatenating(model: LLaMAHF, features: Tensor, mask: Tensor, codes: int) -> Tensor:
    """The same codes from a cache that grows."""
    config, text = model.config, features.shape[1]
    caches: list[Any] = [None] * config.n_layer
    x = model.llama_proj(features)
    out = []
    for position in range(text, text + codes):
        x = _forward(model, x, position - x.shape[1], caches)
        chosen = _choose(model.head(x[:, -1:])[:, -1].float(), config.end_id)
        if int(chosen) == config.end_id:
            break
        out.append(chosen)
        x = model.transformer.wte(chosen)
    return torch.cat(out, dim=1)


def _forward(model: LLaMAHF, x: Tensor, start: int, caches: list[Any]) -> Tensor:
    rotary = model.rotary(x.device)[start : start + x.shape[1]]
    for i, block in enumerate(model.transformer.blocks()):
        fused = block.attn.c_attn(block.rms_1(x))
        q, k, v = rearrange(fused, "b t (three h s) -> three b h t s", three=3, h=block.attn.n_head)
        q, k = apply_rope(q, rotary), apply_rope(k, rotary)
        if caches[i] is not None:
            k, v = torch.cat([caches[i][0], k], dim=2), torch.cat([caches[i][1], v], dim=2)
        caches[i] = (k, v)
        out = F.scaled_dot_product_attention(q, k, v)
        x = x + block.attn.c_proj(rearrange(out, "b h t s -> b t (h s)"))
        x = x + block.mlp(block.rms_2(x))
    return model.transformer.ln_f(x)  # type: ignore[no-any-return]


def _choose(logits: Tensor, end: int) -> Tensor:
    logits[:, end] = -torch.inf
    return torch.topk(logits.softmax(dim=-1), k=1, dim=-1).indices
