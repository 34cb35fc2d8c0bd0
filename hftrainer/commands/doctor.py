"""``hftrainer doctor [MODEL]``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """examples:
  hftrainer doctor gotozero-nano
  hftrainer doctor gotozero-7b-train --rope-check dataset/MotionMillion/tokens --clips 500
  hftrainer doctor gotozero-7b-train --quant-check int8 --prompts prompts.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("model", nargs="?", help="check this model's files against their hashes, load it, describe it")
    add("--no-verify", action="store_true", help="do not hash the files")
    add("--rope-check", type=Path, metavar="TOKENS", help="a dataset with tokens, or its tokens/")
    add("--split", default="val", help="for the rope check (default val)")
    add("--clips", type=int, default=200, help="for the rope check (default 200)")
    add("--quant-check", choices=["int8", "int4"], help="compare quantized matrices with the stored ones")
    add("--prompts", type=Path, help="for the quant check, one per line (default: 8 built-in ones)")
    add("--codes", type=int, default=40, help="of each prompt in the quant check (default 40)")
    add("--text-features", type=Path, help="precomputed features, for a model without its text encoder")
    add("--dtype", help="of the transformer, e.g. bfloat16; default: as stored")
    add("--device", default="cpu")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is there; 1 if the model does not load or is damaged."""
    from hftrainer.apps.doctor import PROMPTS, Examination, examine, machine
    from hftrainer.commands.common import read_prompts

    for line in machine():
        print(line)
    if not args.model:
        for check in ("rope_check", "quant_check"):
            if getattr(args, check):
                raise ValueError(f"--{check.replace('_', '-')} needs a model")
        return 0
    job = Examination(
        args.model, verify=not args.no_verify, device=args.device, dtype=args.dtype, text_features=args.text_features,
        rope_check=args.rope_check, split=args.split, clips=args.clips, quant_check=args.quant_check,
        prompts=read_prompts([], args.prompts) if args.prompts else PROMPTS, codes=args.codes,
    )  # fmt: skip
    for line in examine(job):
        print(line)
    return 0
