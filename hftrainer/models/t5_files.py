"""A T5 encoder's folder, as transformers lays it out: config.json, weights of which a decoder is left out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hftrainer.extras import quiet
from hftrainer.files import write_json
from hftrainer.models.checkpoint import assign, open_checkpoint, skeleton, tensor_hash, write_module
from hftrainer.models.network.t5 import T5Encoder, T5Sizes
from hftrainer.models.text_encoder_base import cannot_load, check_type, found, read_raw_sizes, weights_of
from hftrainer.readers import FileError

_ALIASES = {"hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers",
            "head_dim": "d_kv"}  # fmt: skip
# other models than the encoder that is computed here; where a field is absent or empty, nothing is asked for
_REFUSED = {"is_decoder": "a decoder", "quantization_config": "quantized weights", "pruned_heads": "pruned heads"}


def read_t5_sizes(source: str | os.PathLike[str], **hub: Any) -> T5Sizes:
    """The sizes in the config.json of a folder or hub name.

    Fields of the encoder's arithmetic are honoured or refused (``ValueError``); those of a decoder, of generation, and
    notes are passed over.
    """
    raw = read_raw_sizes(source, **hub)
    check_type(str(source), raw, "t5")
    for name, what in _REFUSED.items():
        if raw.get(name):
            raise FileError(f"{str(source)!r}: its config.json asks for {what} ({name}), which is not computed here")
    given = {_ALIASES.get(key, key): value for key, value in raw.items()}
    try:
        sizes = T5Sizes(**{field.name: given[field.name] for field in fields(T5Sizes) if field.name in given})
    except ValueError as error:
        raise ValueError(f"the config.json of {str(source)!r}: {error}") from error
    for name, said in (("dense_act_fn", sizes.activation), ("is_gated_act", sizes.gated)):
        if raw.get(name, said) != said:
            raise ValueError(
                f"the config.json of {str(source)!r}: {name} is {raw[name]!r}, but feed_forward_proj is "
                f"{sizes.feed_forward_proj!r}; keep the one that the weights were trained with"
            )
    return sizes


def load_t5_model(source: str | os.PathLike[str], *, dtype: str = "float32", **hub: Any) -> T5Encoder:
    """A frozen T5 encoder in evaluation mode, its weights mapped from their file; of a complete T5 the decoder is not
    read. Only torch files in pieces are put together by transformers."""
    sizes = read_t5_sizes(source, **hub)
    folder = found(source, **hub)
    kind: torch.dtype = getattr(torch, dtype)
    try:
        weights = weights_of(Path(folder))
        if weights is not None:
            held = open_checkpoint(weights)
            state: Mapping[str, Tensor] = held.renamed(encoder_names(list(held)))
        else:
            state = _from_pieces(folder, kind, **hub)
    except OSError as error:
        raise cannot_load(source, error) from error
    with skeleton():
        model = T5Encoder(sizes)
    assign(model, state, source=str(weights or folder), dtype=kind)
    return model.eval().requires_grad_(False)


def new_t5_model(**sizes: Any) -> T5Encoder:
    """An encoder with fresh weights; `sizes` are the fields of `T5Sizes`."""
    model = T5Encoder(T5Sizes(**sizes))
    model.reset_parameters()
    return model


def write_t5_model(model: T5Encoder, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
    """Write config.json and weights, in `dtype` where given, which transformers' ``T5EncoderModel`` reads."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_module(model, folder, "model", dtype=dtype)
    stored = str(dtype or model.shared.weight.dtype).removeprefix("torch.")
    about = {"architectures": ["T5EncoderModel"], "model_type": "t5", "dtype": stored, "is_encoder_decoder": False,
             "use_cache": False, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}  # fmt: skip
    write_json(folder / "config.json", {**about, **asdict(model.config)})


def encoder_names(names: Sequence[str]) -> dict[str, str]:
    """Of the tensors of a T5 file, those of the encoder, each once and under the name that it has here."""
    table = {name: name for name in names if name.startswith("encoder.") and name != "encoder.embed_tokens.weight"}
    embedding = next((n for n in ("shared.weight", "encoder.embed_tokens.weight") if n in names), None)
    return table if embedding is None else {"shared.weight": embedding, **table}


def encoder_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the encoder's tensors in a T5 file, by name, as float32 (to which bfloat16 goes without loss)."""
    names = encoder_names(list(state))
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name} {tensor_hash(state[names[name]].float())}".encode())
    return digest.hexdigest()


def _from_pieces(folder: str, dtype: torch.dtype, **hub: Any) -> Mapping[str, Tensor]:
    with quiet():
        from transformers import T5EncoderModel

    state = T5EncoderModel.from_pretrained(folder, dtype=dtype, **hub).state_dict()
    return {new: state[old] for new, old in encoder_names(list(state)).items()}
