"""Text to features: a frozen T5 encoder, as in Go to Zero (Flan-T5-XL) or any other size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hftrainer.registry import MODELS


class TextFeatures(NamedTuple):
    """`features` (b, n, c), zero where `mask` (b, n) is False; real words come first. `tokens` (b,) before any cut."""

    features: Tensor
    mask: Tensor
    tokens: Tensor


@dataclass
class TextEncoderConfig:
    """`source`: a folder with a T5 encoder and its tokenizer, or a hub name. `max_tokens`: what the model is shown."""

    source: str = "google/flan-t5-xl"
    max_tokens: int = 150
    dtype: str = "float32"


@MODELS.register("text_encoder")
class TextEncoder(torch.nn.Module):
    """A T5 encoder with its tokenizer. The end-of-text token is kept as a position, as in the release."""

    Config = TextEncoderConfig

    def __init__(self, config: TextEncoderConfig, *, model: Any = None, tokenizer: Any = None, **hub: Any):
        super().__init__()
        self.config = config
        if model is None:
            model, tokenizer = load_t5(config.source, dtype=config.dtype, **hub)
        self.model: Any = model
        self.tokenizer: Any = tokenizer

    @property
    def width(self) -> int:
        """Channels of a feature."""
        return int(self.model.config.d_model)

    @property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return torch.device(self.model.device)

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask, padded to the longest, with the untruncated count of each row under "tokens"."""
        if isinstance(captions, str):
            raise TypeError("captions must be a list of strings, got one string")
        rows = self.tokenizer(list(captions), padding=False, truncation=False, add_special_tokens=True)["input_ids"]
        counts = torch.tensor([len(row) for row in rows])
        width = max(1, min(int(counts.max()), self.config.max_tokens))
        ids = torch.full((len(rows), width), int(self.tokenizer.pad_token_id))
        for i, row in enumerate(rows):
            kept = row[:width]
            ids[i, : len(kept)] = torch.tensor(kept)
        mask = torch.arange(width)[None] < counts[:, None]
        return {"input_ids": ids, "attention_mask": mask, "tokens": counts}

    def count(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption, its end included, before anything is cut off."""
        counts: list[int] = self.tokenize(captions)["tokens"].tolist()
        return counts

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """Features of a batch of captions; text past `max_tokens` tokens is cut off."""
        batch = self.tokenize(captions)
        ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return TextFeatures(hidden * mask[..., None], mask, batch["tokens"])

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write encoder and tokenizer in the layout of transformers, safetensors only."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)


def load_t5(source: str | os.PathLike[str], *, dtype: str = "float32", **hub: Any) -> tuple[Any, Any]:
    """A T5 encoder in eval mode and its tokenizer, from a folder or the hub.

    The encoder class is named explicitly: transformers' AutoModel would build a decoder with random weights beside it.
    """
    from transformers import AutoTokenizer, T5EncoderModel

    if not Path(source).is_dir() and (str(source).startswith((".", "/")) or str(source).count("/") != 1):
        raise ValueError(f"there is no text encoder folder {str(source)!r}, and it is not a hub name (owner/model)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        model = T5EncoderModel.from_pretrained(source, dtype=getattr(torch, dtype), **hub)
    except OSError as error:
        raise ValueError(
            f"the text encoder {str(source)!r} cannot be loaded: {str(error).splitlines()[0]} "
            "Download it first (huggingface-cli download), or give the folder where it is."
        ) from error
    return model.eval().requires_grad_(False), tokenizer
