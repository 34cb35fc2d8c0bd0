"""Flags of what generates for an evaluation, and what they mean."""

from __future__ import annotations

import argparse
from typing import Any

from hftrainer.commands.common import add_device, add_dtype, add_sampling, device_of, sampling_changes

_RELEASED = ("fsq", "ar", "text_model", "mean", "std")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What generates, and how."""
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="zoo name, artifact folder, or owner/repository")
    model.add_argument("--fsq", help="released tokenizer file, instead of --model")
    model.add_argument("--ar", help="released transformer file, with --fsq")
    model.add_argument("--text-model", help="T5 folder or name, with --fsq")
    model.add_argument("--mean", help="statistics of the released files, with --fsq")
    model.add_argument("--std", help="see --mean")
    model.add_argument("--steps", type=int, default=150, help="maximum number of codes (default 150: 300 frames)")
    add_dtype(model, "of the transformer; default: as stored")
    add_device(model)
    model.add_argument("--batch-size", type=int, help="batch size (default: chosen by speed and memory)")
    model.add_argument(
        "--free-text-encoder", action="store_true", help="unload the text encoder before decoding, to save memory"
    )
    model.add_argument("--compile", action="store_true", help="on CUDA: compile decoding steps, for long runs")
    model.add_argument("--seed", type=int, default=0, help="sampling seed; incremented for repeated captions")
    add_sampling(model)


def source_of(args: argparse.Namespace) -> Any:
    """The model, or the released files; None if neither was given."""
    from hftrainer.apps.generate_set import Source

    released = {name: getattr(args, name) for name in _RELEASED if getattr(args, name) is not None}
    return Source(args.model, released) if args.model or released else None


def settings_of(args: argparse.Namespace) -> Any:
    """How motions are made."""
    from hftrainer.apps.generate_set import Settings

    return Settings(
        sampling_changes(args),
        args.steps,
        args.dtype,
        device_of(args),
        args.batch_size,
        args.free_text_encoder,
        args.seed,
        args.compile,
    )
