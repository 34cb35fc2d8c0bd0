"""How ``generate`` loads its model: the flags, and what `load_pipeline` is given. Nothing heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hftrainer.commands.common import add_device, add_dtype, device_of


def add_loading(parser: Any) -> None:
    """--device, --dtype, --text-features, --text-encoder, --free-text-encoder, --quantize, --compile, -v."""
    add_device(parser)
    add_dtype(parser, "of the transformer, e.g. bf16; default: as stored")
    parser.add_argument("--text-features", type=Path, help="precomputed features of the prompts, instead of an encoder")
    parser.add_argument("--text-encoder", help="a folder or owner/repository, instead of the model's own")
    parser.add_argument("--free-text-encoder", action="store_true", help="save memory: unload it before decoding")
    parser.add_argument("--quantize", choices=["int8", "int4"], help="quantize the transformer while loading")
    parser.add_argument("--compile", action="store_true", help="on CUDA: compile decoding steps, for long runs")
    parser.add_argument("-v", "--verbose", action="store_true", help="print how many seconds each part takes to load")


def load_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of `load_pipeline`; with -v, what loading takes is printed from now on."""
    if args.verbose:
        from hftrainer.timing import show_loading

        show_loading()
    return {
        "device": device_of(args),
        "dtype": args.dtype,
        "quantize": args.quantize,
        "text_features": args.text_features,
        "free_text_encoder": args.free_text_encoder,
        **{name: value for name, value in vars(args).items() if value and name in ("text_encoder", "compile")},
    }
