"""``hftrainer data captions | split``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from hftrainer.commands.data_common import changed_dataset, with_dataset
from hftrainer.shown import sentence

_TABLE = "included table (cmu-index, 100style, ...) or a .jsonl file; may be repeated"


def add_verbs(verbs: Any) -> None:
    """Their arguments."""
    sub = with_dataset(verbs, "captions", "write captions from labels by templates, or from a table of labels")
    how = sub.add_mutually_exclusive_group(required=True)
    how.add_argument("--templates", help="bandai-namco, or your templates.yaml")
    how.add_argument("--from", dest="tables", action="append", metavar="TABLE", help=_TABLE)
    sub.add_argument("--count", type=int, default=8, help="paraphrases per clip (default 8)")
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=captions)

    sub = with_dataset(verbs, "split", "divide into train, val, test and all")
    sub.add_argument("--from", dest="tables", action="append", metavar="TABLE", help=f"take the splits of a {_TABLE}")
    sub.add_argument("--by", default="content", help="stratify by these labels, e.g. set,content")
    sub.add_argument("--val", type=float, default=0.04)
    sub.add_argument("--test", type=float, default=0.06)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=split)


def captions(args: argparse.Namespace) -> int:
    """Write texts/ and labels.json; 1 if a clip has no labels."""
    with changed_dataset(args) as dataset:
        return _captions(args, dataset)


def _captions(args: argparse.Namespace, dataset: Any) -> int:
    from hftrainer.data.prepare.caption_table import load_table, write_table_captions
    from hftrainer.data.prepare.captions import load_templates, write_captions

    if args.tables:
        tables = [load_table(table) for table in args.tables]
        for table in tables:
            if table.about.get("use") == "evaluation":
                print(f"{table.name}: for evaluation only; do not train on these captions", file=sys.stderr)
        written, left = write_table_captions(dataset, tables)
        print(f"{written} clips captioned, {len(left)} without sentences in the tables")
        return 0 if written else 1
    failed = write_captions(dataset, load_templates(args.templates), count=args.count, seed=args.seed)
    for name, reason in list(failed.items())[:20]:
        print(f"failed: {sentence(f'{name}: {reason}')}", file=sys.stderr)
    print(f"{len(dataset.names()) - len(failed)} clips captioned, {len(failed)} failed")
    return 1 if failed else 0


def split(args: argparse.Namespace) -> int:
    """Write split/."""
    with changed_dataset(args) as dataset:
        return _split(args, dataset)


def _split(args: argparse.Namespace, dataset: Any) -> int:
    from hftrainer.data.prepare.caption_table import load_table, split_from_tables
    from hftrainer.data.prepare.splits import split_dataset

    if args.tables:
        parts = split_from_tables(dataset.names(), [load_table(table) for table in args.tables])
    else:
        keys = [key for key in args.by.split(",") if key]
        parts = split_dataset(dataset, keys, val=args.val, test=args.test, seed=args.seed)
    for name, members in parts.items():
        dataset.write_split(name, members)
        print(f"{name:10} {len(members)}")
    return 0
