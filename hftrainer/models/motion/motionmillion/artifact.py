"""The files of a Go to Zero model: one folder that explains itself.

    mm_config.json       sizes of every part
    model_index.json     which class loads it, as diffusers has it
    fsq.safetensors      tokenizer              ar.safetensors    transformer (or shards with an index)
    mean.npy, std.npy    (width,) float32       text_encoder/     encoder and tokenizer, as transformers has it
    manifest.json        bytes and SHA-256 of every file

Reads what the published hftrainer ("hftrainer-motionmillion-v1") and Motius ("motius-motionmillion-v1") wrote, too:
theirs names the size of the transformer by a preset, ours spells it out beside the name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hftrainer.config import ConfigError
from hftrainer.files import atomic_folder, sha256, write_json
from hftrainer.hub import find_model
from hftrainer.manifest import write_manifest
from hftrainer.models.checkpoint import (
    Checkpoint,
    CheckpointError,
    assign,
    check_fit,
    find_weights,
    open_checkpoint,
    skeleton,
    with_matrices,
    write_int8_module,
    write_module,
)
from hftrainer.models.motion.motionmillion.config import (
    MotionMillionConfig,
    check_encoder_width,
    check_same_sizes,
)
from hftrainer.models.motion.motionmillion.files import CONFIG, UNKNOWN_SOURCE, describe, index, read_config, read_json
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF
from hftrainer.models.shard_building import keep_rows, sharded
from hftrainer.models.text_features import StoredTextFeatures
from hftrainer.motion.body import BODY_FILE, smpl_body, write_body
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.statistics import load_statistics
from hftrainer.readers import inside
from hftrainer.registry import TEXT_ENCODERS, Part
from hftrainer.timing import timed

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle


@dataclass
class Parts:
    """A loaded or fresh model, before it becomes a bundle."""

    config: MotionMillionConfig
    vqvae: HumanVQVAE  # or another of TOKENIZERS
    ar: LLaMAHF | None  # or another of TRANSFORMERS
    text_encoder: Any  # of the registry TEXT_ENCODERS, or StoredTextFeatures
    mean: np.ndarray
    std: np.ndarray
    tokenizer_sha256: str | None = None  # None: a tokenizer that no file holds


def build(config: MotionMillionConfig) -> Parts:
    """New networks, but for parts that ``config.init`` takes from artifacts."""
    width = config.motion_width
    mean, std = np.zeros(width, np.float32), np.ones(width, np.float32)
    identity = None
    init, config = config.init, dataclasses.replace(config)
    if init.tokenizer is not None:
        source = read(Path(init.tokenizer), text_encoder=None, load_ar=False)
        vqvae, mean, std, identity = source.vqvae, source.mean, source.std, source.tokenizer_sha256
        if config.representation not in (None, source.config.motions):
            made = f"the tokenizer in {init.tokenizer} (model.init.tokenizer) makes {source.config.motions}"
            raise ConfigError(f"model.representation={config.representation}, but {made}; write that, or leave it out")
        config.tokenizer, config.representation = source.config.tokenizer, source.config.motions
    else:
        vqvae = config.tokenizer.build()
    encoder: Any = None
    if init.text_encoder is not None:
        config.text_encoder = config.text_encoder or TEXT_ENCODERS.part({"name": "t5"})
        config.text_encoder.config.source = init.text_encoder
    if init.text_features is not None:
        encoder, config.text_encoder = stored_features(init.text_features, config.text_encoder)
    elif config.text_encoder is not None:
        encoder = config.text_encoder.build()
    ar = None
    if init.ar is not None:
        source = read(Path(init.ar), text_encoder=None)
        check_same_sizes(config.ar, source.config.ar, init.ar)
        ar, config.ar = source.ar, source.config.ar
        if ar is not None:
            keep_rows(ar)
    config.check()
    if ar is None and config.ar is not None:
        with sharded():
            ar = config.ar.build()
    check_vocabulary(vqvae, ar)
    check_encoder_width(config.ar, encoder.width if encoder is not None else None)
    return Parts(config, vqvae, ar, encoder, mean, std, identity)


def stored_features(path: str, written: Part | None) -> tuple[StoredTextFeatures, Part]:
    """The features of a file, and the encoder that made them, which must be as `written` where that is given."""
    stored = StoredTextFeatures(path)
    if written is None:
        return stored, stored.part()
    stored.check_kind(written)
    stored.check_encoder(None, None, written.config.max_tokens)
    return stored, written


def fetch(
    name_or_path: str | os.PathLike[str],
    *,
    text_encoder: str | None = "artifact",
    text_features: str | os.PathLike[str] | None = None,
    load_ar: bool = True,
    **hub: Any,
) -> Path:
    """The folder of an artifact; from the hub, parts that are not wanted are not downloaded."""
    without = [] if text_encoder == "artifact" and text_features is None else ["text_encoder/*"]
    return find_model(name_or_path, without=[*without, *([] if load_ar else ["ar.*", "ar-*"])], **hub)


def read(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    text_encoder: str | None = "artifact",
    text_features: str | os.PathLike[str] | None = None,
    text_on_demand: bool = False,
    load_ar: bool = True,
    **hub: Any,
) -> Parts:
    """Load an artifact folder; `dtype` is for the transformer, the tokenizer always computes in float32.

    `hub` options are for a text encoder that is on the hub.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is not a Go to Zero model: it has no {CONFIG}")
    raw = read_json(folder / CONFIG)
    config = read_config(raw, folder)
    with timed("motion tokenizer"):
        vqvae = _read_tokenizer(folder, config)
    ar = None
    if load_ar and config.ar is not None:
        with timed("transformer"):
            ar = _read_transformer(folder, config, dtype)
        check_vocabulary(vqvae, ar)
    mean, std = load_statistics(folder / "mean.npy", folder / "std.npy", get_representation(config.motions))
    encoder: Any
    if text_features is not None:
        encoder = _read_text_features(text_features, raw, config)
    else:
        encoder = _read_text_encoder(folder, raw, config, text_encoder, on_demand=text_on_demand, **hub)
    return Parts(config, vqvae, ar, encoder, mean, std, tokenizer_hash(folder))


def _read_tokenizer(folder: Path, config: MotionMillionConfig) -> Any:
    with skeleton():
        vqvae = config.tokenizer.build()
    path = find_weights(folder, "fsq")
    assign(vqvae, open_checkpoint(path, keys=("net",)), source=str(path), dtype=torch.float32)
    restore_buffers(vqvae)
    return vqvae


def _read_transformer(folder: Path, config: MotionMillionConfig, dtype: torch.dtype | None) -> Any:
    with skeleton():
        ar = config.ar.build()
    path = find_weights(folder, "ar")
    opened = open_checkpoint(path, keys=("trans",))
    tied = getattr(ar.config, "tie_weights", False)
    state = with_matrices(opened)
    if tied and "lm_head.weight" not in state:
        state = _with_tied_head(state)
    assign(ar, state, source=str(path), dtype=dtype)
    restore_buffers(ar)
    if tied:
        ar.lm_head.weight = ar.transformer.wte.weight
    return ar


def _with_tied_head(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The embedding under the head's name, too."""
    if isinstance(state, Checkpoint):
        return state.renamed({**{name: name for name in state}, "lm_head.weight": "transformer.wte.weight"})
    return {**state, "lm_head.weight": state["transformer.wte.weight"]}


def check_names(stem: str, state: Checkpoint, config: MotionMillionConfig) -> None:
    """Raise `CheckpointError` unless a file's tensors are, name for name and shape for shape, those of the part."""
    with torch.device("meta"):
        part = config.tokenizer.build() if stem == "fsq" else config.ar.build()
    check_fit(part, state, source=str(state.path))


def tokenizer_hash(folder: Path) -> str:
    """Identity of a tokenizer: SHA-256 over its weight file and the statistics that it is used with."""
    digest = hashlib.sha256()
    for path in (find_weights(folder, "fsq"), folder / "mean.npy", folder / "std.npy"):
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def read_folder_config(folder: Path) -> MotionMillionConfig:
    """The contents of an artifact folder, read only from its mm_config.json."""
    return read_config(read_json(folder / CONFIG), folder)


def write(
    bundle: MotionMillionBundle, folder: Path, *, dtype: torch.dtype | None = None, int8_matrices: bool = False
) -> None:
    """Write `bundle` to `folder` by way of a temporary folder beside it. `int8_matrices`: see `write_int8_module`."""
    with atomic_folder(folder) as staging:
        _write_into(bundle, staging, dtype, int8_matrices)


def _write_into(bundle: MotionMillionBundle, folder: Path, dtype: torch.dtype | None, int8_matrices: bool) -> None:
    config = bundle.config
    names = ["mean.npy", "std.npy", CONFIG, "model_index.json", *write_module(bundle.vqvae, folder, "fsq", dtype=dtype)]
    if bundle.ar is not None:
        tied = ["lm_head.weight"] if getattr(bundle.ar.config, "tie_weights", False) else []
        if int8_matrices:
            write_int8_module(bundle.ar, folder / "ar.safetensors", dtype=dtype, drop=tied)
        else:
            names += write_module(bundle.ar, folder, "ar", dtype=dtype, drop=tied)
    encoder, text_sha256 = bundle.text_encoder, None
    has_text = encoder is not None and not isinstance(encoder, StoredTextFeatures)
    if has_text:
        text_sha256 = encoder.save_artifact(folder / "text_encoder", dtype=dtype)
    elif encoder is not None:
        text_sha256 = encoder.encoder_sha256
    for name, values in (("mean.npy", bundle.mean), ("std.npy", bundle.std)):
        np.save(folder / name, values.cpu().numpy())
    if not np.array_equal(bundle.body.offsets, smpl_body().offsets):
        write_body(folder / BODY_FILE, bundle.body)
    write_json(folder / CONFIG, describe(config, has_text=has_text, text_sha256=text_sha256))
    write_json(
        folder / "model_index.json",
        index(has_ar=bundle.ar is not None, has_text=has_text, representation=config.motions),
    )
    write_manifest(folder, names)


def _read_text_encoder(
    folder: Path, raw: dict[str, Any], config: MotionMillionConfig, wanted: str | None, **options: Any
) -> Any:
    if wanted is None or (wanted == "artifact" and config.text_encoder is None):
        return None
    about = raw.get("text_encoder") or {}
    named = config.text_encoder or TEXT_ENCODERS.part({"name": "t5"})
    source = named.config.source if wanted == "artifact" else wanted
    place = about.get("path") or "text_encoder"
    stored = inside(folder, place, what=f"{folder / CONFIG}: text_encoder, path", error=CheckpointError)
    if wanted == "artifact" and stored.is_dir():
        source = str(stored)
    elif wanted == "artifact" and about.get("stored_in_artifact"):
        raise CheckpointError(
            f"{folder} should hold its text encoder in {stored.name}/, which is not there (was the model loaded "
            "without it before?); name one (text_encoder=...), give stored features (text_features=...), or None"
        )
    elif source == UNKNOWN_SOURCE:
        return None
    placed = Part(TEXT_ENCODERS, named.name, dataclasses.replace(named.config, source=source))
    encoder = placed.build(**options)
    _check_width(f"the text encoder {source!r}", encoder.width, config)
    return encoder


def _read_text_features(
    path: str | os.PathLike[str], raw: dict[str, Any], config: MotionMillionConfig
) -> StoredTextFeatures:
    stored, about = StoredTextFeatures(path), raw.get("text_encoder") or {}
    sha256 = about.get("sha256")
    if config.text_encoder is not None:
        stored.check_kind(config.text_encoder)
    stored.check_encoder(
        str(sha256) if sha256 else None,
        getattr(config.ar.config, "clip_dim", None) if config.ar is not None else None,
        int(about.get("max_tokens", 150)),
    )
    return stored


def _check_width(what: str, width: int, config: MotionMillionConfig) -> None:
    reads = getattr(config.ar.config, "clip_dim", width) if config.ar is not None else width
    if reads != width:
        raise CheckpointError(f"{what} makes features {width} wide; this model reads {reads}")


def check_vocabulary(tokenizer: Any, ar: Any) -> None:
    """Raise ``ValueError`` unless the transformer's vocabulary is the codes of the tokenizer, END and PAD."""
    if ar is not None and ar.config.vocab_size != tokenizer.codebook_size + 2:
        raise ValueError(
            f"ar.vocab_size={ar.config.vocab_size} must be the tokenizer's {tokenizer.codebook_size} codes + 2 "
            "(END and PAD)"
        )


def restore_buffers(part: torch.nn.Module) -> None:
    """Make the buffers that no file holds, after `part` was built on the meta device."""
    for module in part.modules():
        restore = getattr(module, "restore_buffers", None)
        if restore is not None:
            restore()
    left = [name for name, tensor in (*part.named_parameters(), *part.named_buffers()) if tensor.is_meta]
    if left:
        raise CheckpointError(
            f"{type(part).__name__} has {len(left)} tensors that no file holds and restore_buffers() did not make, "
            f"e.g. {left[0]}"
        )
