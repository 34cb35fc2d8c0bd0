"""``hftrainer bench WHAT``: flags in `hftrainer.bench.flags`, and `main` of ``hftrainer.bench.WHAT``."""

from __future__ import annotations

import argparse
from importlib import import_module

from hftrainer.bench.flags import KINDS
from hftrainer.files import check_file

EPILOG = """examples:
  hftrainer bench sample --size 44M --batch 1,32 --rounds 5 --json docs/results/bench_44M.json
  hftrainer bench sample --size gotozero-nano --codes 75
  hftrainer bench sample --size 111M --ragged 256 --no-uncached
  hftrainer bench evalset --size 44M --prompts 512
  hftrainer bench train --size 111M --batch 16
  hftrainer bench equality --size 44M --rows 256 --codes 150
  hftrainer bench load runs/random_7b --tokens 40 --bar-anonymous 1 --bar-seconds 4
  hftrainer bench convert --size 1B --compare
  hftrainer bench serve --requests 1000 --soak 10000
  hftrainer bench gpu --minutes 9 --out out/gpu
  hftrainer bench tokenizer
  hftrainer bench data --rows 2000000
  hftrainer bench metrics --clips 4042 --json docs/results/bench_metrics.json

Every way runs once a round, in turn; tables have the median of the rounds. Limits of the machine (bandwidth, matrix
product) are measured in the same process; --json writes everything."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    kinds = parser.add_subparsers(dest="what", metavar="what", required=True)
    for name, (summary, flags) in KINDS.items():
        sub = kinds.add_parser(name, help=summary, description=summary)
        flags(sub.add_argument)
        sub.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; what cannot be written is said before."""
    for target in (getattr(args, "json", None), getattr(args, "measure", None)):
        if target is not None:
            check_file(target)
    return int(import_module(f"hftrainer.bench.{args.what}").main(args))
