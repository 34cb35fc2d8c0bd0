"""Flags of ``hftrainer convert checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hftrainer.commands.common import add_dtype


def add_checkpoint_arguments(add: Any) -> None:
    """The model card's flags, and ours."""
    pretrained = Path("checkpoints/motionmillion/pretrained_models")
    statistics = Path("checkpoints/motionmillion/mean_std/vector_272")
    add("--ar", type=Path, default=pretrained / "motionmillion_7B.pth", help="transformer, any form")
    add("--fsq", type=Path, default=pretrained / "fsq.zip", help="tokenizer, any form")
    add("--mean", type=Path, default=statistics / "mean.npy")
    add("--std", type=Path, default=statistics / "std.npy")
    add("--out_dir", type=Path, required=True, help="folder of the artifact; must not exist yet")
    add("--repo_id", help="the hub name for the example in the model card")
    add("--text_model_source", help="folder (or hub name) of the T5 encoder to include in the artifact")
    add("--ar_config_name", default="auto", help="auto: from the tensors; or the size they must have")
    add_dtype(add, "of the transformer; default: unchanged")
    add("--no_text_encoder", action="store_true", help="make an artifact without a text encoder")
    splits = ["auto", "train", "all", "unknown"]
    add("--trained_on", choices=splits, default="auto", help="training splits; auto: from the file's name")
    add("--verify", action="store_true", help="compare every tensor, then logits, codes and motion")
