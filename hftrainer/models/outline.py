"""Models as they would be, on the meta device: every tensor has its shape and type, and takes no memory.

What a configuration takes from files is outlined from their sizes where the files are, else from what is written; what
is not known is said in notes, never guessed.
"""

from __future__ import annotations

import dataclasses
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from hftrainer.config import plain
from hftrainer.extras import quiet
from hftrainer.models.motion.motionmillion import artifact
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.config import (
    HumanVQVAEConfig,
    MotionMillionConfig,
    check_encoder_width,
    check_same_sizes,
)
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF
from hftrainer.models.motion.motionmillion.network.fsq import LEVELS_OF_NB_CODE
from hftrainer.models.motion.motionstreamer import MotionStreamer272Config, MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer import artifact as motionstreamer
from hftrainer.models.text_encoder import TextEncoder, TextEncoderConfig, load_t5_config
from hftrainer.models.text_features import StoredTextFeatures
from hftrainer.registry import MODELS

# Sizes of the published encoders (their config.json): width, hidden, layers, heads.
_FLAN_T5 = {
    "google/flan-t5-small": (512, 1024, 8, 6),
    "google/flan-t5-base": (768, 2048, 12, 12),
    "google/flan-t5-large": (1024, 2816, 24, 16),
    "google/flan-t5-xl": (2048, 5120, 24, 32),
    "google/flan-t5-xxl": (4096, 10240, 24, 64),
}
_DISTILBERT = {"vocab_size": 30522, "width": 768, "layers": 6, "heads": 12, "hidden": 3072, "max_tokens": 512}


def outline(section: dict[str, Any], *, path: str = "model") -> tuple[nn.Module | None, list[str]]:
    """The model of a configuration's section on the meta device, and notes; None where its sizes are not known."""
    _, config = MODELS.resolve(section, path=path)
    notes: list[str] = []
    with torch.device("meta"):
        if isinstance(config, MotionMillionConfig):
            return _motionmillion(config, notes), notes
        if isinstance(config, TextEncoderConfig):
            encoder = outline_text_encoder(config, notes)
            return encoder if any(True for _ in encoder.parameters()) else None, notes
        if isinstance(config, MotionStreamer272Config):
            return _motionstreamer(config, notes), notes
        return MODELS.build(section, path=path), notes


def _motionmillion(config: MotionMillionConfig, notes: list[str]) -> MotionMillionBundle:
    init, config = config.init, dataclasses.replace(config)
    identity = None
    if init.tokenizer is not None:
        found = _config_of(init.tokenizer, "tokenizer", notes)
        if found is not None:
            config.vqvae, identity = found.vqvae, artifact.tokenizer_hash(Path(init.tokenizer))
        elif config.ar is not None:
            config.vqvae = _vqvae_of(config.ar.vocab_size - 2, config.vqvae)
    if init.ar is not None:
        found = _config_of(init.ar, "transformer", notes)
        if found is not None:
            check_same_sizes(config.ar, found.ar, init.ar)
            config.ar = found.ar
        elif config.ar is None:
            notes.append("model.ar says no sizes, so the transformer is not counted")
    encoder: Any = None
    if init.text_features is not None:
        encoder = _features(init.text_features, notes)
    elif init.text_encoder is not None or config.text_encoder is not None:
        named = config.text_encoder or TextEncoderConfig()
        named = dataclasses.replace(named, source=init.text_encoder or named.source)
        encoder = outline_text_encoder(named, notes, width=config.ar.clip_dim if config.ar is not None else 0)
    config.check()
    check_encoder_width(config.ar, encoder.width if encoder is not None else None)
    vqvae = HumanVQVAE(**plain(config.vqvae))
    ar = LLaMAHF(config.ar) if config.ar is not None else None
    mean, std = np.zeros(272, np.float32), np.ones(272, np.float32)
    parts = artifact.Parts(config, vqvae, ar, encoder, mean, std, identity)
    return MotionMillionBundle(parts=parts, device="meta")


def _config_of(folder: str, part: str, notes: list[str]) -> MotionMillionConfig | None:
    path = Path(folder) / artifact.CONFIG
    if not path.is_file():
        notes.append(f"the {part} to start from, {folder}, is not here: counted as configured, or as released")
        return None
    return artifact.read_folder_config(Path(folder))


def _vqvae_of(codes: int, written: HumanVQVAEConfig) -> HumanVQVAEConfig:
    """The tokenizer that a transformer's vocabulary is for, as far as that tells."""
    for nb_code, levels in LEVELS_OF_NB_CODE.items():
        if written.codebook_size != codes and prod(levels) == codes:
            return dataclasses.replace(written, nb_code=nb_code, levels=None)
    return written


def _features(path: str, notes: list[str]) -> StoredTextFeatures | None:
    if Path(path).is_file():
        return StoredTextFeatures(path)
    notes.append(f"the stored text features {path} are not here")
    return None


def outline_text_encoder(config: TextEncoderConfig, notes: list[str], *, width: int = 0) -> TextEncoder:
    """A T5 encoder on the meta device; one of unknown size has no parameters, and a note."""
    with quiet():
        from transformers import T5Config, T5EncoderModel

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
        model.config = SimpleNamespace(d_model=width)
    else:
        with torch.device("meta"):
            model = T5EncoderModel(sizes).to(getattr(torch, config.dtype))
    return TextEncoder(config, model=model.eval(), tokenizer=_Absent()).to("meta")


def _motionstreamer(config: MotionStreamer272Config, notes: list[str]) -> MotionStreamer272Evaluator:
    source = config.text.source
    if source is None or Path(source).is_dir():
        bundle = MotionStreamer272Evaluator(motionstreamer.build(config), device="meta")
    else:
        text = dataclasses.replace(config.text, source=None, **_DISTILBERT)
        parts = motionstreamer.build(dataclasses.replace(config, text=text))
        bundle = MotionStreamer272Evaluator(parts, device="meta")
        bundle.config = config
        notes.append(f"the text model {source} is not read: the published sizes of DistilBERT are used")
    bundle.tokenizer = bundle.tokenizer or _Absent()
    return bundle


class _Absent:
    """Stands where a text tokenizer would; an outline reads no text."""
