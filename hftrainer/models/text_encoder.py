"""Text to features: a frozen T5 encoder, as in Go to Zero (Flan-T5-XL) or any other size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hftrainer.models.checkpoint import find_weights, open_checkpoint
from hftrainer.models.network.t5 import T5Encoder, T5Sizes
from hftrainer.models.t5_files import encoder_hash, load_t5_model, read_t5_sizes, write_t5_model
from hftrainer.models.t5_tokenizer import T5Tokenizer, read_t5_tokenizer
from hftrainer.models.text_encoder_base import (
    BaseTextEncoder,
    EncoderConfig,
    TextFeatures,
    check_list,
    found,
    pad_rows,
    weights_of,
)
from hftrainer.models.text_sizes import t5_sizes
from hftrainer.registry import MODELS, TEXT_ENCODERS
from hftrainer.timing import timed

__all__ = ["TextEncoder", "TextEncoderConfig", "TextFeatures", "load_t5"]


@dataclass
class TextEncoderConfig(EncoderConfig):
    """`source`: a folder with a T5 encoder and its tokenizer, or a hub name. `max_tokens`: what the model is shown."""

    source: str = "google/flan-t5-xl"
    max_tokens: int = 150


@MODELS.register("text_encoder")
@TEXT_ENCODERS.register("t5")
class TextEncoder(BaseTextEncoder):
    """A T5 encoder with its tokenizer. The end-of-text token is kept as a position, as in the release."""

    Config = TextEncoderConfig

    @classmethod
    def read_sizes(cls, config: TextEncoderConfig, **hub: Any) -> T5Sizes:
        """The sizes in the folder's config.json."""
        return read_t5_sizes(config.source, **hub)

    @classmethod
    def published_sizes(cls, source: str) -> T5Sizes | None:
        """Those of the Flan-T5 family."""
        return t5_sizes(source)

    @classmethod
    def width_of(cls, config: TextEncoderConfig, sizes: T5Sizes) -> int:
        """T5's model width."""
        return sizes.d_model

    @classmethod
    def new_model(cls, config: TextEncoderConfig, sizes: T5Sizes) -> nn.Module:
        """An encoder without a decoder."""
        return T5Encoder(sizes)

    @classmethod
    def read_tokenizer(cls, config: TextEncoderConfig, **hub: Any) -> T5Tokenizer:
        """The tokenizer in `config.source`."""
        with timed("text tokenizer"):
            return read_t5_tokenizer(config.source, **hub)

    @classmethod
    def read_model(cls, config: TextEncoderConfig, **hub: Any) -> T5Encoder:
        """The encoder with its weights mapped from their file."""
        with timed("text encoder"):
            return load_t5_model(config.source, dtype=config.dtype, **hub)

    def sha256(self) -> str:
        """Identity of the weights; the same for any file layout. Reads them all."""
        weights = weights_of(Path(found(self.config.source, **self._hub))) if self._has_source else None
        return encoder_hash(open_checkpoint(weights) if weights is not None else self._state())

    def _state(self) -> Mapping[str, Tensor]:
        self.load()
        state: Mapping[str, Tensor] = self.model.state_dict()
        return state

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask, padded to the longest, with the untruncated count of each row under "tokens"."""
        rows = self.tokenizer(check_list(captions))
        kept = [row[: self.max_tokens] for row in rows]  # the caller is told of a cut by the counts
        return pad_rows(kept, [len(row) for row in rows], self.tokenizer.pad_token_id)

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """Features of a batch of captions; text past `max_tokens` tokens is cut off."""
        self.load()
        batch = self.tokenize(captions)
        ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        hidden = self.model(ids, mask)
        return TextFeatures(hidden * mask[..., None], mask, batch["tokens"])

    def save_pretrained(self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Write encoder and tokenizer in the layout of transformers, the weights in `dtype` where given."""
        self.load()
        write_t5_model(self.model, folder, dtype=dtype)
        self.tokenizer.save_pretrained(folder)

    def save_artifact(self, folder: Path, *, dtype: torch.dtype | None = None) -> str:
        """Write the encoder into a model's folder, its weights in `dtype` where given; the hash of what was written."""
        self.save_pretrained(folder, dtype=dtype)
        return encoder_hash(open_checkpoint(find_weights(folder, "model")))


def load_t5(source: str | os.PathLike[str], *, dtype: str = "float32", **hub: Any) -> tuple[T5Encoder, T5Tokenizer]:
    """A frozen T5 encoder in evaluation mode and its tokenizer, from a folder or the hub."""
    return load_t5_model(source, dtype=dtype, **hub), read_t5_tokenizer(source, **hub)
