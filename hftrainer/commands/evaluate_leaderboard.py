"""``hftrainer evaluate leaderboard RUN...``: several runs of one protocol in one table."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="--out folder of hftrainer evaluate run")
    parser.add_argument("--out", "-o", type=Path, help="folder for leaderboard.md and leaderboard.json")
    parser.add_argument("--no-published", action="store_true", help="omit the published rows of model cards")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over clips (default 1000)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table; write it."""
    from hftrainer.apps.leaderboard import leaderboard
    from hftrainer.commands.evaluate_common import check_out

    check_out(args)
    board = leaderboard(args.runs, published=not args.no_published, resamples=args.resamples)
    print(board)
    if args.out is not None:
        board.write(args.out)
    return 0
