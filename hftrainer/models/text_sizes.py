"""Sizes of well-known text encoders (their published config.json), for outlines where the files are not here."""

from __future__ import annotations

from typing import Any

from hftrainer.extras import quiet
from hftrainer.models.network.t5 import T5Sizes

# width, hidden, layers, heads
_FLAN_T5 = {
    "google/flan-t5-small": (512, 1024, 8, 6),
    "google/flan-t5-base": (768, 2048, 12, 12),
    "google/flan-t5-large": (1024, 2816, 24, 16),
    "google/flan-t5-xl": (2048, 5120, 24, 32),
    "google/flan-t5-xxl": (4096, 10240, 24, 64),
}
# width, hidden, layers, heads; the projection is as wide
_CLIP = {
    "openai/clip-vit-base-patch32": (512, 2048, 12, 8),
    "openai/clip-vit-base-patch16": (512, 2048, 12, 8),
    "openai/clip-vit-large-patch14": (768, 3072, 12, 12),
    "openai/clip-vit-large-patch14-336": (768, 3072, 12, 12),
}
# width, layers; the hidden layer is four times as wide
_BERT = {
    "sentence-transformers/all-MiniLM-L6-v2": (384, 6),
    "sentence-transformers/all-MiniLM-L12-v2": (384, 12),
}


def t5_sizes(source: str) -> T5Sizes | None:
    """The sizes of the Flan-T5 family; None for others."""
    if source not in _FLAN_T5:
        return None
    width, hidden, layers, heads = _FLAN_T5[source]
    return T5Sizes(d_model=width, d_ff=hidden, num_layers=layers, num_heads=heads, feed_forward_proj="gated-gelu")


def clip_sizes(source: str) -> Any:
    """A ``CLIPTextConfig`` of OpenAI's models; None for others."""
    with quiet():
        from transformers import CLIPTextConfig

    if source not in _CLIP:
        return None
    width, hidden, layers, heads = _CLIP[source]
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        projection_dim=width,
    )  # fmt: skip


def sentence_sizes(source: str) -> Any:
    """The configuration of a well-known sentence-transformers model; None for others."""
    with quiet():
        from transformers import BertConfig, MPNetConfig

    if source == "sentence-transformers/all-mpnet-base-v2":
        return MPNetConfig(vocab_size=30527, max_position_embeddings=514)
    if source not in _BERT:
        return None
    width, layers = _BERT[source]
    return BertConfig(
        vocab_size=30522, hidden_size=width, num_hidden_layers=layers, num_attention_heads=12,
        intermediate_size=4 * width,
    )  # fmt: skip
