"""``hftrainer data stats | verify``."""

from __future__ import annotations

import argparse
from typing import Any

from hftrainer.commands.common import progress
from hftrainer.commands.data_common import open_dataset, with_dataset


def add_verbs(verbs: Any) -> None:
    """Their arguments."""
    sub = with_dataset(verbs, "stats", "write mean_std/ from a split")
    sub.add_argument("--split", default="train")
    sub.add_argument(
        "--per-dimension", action="store_true", help="do not average standard deviations over channel groups"
    )
    sub.add_argument("--with-mirrored", action="store_true", help="include the mirror image of every clip")
    sub.set_defaults(run=stats)

    sub = with_dataset(verbs, "verify", "check counts, NaN, lengths, captions, statistics, splits; or a packed dataset")
    sub.add_argument("--sample", type=int, help="read at most this many motions, chosen at random")
    sub.set_defaults(run=verify)


def stats(args: argparse.Namespace) -> int:
    """Write mean_std/."""
    from hftrainer.data.prepare.statistics import write_statistics

    clips = write_statistics(
        open_dataset(args), args.split, grouped=not args.per_dimension, with_mirrored=args.with_mirrored
    )
    print(f"mean_std/ from {clips} clips of {args.split}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Report; 1 if something is wrong."""
    from hftrainer.apps.pack import verify_packed
    from hftrainer.data.prepare.verify import verify as check

    packed = verify_packed(args.dataset, progress=progress("verify"))
    if packed is not None:
        facts, problems = packed
        print("\n".join([*facts, *(f"WRONG: {problem}" for problem in problems)]))
        print("ok" if not problems else f"{len(problems)} problems")
        return 1 if problems else 0
    report = check(open_dataset(args), sample=args.sample, progress=progress("verify"))
    for line in report.lines():
        print(line)
    return 0 if report.good else 1
