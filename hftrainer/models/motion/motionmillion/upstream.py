"""The files that the authors of Go to Zero released: a tokenizer and a transformer as torch files, and statistics."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from hftrainer.models.checkpoint import Checkpoint, CheckpointError, assign, open_checkpoint
from hftrainer.models.motion.motionmillion.artifact import Parts, restore_buffers
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.motion.motionmillion.network import LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.motion.statistics import load_statistics
from hftrainer.registry import TEXT_ENCODERS, TRANSFORMERS


def read_upstream(
    fsq_path: str | os.PathLike[str],
    ar_path: str | os.PathLike[str] | None,
    text_model_name: str | None,
    mean_path: str | os.PathLike[str] | None,
    std_path: str | os.PathLike[str] | None,
    dtype: torch.dtype | None,
) -> Parts:
    """The released files: a tokenizer (key "net"), a transformer (key "trans") and statistics.

    The tokenizer is the released configuration; the transformer's size is read off its tensors. Without paths for
    mean and std they are looked for beside the tokenizer's file.
    """
    beside = Path(fsq_path).parent
    config = MotionMillionConfig()
    with torch.device("meta"):
        vqvae = config.tokenizer.build()
    assign(vqvae, open_checkpoint(fsq_path, keys=("net",)), source=str(fsq_path), dtype=torch.float32)
    restore_buffers(vqvae)
    ar = None
    if ar_path is not None:
        state = open_checkpoint(ar_path, keys=("trans",))
        config.ar = TRANSFORMERS.part_of(sizes_of(state))
        with torch.device("meta"):
            ar = config.ar.build()
        assign(ar, state, source=str(ar_path), dtype=dtype)
    config.check()
    encoder = None
    if text_model_name is not None:
        config.text_encoder = TEXT_ENCODERS.part({"name": "t5", "source": str(text_model_name)})
        encoder = config.text_encoder.build()
    mean, std = load_statistics(
        Path(mean_path or beside / "mean.npy"), Path(std_path or beside / "std.npy"), get_representation(DEFAULT)
    )
    return Parts(config, vqvae, ar, encoder, mean, std)


def sizes_of(state: Checkpoint) -> LLaMAHFConfig:
    """The sizes of a transformer, read off its tensors; heads, which no tensor shows, from the preset of that size."""
    needed = ("transformer.wte.weight", "llama_proj.weight")
    missing = [name for name in needed if name not in state]
    if missing:
        raise CheckpointError(f"{state.path} does not hold a Go to Zero transformer: {missing[0]!r} is missing")
    (vocab, width), (_, clip_dim) = (state.shape_of(name) for name in needed)
    layers = sum(name.endswith(".rms_1.scale") for name in state)
    heads = {p["n_head"] for p in PRESETS.values() if (p["n_layer"], p["n_embd"]) == (layers, width)}
    if len(heads) != 1:
        raise CheckpointError(f"{state.path}: no preset has {layers} layers of width {width}, so its heads are unknown")
    tied = "lm_head.weight" not in state or state.shape_of("lm_head.weight")[0] == vocab
    return LLaMAHFConfig(
        vocab_size=vocab, n_layer=layers, n_head=heads.pop(), n_embd=width, clip_dim=clip_dim, tie_weights=tied
    )
