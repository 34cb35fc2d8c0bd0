"""The files of a Go to Zero model: one folder that explains itself.

    mm_config.json       sizes of every part
    model_index.json     which class loads it, as diffusers has it
    fsq.safetensors      tokenizer              ar.safetensors    transformer (or shards with an index)
    mean.npy, std.npy    (272,) float32         text_encoder/     T5 encoder and tokenizer, as transformers has it
    manifest.json        bytes and SHA-256 of every file

Reads what the published hftrainer ("hftrainer-motionmillion-v1") and Motius ("motius-motionmillion-v1") wrote, too:
theirs names the size of the transformer by a preset, ours spells it out beside the name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hftrainer.config import plain, typed
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
    write_module,
)
from hftrainer.models.motion.motionmillion.config import (
    HumanVQVAEConfig,
    MotionMillionConfig,
    check_encoder_width,
    check_same_sizes,
)
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from hftrainer.models.text_encoder import TextEncoder, TextEncoderConfig, encoder_hash
from hftrainer.models.text_features import StoredTextFeatures
from hftrainer.motion.statistics import load_statistics

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle

CONFIG = "mm_config.json"
FORMAT = "hftrainer-motionmillion-v2"
FORMATS = (FORMAT, "hftrainer-motionmillion-v1", "motius-motionmillion-v1")


@dataclass
class Parts:
    """A loaded or fresh model, before it becomes a bundle."""

    config: MotionMillionConfig
    vqvae: HumanVQVAE
    ar: LLaMAHF | None
    text_encoder: TextEncoder | StoredTextFeatures | None
    mean: np.ndarray
    std: np.ndarray
    tokenizer_sha256: str | None = None  # None: a tokenizer that no file holds


def build(config: MotionMillionConfig) -> Parts:
    """New networks, but for parts that ``config.init`` takes from artifacts."""
    mean, std = np.zeros(272, np.float32), np.ones(272, np.float32)
    identity = None
    init, config = config.init, dataclasses.replace(config)
    if init.tokenizer is not None:
        source = read(Path(init.tokenizer), text_encoder=None, load_ar=False)
        vqvae, mean, std, identity = source.vqvae, source.mean, source.std, source.tokenizer_sha256
        config.vqvae = source.config.vqvae
    else:
        vqvae = HumanVQVAE(**plain(config.vqvae))
    encoder: TextEncoder | StoredTextFeatures | None = None
    if init.text_encoder is not None:
        config.text_encoder = config.text_encoder or TextEncoderConfig()
        config.text_encoder.source = init.text_encoder
    if init.text_features is not None:
        encoder = StoredTextFeatures(init.text_features)
        encoder.check_encoder(None, None, (config.text_encoder or TextEncoderConfig()).max_tokens)
    elif config.text_encoder is not None:
        encoder = TextEncoder(config.text_encoder)
    ar = None
    if init.ar is not None:
        source = read(Path(init.ar), text_encoder=None)
        check_same_sizes(config.ar, source.config.ar, init.ar)
        ar, config.ar = source.ar, source.config.ar
    config.check()
    if ar is None and config.ar is not None:
        ar = LLaMAHF(config.ar)
    check_encoder_width(config.ar, encoder.width if encoder is not None else None)
    return Parts(config, vqvae, ar, encoder, mean, std, identity)


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
    raw = _read_json(folder / CONFIG)
    config = read_config(raw, folder)
    with torch.device("meta"):
        vqvae = HumanVQVAE(**plain(config.vqvae))
        ar = LLaMAHF(config.ar) if load_ar and config.ar is not None else None
    path = find_weights(folder, "fsq")
    assign(vqvae, open_checkpoint(path, keys=("net",)), source=str(path), dtype=torch.float32)
    restore_buffers(vqvae)
    if ar is not None:
        path = find_weights(folder, "ar")
        state = open_checkpoint(path, keys=("trans",))
        if ar.config.tie_weights and "lm_head.weight" not in state:
            state = state.renamed({**{name: name for name in state}, "lm_head.weight": "transformer.wte.weight"})
        assign(ar, state, source=str(path), dtype=dtype)
        if ar.config.tie_weights:
            ar.lm_head.weight = ar.transformer.wte.weight
    mean, std = load_statistics(folder / "mean.npy", folder / "std.npy")
    encoder: TextEncoder | StoredTextFeatures | None
    if text_features is not None:
        encoder = _read_text_features(text_features, raw, config)
    else:
        encoder = _read_text_encoder(folder, raw, config, text_encoder, on_demand=text_on_demand, **hub)
    return Parts(config, vqvae, ar, encoder, mean, std, tokenizer_hash(folder))


def check_names(stem: str, state: Checkpoint, config: MotionMillionConfig) -> None:
    """Raise `CheckpointError` unless a file's tensors are, name for name and shape for shape, those of the part."""
    with torch.device("meta"):
        part = HumanVQVAE(**plain(config.vqvae)) if stem == "fsq" else LLaMAHF(config.ar or LLaMAHFConfig())
    check_fit(part, state, source=str(state.path))


def tokenizer_hash(folder: Path) -> str:
    """Identity of a tokenizer: SHA-256 over its weight file and the statistics that it is used with."""
    digest = hashlib.sha256()
    for path in (find_weights(folder, "fsq"), folder / "mean.npy", folder / "std.npy"):
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def read_folder_config(folder: Path) -> MotionMillionConfig:
    """What an artifact folder holds, from its mm_config.json alone."""
    return read_config(_read_json(folder / CONFIG), folder)


def read_config(raw: dict[str, Any], folder: Path) -> MotionMillionConfig:
    """mm_config.json of any of the known formats."""
    form = raw.get("artifact_format")
    if form not in FORMATS or not isinstance(raw.get("config"), dict):
        raise CheckpointError(f"{folder / CONFIG}: artifact_format is {form!r}, expected one of {', '.join(FORMATS)}")
    vqvae = {key: value for key, value in raw["config"].get("vqvae", {}).items() if key != "quantizer"}
    config = MotionMillionConfig(vqvae=typed(HumanVQVAEConfig, vqvae, path=f"{folder / CONFIG}: config.vqvae"))
    if raw["config"].get("ar") is not None:
        ar = dict(raw["config"]["ar"])
        preset = ar.pop("config_name", None)
        if "n_layer" not in ar:
            if preset not in PRESETS:
                raise CheckpointError(f"{folder / CONFIG}: config.ar.config_name is {preset!r}, expected a preset")
            ar = {**PRESETS[preset], "vocab_size": config.vqvae.codebook_size + 2, **ar}
        config.ar = typed(LLaMAHFConfig, ar, path=f"{folder / CONFIG}: config.ar")
    text = raw.get("text_encoder") or {}
    source = text.get("source") or raw.get("text_model_name") or ("google/flan-t5-xl" if form != FORMAT else None)
    if source is not None:
        config.text_encoder = TextEncoderConfig(source=str(source), max_tokens=int(text.get("max_tokens", 150)))
    config.training_splits = str(raw.get("training_splits", "unknown"))
    config.check()
    return config


def write(bundle: MotionMillionBundle, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write `bundle` to `folder` by way of a temporary folder beside it."""
    with atomic_folder(folder) as staging:
        _write_into(bundle, staging, dtype)


def _write_into(bundle: MotionMillionBundle, folder: Path, dtype: torch.dtype | None) -> None:
    config = bundle.config
    write_module(bundle.vqvae, folder, "fsq", dtype=dtype)
    if bundle.ar is not None:
        tied = ["lm_head.weight"] if bundle.ar.config.tie_weights else []
        write_module(bundle.ar, folder, "ar", dtype=dtype, drop=tied)
    encoder = bundle.text_encoder if isinstance(bundle.text_encoder, TextEncoder) else None
    text_sha256 = None
    if encoder is not None:
        encoder.save_pretrained(folder / "text_encoder")
        if dtype is not None:
            # transformers lists the embedding once; its second name is tied again on loading
            write_module(
                encoder.model, folder / "text_encoder", "model", dtype=dtype, drop=["encoder.embed_tokens.weight"]
            )
        text_sha256 = encoder_hash(open_checkpoint(find_weights(folder / "text_encoder", "model")))
    elif isinstance(bundle.text_encoder, StoredTextFeatures):
        text_sha256 = bundle.text_encoder.encoder_sha256
    for name, values in (("mean.npy", bundle.mean), ("std.npy", bundle.std)):
        np.save(folder / name, values.cpu().numpy())
    has_text = encoder is not None
    write_json(folder / CONFIG, describe(config, has_text=has_text, text_sha256=text_sha256))
    write_json(folder / "model_index.json", index(has_ar=bundle.ar is not None, has_text=has_text))
    write_manifest(folder)


def describe(config: MotionMillionConfig, *, has_text: bool, text_sha256: str | None = None) -> dict[str, Any]:
    """The content of mm_config.json."""
    ar = None
    if config.ar is not None:
        sizes = {key: getattr(config.ar, key) for key in ("n_layer", "n_head", "n_embd")}
        name = next((name for name, preset in PRESETS.items() if preset == sizes), None)
        ar = {"config_name": name, **plain(config.ar)}
    text = config.text_encoder
    # an encoder that lay in the artifact is named by nothing once it is left out
    named = text.source if text is not None and text.source != "text_encoder" else None
    return {
        "model_type": "motionmillion",
        "artifact_format": FORMAT,
        "text_model_name": named if not has_text else None,
        "text_encoder": {
            "stored_in_artifact": has_text,
            "path": "text_encoder" if has_text else None,
            "source": "text_encoder" if has_text else named,
            "max_tokens": text.max_tokens if text is not None else 150,
            "sha256": text_sha256,
        },
        "training_splits": config.training_splits,
        "leaderboard_eligible": config.training_splits == "train",
        "config": {"vqvae": {**plain(config.vqvae), "quantizer": "FSQ"}, "ar": ar},
    }


def index(*, has_ar: bool, has_text: bool) -> dict[str, Any]:
    """The content of model_index.json."""
    return {
        "_class_name": "MotionMillionPipeline",
        "_diffusers_version": "hftrainer",
        "pipeline": {
            "library": "hftrainer",
            "class_name": "MotionMillionPipeline",
            "module": "hftrainer.pipelines.motionmillion",
        },
        "bundle": {
            "library": "hftrainer",
            "class_name": "MotionMillionBundle",
            "module": "hftrainer.models.motion.motionmillion",
        },
        "weights": {
            "fsq": "fsq.safetensors",
            "ar": "ar.safetensors" if has_ar else None,
            "text_encoder": "text_encoder" if has_text else None,
        },
    }


def _read_text_encoder(
    folder: Path, raw: dict[str, Any], config: MotionMillionConfig, wanted: str | None, **options: Any
) -> TextEncoder | None:
    if wanted is None or (wanted == "artifact" and config.text_encoder is None):
        return None
    about = raw.get("text_encoder") or {}
    named = config.text_encoder or TextEncoderConfig()
    source = named.source if wanted == "artifact" else wanted
    stored = folder / str(about.get("path") or "text_encoder")
    if wanted == "artifact" and stored.is_dir():
        source = str(stored)
    elif wanted == "artifact" and about.get("stored_in_artifact"):
        raise CheckpointError(
            f"{folder} should hold its text encoder in {stored.name}/, which is not there (was the model loaded "
            "without it before?); name one (text_encoder=...), give stored features (text_features=...), or None"
        )
    encoder = TextEncoder(TextEncoderConfig(source=source, max_tokens=named.max_tokens), **options)
    _check_width(f"the text encoder {source!r}", encoder.width, config)
    return encoder


def _read_text_features(
    path: str | os.PathLike[str], raw: dict[str, Any], config: MotionMillionConfig
) -> StoredTextFeatures:
    stored, about = StoredTextFeatures(path), raw.get("text_encoder") or {}
    sha256 = about.get("sha256")
    stored.check_encoder(
        str(sha256) if sha256 else None,
        config.ar.clip_dim if config.ar is not None else None,
        int(about.get("max_tokens", 150)),
    )
    return stored


def _check_width(what: str, width: int, config: MotionMillionConfig) -> None:
    if config.ar is not None and config.ar.clip_dim != width:
        raise CheckpointError(f"{what} makes features {width} wide; this model reads {config.ar.clip_dim}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def restore_buffers(vqvae: HumanVQVAE) -> None:
    """Buffers that no file holds have to be made again after building on the meta device."""
    fsq = vqvae.vqvae.quantizer
    fresh = type(fsq)(fsq.levels)
    fsq._levels, fsq._basis = fresh._levels, fresh._basis
