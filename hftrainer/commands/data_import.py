"""``hftrainer data import-motion`` and ``check-import``: motion capture files of any kind to a dataset folder."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from hftrainer.commands.common import progress
from hftrainer.commands.import_flags import add_source, settings_of
from hftrainer.shown import sentence

_SHOWN = 20


def add_verbs(verbs: Any) -> None:
    """The two verbs."""
    summary = "import motion files (BVH, ASF/AMC, SMPL npz, glTF, FBX) as motion272 on the SMPL-22 skeleton, 30 fps"
    sub = verbs.add_parser("import-motion", aliases=["import-bvh"], help=summary, description=summary)
    add_source(sub)
    sub.add_argument("--out", required=True, help="dataset folder")
    sub.set_defaults(run=import_motion)

    summary = "check motion files as import-motion would, and print a table; writes nothing"
    sub = verbs.add_parser("check-import", help=summary, description=summary)
    add_source(sub)
    sub.set_defaults(run=check_import)


def import_motion(args: argparse.Namespace) -> int:
    """Convert; 1 if a file failed."""
    from hftrainer.data.prepare.motion_import import import_motions

    report = import_motions(
        args.source, args.out, settings_of(args), prefix=args.prefix, workers=args.workers, progress=progress("import")
    )
    for path, reason in report.failed.items():
        print(f"failed: {sentence(reason if path in reason else f'{path}: {reason}')}", file=sys.stderr)
    made = [report.records[name] for name in report.imported]
    for kind, word in (("doubts", "warning"), ("notes", "note")):
        said = Counter(line for record in made for line in record[kind])
        where = {line: record["clip"] for record in made for line in record[kind]}
        for line, count in said.most_common(_SHOWN):
            print(f"{word}: {where[line] if count == 1 else f'{count} clips'}: {line}", file=sys.stderr)
        if len(said) > _SHOWN:
            print(f"{word}: and {len(said) - _SHOWN} more; see {args.out}/import.jsonl", file=sys.stderr)
    left = f", {len(report.left)} left" if report.left else ""
    print(f"{len(report.imported)} imported, {len(report.kept)} kept, {len(report.failed)} failed{left} -> {args.out}")
    return 1 if report.failed else 0


def check_import(args: argparse.Namespace) -> int:
    """Print the table; 1 if a file would be refused."""
    from hftrainer.data.prepare.check_import import check_import as look
    from hftrainer.data.prepare.check_import import table

    found = look(args.source, settings_of(args), prefix=args.prefix, workers=args.workers, progress=progress("look"))
    for line in table(found):
        print(line)
    refused = sum(isinstance(record, str) for record in found.values())
    doubted = sum(not isinstance(record, str) and bool(record["doubts"]) for record in found.values())
    print(f"{len(found)} files, {refused} refused, {doubted} doubtful")
    return 1 if refused else 0
