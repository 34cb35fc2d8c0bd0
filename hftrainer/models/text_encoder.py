"""Text to features: a frozen T5 encoder, as in Go to Zero (Flan-T5-XL) or any other size."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hftrainer.extras import quiet
from hftrainer.hub import ON_HUB, FolderMeant, ModelNotFound, find_model
from hftrainer.models.checkpoint import (
    CheckpointError,
    assign,
    find_weights,
    open_checkpoint,
    tensor_hash,
    write_module,
)
from hftrainer.models.text_outline import outline_t5
from hftrainer.registry import MODELS, TEXT_ENCODERS


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

    def __post_init__(self) -> None:
        if self.dtype not in ("float64", "float32", "bfloat16"):
            raise ValueError(f"a T5 encoder runs in float32 or bfloat16 (float16 overflows), got dtype {self.dtype!r}")


@MODELS.register("text_encoder")
@TEXT_ENCODERS.register("t5")
class TextEncoder(torch.nn.Module):
    """A T5 encoder with its tokenizer. The end-of-text token is kept as a position, as in the release.

    With `on_demand`, or after `free`, its weights are not in memory until a batch is encoded.
    """

    Config = TextEncoderConfig
    place: Tensor

    def __init__(
        self,
        config: TextEncoderConfig,
        *,
        model: Any = None,
        tokenizer: Any = None,
        on_demand: bool = False,
        **hub: Any,
    ):
        super().__init__()
        self.config, self._hub = config, hub
        self._has_source = model is None
        if tokenizer is None:
            tokenizer = load_t5_tokenizer(config.source, **hub)
        self.tokenizer: Any = tokenizer
        self.model: Any = model
        self.register_buffer("place", torch.zeros(0, dtype=torch.int8), persistent=False)  # moves with the module
        self.width = int((model.config if model is not None else load_t5_config(config.source, **hub)).d_model)
        if model is None and not on_demand:
            self.load()

    @classmethod
    def outline(cls, config: TextEncoderConfig, *, width: int | None = None) -> tuple[TextEncoder | None, list[str]]:
        """The encoder on the meta device; `width`: of its features, where that is known from elsewhere.

        None where its size is not known and no `width` is given; see `hftrainer.interfaces.Outlinable`.
        """
        encoder, notes = outline_t5(cls, config, width)
        known = width is not None or any(True for _ in encoder.parameters())
        return (encoder if known else None), notes

    @property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return self.place.device if self.model is None else torch.device(self.model.device)

    @property
    def max_tokens(self) -> int:
        """Tokens that the transformer is shown."""
        return self.config.max_tokens

    @property
    def name(self) -> str:
        """The encoder's hub name, or the last part of its folder's path."""
        return Path(self.config.source).name if Path(self.config.source).is_dir() else self.config.source

    def sha256(self) -> str:
        """Identity of the weights; the same for any file layout. Reads them whole."""
        weights = _weights_of(Path(_found(self.config.source, **self._hub))) if self._has_source else None
        return encoder_hash(open_checkpoint(weights) if weights is not None else self._state())

    def _state(self) -> Mapping[str, Tensor]:
        self.load()
        state: Mapping[str, Tensor] = self.model.state_dict()
        return state

    def load(self) -> None:
        """Bring the weights into memory, if they are not there: mapped from their file, and moved to `device`."""
        if self.model is None:
            self.model = load_t5_model(self.config.source, dtype=self.config.dtype, **self._hub).to(self.place.device)

    def free(self) -> None:
        """Let go of the weights until the next batch. Only for an encoder from a folder or the hub, as it was there."""
        if not self._has_source:
            raise ValueError("this text encoder was made in memory, so its weights could not be loaded again")
        on_gpu = self.device.type == "cuda"
        self.place, self.model = self.place.to(self.device), None
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption, the end-of-text token included, before any cut."""
        counts: list[int] = self.tokenize(captions)["tokens"].tolist()
        return counts

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask, padded to the longest, with the untruncated count of each row under "tokens"."""
        if isinstance(captions, str):
            raise TypeError("captions must be a list of strings, got one string")
        encoded = self.tokenizer(list(captions), padding=False, truncation=False, verbose=False)  # we say so ourselves
        rows = encoded["input_ids"]
        counts = torch.tensor([len(row) for row in rows])
        width = max(1, min(int(counts.max()), self.config.max_tokens))
        ids = torch.full((len(rows), width), int(self.tokenizer.pad_token_id))
        for i, row in enumerate(rows):
            kept = row[:width]
            ids[i, : len(kept)] = torch.tensor(kept)
        mask = torch.arange(width)[None] < counts[:, None]
        return {"input_ids": ids, "attention_mask": mask, "tokens": counts}

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

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write encoder and tokenizer in the layout of transformers, safetensors only."""
        self.load()
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)


# --- T5 from files ----------------------------------------------------------------------------------------------------


def load_t5(source: str | os.PathLike[str], *, dtype: str = "float32", **hub: Any) -> tuple[Any, Any]:
    """A T5 encoder in eval mode and its tokenizer, from a folder or the hub."""
    return load_t5_model(source, dtype=dtype, **hub), load_t5_tokenizer(source, **hub)


def load_t5_tokenizer(source: str | os.PathLike[str], **hub: Any) -> Any:
    """The tokenizer of a T5 encoder."""
    with quiet():
        from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(_found(source, **hub), **hub)
    except OSError as error:
        raise _cannot_load(source, error) from error


def load_t5_config(source: str | os.PathLike[str], **hub: Any) -> Any:
    """The sizes of a T5 encoder."""
    with quiet():
        from transformers import T5Config

    try:
        return T5Config.from_pretrained(_found(source, **hub), **hub)
    except OSError as error:
        raise _cannot_load(source, error) from error


def load_t5_model(source: str | os.PathLike[str], *, dtype: str = "float32", **hub: Any) -> Any:
    """A T5 encoder in eval mode, its weights mapped from their file: of a whole T5 the decoder is not read.

    The encoder class is named explicitly: transformers' AutoModel would build a decoder with random weights beside it.
    """
    with quiet():
        from transformers import T5EncoderModel

    folder = _found(source, **hub)
    try:
        weights = _weights_of(Path(folder))
        if weights is not None:
            model = _mapped_t5(Path(folder), weights, getattr(torch, dtype))
        else:  # only in the cache of transformers, or in torch files in pieces
            model = T5EncoderModel.from_pretrained(folder, dtype=getattr(torch, dtype), **hub)
    except OSError as error:
        raise _cannot_load(source, error) from error
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
        from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        model = T5EncoderModel(T5Config.from_pretrained(folder))
    state = open_checkpoint(weights)
    assign(model, state.renamed(encoder_names(list(state))), source=str(weights), dtype=dtype)
    model.set_input_embeddings(model.shared)  # one table under two names
    left = [name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if tensor.is_meta]
    assert not left, f"T5EncoderModel makes {left} without a file"
    return model


def _weights_of(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    try:
        return find_weights(folder, "model")
    except CheckpointError:
        whole = folder / "pytorch_model.bin"
        return whole if whole.is_file() else None


def _found(source: str | os.PathLike[str], **hub: Any) -> str:
    """The folder of a text encoder; its name where only transformers can find it in its cache."""
    if not Path(source).is_dir() and (str(source).startswith((".", "/")) or str(source).count("/") != 1):
        raise ValueError(f"there is no text encoder folder {str(source)!r}, and it is not a hub name (owner/model)")
    try:
        return str(find_model(source, without=("*.bin", "*.pt"), **hub))
    except FolderMeant:
        raise
    except ModelNotFound:
        return str(source).removeprefix(ON_HUB)


def _cannot_load(source: str | os.PathLike[str], error: OSError) -> ValueError:
    return ValueError(
        f"the text encoder {str(source)!r} cannot be loaded: {str(error).splitlines()[0]} Download it first "
        "(hf download), give the folder where it is (text_encoder=...), or use stored features (text_features=...)."
    )
