"""A T5 encoder on the meta device, from its files or its published sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from hftrainer.extras import quiet
from hftrainer.models.outline import AbsentText

# Sizes of the published encoders (their config.json): width, hidden, layers, heads.
_FLAN_T5 = {
    "google/flan-t5-small": (512, 1024, 8, 6),
    "google/flan-t5-base": (768, 2048, 12, 12),
    "google/flan-t5-large": (1024, 2816, 24, 16),
    "google/flan-t5-xl": (2048, 5120, 24, 32),
    "google/flan-t5-xxl": (4096, 10240, 24, 64),
}


def outline_t5(encoder: type, config: Any, width: int | None) -> tuple[Any, list[str]]:
    """An encoder of the class `encoder`, and notes; one of unknown size has no parameters, and the given `width`."""
    from hftrainer.models.text_encoder import load_t5_config

    with quiet():
        from transformers import T5Config, T5EncoderModel

    notes = []
    try:
        sizes = load_t5_config(config.source, local_files_only=True)
    except ValueError:
        sizes = None
        if config.source in _FLAN_T5:
            d_model, d_ff, layers, heads = _FLAN_T5[config.source]
            sizes = T5Config(
                vocab_size=32128, d_model=d_model, d_kv=64, d_ff=d_ff, num_layers=layers, num_heads=heads,
                feed_forward_proj="gated-gelu",
            )  # fmt: skip
            notes.append(f"the text encoder {config.source} is not here: its published sizes are used")
    if sizes is None:
        notes.append(f"the text encoder {config.source} is not here and its size is not known: it is not counted")
        model: Any = nn.Module()
        model.config = SimpleNamespace(d_model=width or 0)
    else:
        with torch.device("meta"):
            model = T5EncoderModel(sizes).to(getattr(torch, config.dtype))
    return encoder(config, model=model.eval(), tokenizer=AbsentText()).to("meta"), notes
