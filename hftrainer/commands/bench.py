"""``hftrainer bench WHAT``: a line of `KINDS`, flags here, and `main` of ``hftrainer.bench.WHAT``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

EPILOG = """examples:
  hftrainer bench sample --size 44M --batch 1,32 --rounds 5 --json docs/results/bench_44M.json
  hftrainer bench sample --size gotozero-nano --codes 75
  hftrainer bench sample --size 111M --ragged 256 --no-uncached
  hftrainer bench evalset --size 44M --prompts 512
  hftrainer bench train --size 111M --batch 16

Every way runs once a round, in turn; tables have the median of the rounds. Limits of the machine (bandwidth, matrix
product) are measured in the same process; --json writes everything."""


def sample_flags(add: Callable[..., object]) -> None:
    """Batches, codes, engines."""
    add("--size", default="44M", help="a preset with random weights, or a model (default 44M)")
    add("--batch", default="1,32", help="batch sizes of ours (default 1,32)")
    add("--codes", type=int, default=150, help="codes a prompt (default 150)")
    add("--ragged", type=int, default=0, metavar="N", help="N prompts of unequal length, too")
    add("--engine", choices=["transformers"], help="measure this engine beside ours")
    add("--no-uncached", action="store_true", help="leave out the slowest way")
    _usual(add, rounds=5)


def evalset_flags(add: Callable[..., object]) -> None:
    """How many prompts of what length."""
    add("--size", default="44M", help="a preset with random weights, or a model (default 44M)")
    add("--prompts", type=int, default=512)
    add("--codes", type=int, default=100, help="on average (default 100)")
    add("--batch", type=int, default=32, help="rows (default 32)")
    _usual(add)


def train_flags(add: Callable[..., object]) -> None:
    """Size and rows."""
    add("--size", default="111M", help="a preset with random weights, or a model (default 111M)")
    add("--batch", type=int, default=16, help="rows (default 16)")
    _usual(add)


KINDS: dict[str, tuple[str, Callable[[Callable[..., object]], None]]] = {
    "sample": ("codes a second against an un-cached and a batch-1 cached sampler", sample_flags),
    "evalset": ("many prompts of unequal length: rows refilled, or batches that wait", evalset_flags),
    "train": ("an optimizer step of the transformer, ours and the released way", train_flags),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    kinds = parser.add_subparsers(dest="what", metavar="what", required=True)
    for name, (summary, flags) in KINDS.items():
        sub = kinds.add_parser(name, help=summary, description=summary)
        flags(sub.add_argument)
        sub.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    return int(import_module(f"hftrainer.bench.{args.what}").main(args))


def _usual(add: Callable[..., object], rounds: int = 3) -> None:
    add("--rounds", type=int, default=rounds, help=f"each way runs once a round (default {rounds})")
    add("--dtype", default="float32", choices=["float32", "bfloat16"])
    add("--device", default="cpu")
    add("--json", help="write the figures here")
