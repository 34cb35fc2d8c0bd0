"""Other engines on the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hftrainer.bench.measure import Way
from hftrainer.models.motion.motionmillion.hf_llama import prefill_mask, to_llama
from hftrainer.models.motion.motionmillion.network import LLaMAHF


def transformers_way(model: LLaMAHF, features: Tensor, codes: int) -> Way:
    """transformers' `generate` on the exported weights, all rows in one batch."""
    other = to_llama(model)
    name = f"transformers generate, batch {len(features)}"
    return Way(name, lambda: generate_with_transformers(other, model, features, codes), len(features) * codes)


@torch.inference_mode()
def generate_with_transformers(other: Any, model: LLaMAHF, features: Tensor, codes: int) -> Tensor:
    """Exactly `codes` codes (b, codes) for texts of equal length, END not allowed."""
    from transformers import DynamicCache

    rows, n = features.shape[:2]
    cache, config = DynamicCache(), model.config
    everything = torch.ones(rows, n, dtype=torch.bool, device=features.device)
    embedded = model.llama_proj(features)
    out = other(
        inputs_embeds=embedded, attention_mask=prefill_mask(everything, embedded.dtype), past_key_values=cache,
        use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    first = out.logits[:, -1, : config.end_id].argmax(dim=-1)
    ids = torch.cat([torch.full((rows, n), config.pad_id, device=first.device), first[:, None]], dim=1)
    made = other.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, max_new_tokens=codes - 1,
        do_sample=False, suppress_tokens=[config.end_id, config.pad_id], eos_token_id=None, pad_token_id=config.pad_id,
    )  # fmt: skip
    return made[:, n:]  # type: ignore[no-any-return]
