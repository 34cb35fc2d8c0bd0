"""``hftrainer data convert-representation | synthetic``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from hftrainer.commands.common import progress
from hftrainer.shown import sentence


def add_verbs(verbs: Any) -> None:
    """Their arguments."""
    sub = verbs.add_parser("convert-representation", help="convert a folder or dataset to another representation")
    sub.add_argument("source", help="a folder of *.npy, or a dataset, whose captions and splits are kept")
    sub.add_argument(
        "--from", dest="source_name", metavar="NAME", help="representation of the files; a dataset records it"
    )
    sub.add_argument("--to", dest="target_name", required=True, metavar="NAME", help="representation to write")
    sub.add_argument("--out", required=True, help="folder for the results and conversion.json")
    sub.add_argument("--fps", type=float, help="frame rate of source joints (default 30)")
    sub.add_argument("--layout", default="columns_interleaved", help="6D layout of motion135: this, or columns")
    sub.add_argument("--skeleton", help=".npy of (22, 3) vectors from parent to joint, to pose rotations with")
    sub.set_defaults(run=convert_representation)

    sub = verbs.add_parser("synthetic", help="generate a small procedural dataset for testing")
    sub.add_argument("--out", required=True)
    sub.add_argument("--clips", type=int, default=48)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=synthetic)


def convert_representation(args: argparse.Namespace) -> int:
    """Convert; 1 if a file failed."""
    from hftrainer.data.prepare.convert_dataset import convert_dataset, is_dataset
    from hftrainer.data.prepare.representation import convert_folder

    options = {"layout": args.layout, "skeleton": args.skeleton, "progress": progress("convert")}
    if is_dataset(args.source):
        report = convert_dataset(args.source, args.out, args.target_name, source_name=args.source_name, **options)
    elif args.source_name is None:
        raise ValueError(f"give the representation of {args.source} with --from; only datasets record it")
    else:
        report = convert_folder(args.source, args.out, args.source_name, args.target_name, fps=args.fps, **options)
    for reason in report.failed.values():
        print(f"failed: {sentence(reason)}", file=sys.stderr)
    left = f", {len(report.left)} left" if report.left else ""
    print(f"{len(report.made)} converted, {len(report.kept)} kept, {len(report.failed)} failed{left} -> {args.out}")
    return 1 if report.failed else 0


def synthetic(args: argparse.Namespace) -> int:
    """Write a procedural dataset."""
    from hftrainer.data.synthetic.motions import write_dataset

    write_dataset(args.out, clips=args.clips, seed=args.seed)
    print(f"{args.clips} clips -> {args.out}")
    return 0
