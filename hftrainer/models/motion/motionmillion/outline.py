"""A Go to Zero model on the meta device, for ``hftrainer train --dry-run``."""

from __future__ import annotations

import dataclasses
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.models.motion.motionmillion import artifact, files
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig, check_encoder_width, check_same_sizes
from hftrainer.models.motion.motionmillion.network.fsq import LEVELS_OF_NB_CODE
from hftrainer.registry import TEXT_ENCODERS, Part


def outline_parts(config: MotionMillionConfig) -> tuple[artifact.Parts, list[str]]:
    """The parts without their weights, and notes on what is not known."""
    init, config = config.init, dataclasses.replace(config)
    notes: list[str] = []
    identity = None
    if init.tokenizer is not None:
        found = _config_of(init.tokenizer, "tokenizer", notes)
        if found is not None:
            config.tokenizer, config.representation = found.tokenizer, found.representation
            identity = artifact.tokenizer_hash(Path(init.tokenizer))
        elif config.ar is not None:
            config.tokenizer = _tokenizer_of(config.ar.config.vocab_size - 2, config.tokenizer)
    if init.ar is not None:
        found = _config_of(init.ar, "transformer", notes)
        if found is not None:
            check_same_sizes(config.ar, found.ar, init.ar)
            config.ar = found.ar
        elif config.ar is None:
            notes.append("model.ar says no sizes, so the transformer is not counted")
    encoder = _outline_text(config, init.text_encoder, init.text_features, notes)
    config.check()
    check_encoder_width(config.ar, encoder.width if encoder is not None else None)
    tokenizer = config.tokenizer.build()
    ar = config.ar.build() if config.ar is not None else None
    artifact.check_vocabulary(tokenizer, ar)
    width = config.motion_width
    mean, std = np.zeros(width, np.float32), np.ones(width, np.float32)
    return artifact.Parts(config, tokenizer, ar, encoder, mean, std, identity), notes


def _outline_text(config: MotionMillionConfig, source: str | None, features: str | None, notes: list[str]) -> Any:
    if features is not None:
        if Path(features).is_file():
            return artifact.stored_features(features, config.text_encoder)[0]
        notes.append(f"the stored text features {features} are not here")
        return None
    if source is None and config.text_encoder is None:
        return None
    named = config.text_encoder or TEXT_ENCODERS.part({"name": "t5"})
    settings = dataclasses.replace(named.config, source=source) if source is not None else named.config
    encoder_class: Any = TEXT_ENCODERS.get(named.name)
    if not hasattr(encoder_class, "outline"):
        return Part(TEXT_ENCODERS, named.name, settings).build()
    width = getattr(config.ar.config, "clip_dim", None) if config.ar is not None else None
    encoder, more = encoder_class.outline(settings, width=width)
    notes += more
    return encoder


def _config_of(folder: str, part: str, notes: list[str]) -> MotionMillionConfig | None:
    if not (Path(folder) / files.CONFIG).is_file():
        notes.append(f"the {part} to start from, {folder}, is not here: counted as configured, or as released")
        return None
    return artifact.read_folder_config(Path(folder))


def _tokenizer_of(codes: int, written: Part) -> Part:
    """The tokenizer that a transformer's vocabulary is for, as far as that tells."""
    if written.name != "human_vqvae" or written.config.codebook_size == codes:
        return written
    for nb_code, levels in LEVELS_OF_NB_CODE.items():
        if prod(levels) == codes:
            return Part(written.registry, written.name, dataclasses.replace(written.config, nb_code=nb_code))
    return written
