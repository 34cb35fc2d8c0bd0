"""Text to features: a frozen T5 encoder, as in Go to Zero (Flan-T5-XL) or any other size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hftrainer.extras import quiet
from hftrainer.models.checkpoint import assign, find_weights, open_checkpoint, tensor_hash, write_module
from hftrainer.models.text_encoder_base import (
    BaseTextEncoder,
    EncoderConfig,
    TextFeatures,
    cannot_load,
    check_list,
    check_type,
    found,
    pad_rows,
    read_raw_sizes,
    read_tokenizer,
    weights_of,
)
from hftrainer.models.text_sizes import t5_sizes
from hftrainer.registry import MODELS, TEXT_ENCODERS

__all__ = ["TextEncoder", "TextEncoderConfig", "TextFeatures", "encoder_hash", "encoder_names", "load_t5"]


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
    def read_sizes(cls, config: TextEncoderConfig, **hub: Any) -> Any:
        """A ``T5Config``."""
        return load_t5_config(config.source, **hub)

    @classmethod
    def published_sizes(cls, source: str) -> Any:
        """Those of the Flan-T5 family."""
        return t5_sizes(source)

    @classmethod
    def width_of(cls, config: TextEncoderConfig, sizes: Any) -> int:
        """T5's model width."""
        return int(sizes.d_model)

    @classmethod
    def new_model(cls, config: TextEncoderConfig, sizes: Any) -> nn.Module:
        """An encoder without a decoder."""
        with quiet():
            from transformers import T5EncoderModel

        model: nn.Module = T5EncoderModel(sizes)
        return model

    @classmethod
    def read_model(cls, config: TextEncoderConfig, **hub: Any) -> Any:
        """The encoder with its weights mapped from their file."""
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
        rows = self.tokenizer(check_list(captions), padding=False, truncation=False, verbose=False)["input_ids"]
        kept = [row[: self.max_tokens] for row in rows]  # the caller is told of a cut by the counts
        return pad_rows(kept, [len(row) for row in rows], int(self.tokenizer.pad_token_id))

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """Features of a batch of captions; text past `max_tokens` tokens is cut off."""
        self.load()
        batch = self.tokenize(captions)
        ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return TextFeatures(hidden * mask[..., None], mask, batch["tokens"])

    def save_artifact(self, folder: Path, *, dtype: torch.dtype | None = None) -> str:
        """Write the encoder into a model's folder, its weights in `dtype` where given; the hash of what was written."""
        self.save_pretrained(folder)
        if dtype is not None:
            # transformers lists the embedding once; its second name is tied again on loading
            write_module(self.model, folder, "model", dtype=dtype, drop=["encoder.embed_tokens.weight"])
        return encoder_hash(open_checkpoint(find_weights(folder, "model")))


# --- T5 from files ----------------------------------------------------------------------------------------------------


def load_t5(source: str | os.PathLike[str], *, dtype: str = "float32", **hub: Any) -> tuple[Any, Any]:
    """A T5 encoder in evaluation mode and its tokenizer, from a folder or the hub."""
    return load_t5_model(source, dtype=dtype, **hub), read_tokenizer(source, **hub)


def load_t5_config(source: str | os.PathLike[str], **hub: Any) -> Any:
    """The sizes of a T5 encoder."""
    with quiet():
        from transformers import T5Config

    check_type(str(source), read_raw_sizes(source, **hub), "t5")
    return T5Config.from_pretrained(found(source, **hub), **hub)


def load_t5_model(source: str | os.PathLike[str], *, dtype: str = "float32", **hub: Any) -> Any:
    """A T5 encoder in evaluation mode, its weights mapped from their file: of a complete T5 the decoder is not read.

    The encoder class is named explicitly: transformers' AutoModel would build a decoder with random weights beside it.
    """
    with quiet():
        from transformers import T5EncoderModel

    folder = found(source, **hub)
    try:
        weights = weights_of(Path(folder))
        if weights is not None:
            model = _mapped_t5(Path(folder), weights, getattr(torch, dtype))
        else:  # only in the cache of transformers, or in torch files in pieces
            model = T5EncoderModel.from_pretrained(folder, dtype=getattr(torch, dtype), **hub)
    except OSError as error:
        raise cannot_load(source, error) from error
    return model.eval().requires_grad_(False)


def encoder_names(names: Sequence[str]) -> dict[str, str]:
    """Of the tensors of a T5 file, those of the encoder, each under the name that transformers gives it now."""
    table = {name: name for name in names if name.startswith("encoder.")}
    embedding = next((n for n in ("shared.weight", "encoder.embed_tokens.weight") if n in names), None)
    if embedding is not None:
        table |= {"shared.weight": embedding, "encoder.embed_tokens.weight": embedding}
    return table


def encoder_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the encoder's tensors in a T5 file, by name, as float32 (to which bfloat16 goes without loss)."""
    names = encoder_names(list(state))
    names.pop("encoder.embed_tokens.weight", None)
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name} {tensor_hash(state[names[name]].float())}".encode())
    return digest.hexdigest()


def _mapped_t5(folder: Path, weights: Path, dtype: torch.dtype) -> Any:
    with quiet():
        from transformers import T5EncoderModel

    with torch.device("meta"):
        model = T5EncoderModel(load_t5_config(folder))
    state = open_checkpoint(weights)
    assign(model, state.renamed(encoder_names(list(state))), source=str(weights), dtype=dtype)
    model.set_input_embeddings(model.shared)  # one table under two names
    left = [name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if tensor.is_meta]
    assert not left, f"T5EncoderModel makes {left} without a file"
    return model
