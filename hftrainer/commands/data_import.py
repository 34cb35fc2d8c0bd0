"""``hftrainer data import-motion`` and ``check-import``: motion capture files of any kind to a dataset folder."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from hftrainer.commands.common import progress

_SHOWN = 20


def add_verbs(verbs: Any) -> None:
    """The two verbs."""
    summary = "import motion files (BVH, ASF/AMC, SMPL npz, glTF, FBX) as motion272 on the SMPL-22 skeleton, 30 fps"
    sub = verbs.add_parser("import-motion", aliases=["import-bvh"], help=summary, description=summary)
    _add_source(sub)
    sub.add_argument("--out", required=True, help="dataset folder")
    sub.set_defaults(run=import_motion)

    summary = "check motion files as import-motion would, and print a table; writes nothing"
    sub = verbs.add_parser("check-import", help=summary, description=summary)
    _add_source(sub)
    sub.set_defaults(run=check_import)


def _add_source(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", help="a folder, searched for motion files, or one file")
    sub.add_argument(
        "--skeleton", required=True, help="mixamo, cmu, daz, xsens, ... (see docs/bvh.md) or your map.yaml"
    )
    sub.add_argument("--prefix", default="", help="prefix for the names of all clips, e.g. cmu_")
    sub.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    sub.add_argument("--units", metavar="UNIT", help="the files' unit of length: m, cm, mm, in, ft, dm, cmu or metres")
    sub.add_argument("--up", choices=["+X", "-X", "+Y", "-Y", "+Z", "-Z"], help="axis of the files that points up")
    sub.add_argument("--fps", type=float, help="frame rate of the recording, if the files have a wrong one")
    sub.add_argument(
        "--fps-from", metavar="TABLE", help="frame rates of individual clips, from a table such as cmu-index"
    )
    sub.add_argument("--rest-frame", type=int, metavar="K", help="frame that is a T-pose, if the zero pose is not")
    sub.add_argument("--skip-first", default="auto", metavar="auto|N", help="frames to drop at the start")
    sub.add_argument("--accept", action="store_true", help="import clips that would be refused as implausible")


def import_motion(args: argparse.Namespace) -> int:
    """Convert; 1 if a file failed."""
    from hftrainer.data.prepare.motion_import import import_motions

    report = import_motions(
        args.source, args.out, _settings(args), prefix=args.prefix, workers=args.workers, progress=progress("import")
    )
    for path, reason in report.failed.items():
        print(f"failed: {reason if path in reason else f'{path}: {reason}'}", file=sys.stderr)
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

    found = look(args.source, _settings(args), prefix=args.prefix, workers=args.workers, progress=progress("look"))
    for line in table(found):
        print(line)
    refused = sum(isinstance(record, str) for record in found.values())
    doubted = sum(not isinstance(record, str) and bool(record["doubts"]) for record in found.values())
    print(f"{len(found)} files, {refused} refused, {doubted} doubtful")
    return 1 if refused else 0


def _settings(args: argparse.Namespace) -> Any:
    from hftrainer.data.prepare.caption_table import load_table
    from hftrainer.data.prepare.convert_motion import ImportSettings
    from hftrainer.motion.body_size import parse_unit
    from hftrainer.motion.retarget import RetargetOptions
    from hftrainer.motion.skeleton_map import load_map

    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    if args.fps is not None and not 0.1 <= args.fps <= 10_000:
        raise ValueError(f"--fps must be between 0.1 and 10000, got {args.fps}")
    if args.skip_first != "auto" and not args.skip_first.isdecimal():
        raise ValueError(f"--skip-first is auto or a number of frames, got {args.skip_first!r}")
    options = RetargetOptions(
        recorded_fps=args.fps,
        metres_per_unit=parse_unit(args.units) if args.units is not None else None,
        up=args.up,
        rest_frame=args.rest_frame,
        skip_first=None if args.skip_first == "auto" else int(args.skip_first),
    )
    recorded = load_table(args.fps_from).recorded_fps() if args.fps_from else {}
    return ImportSettings(load_map(args.skeleton), options, recorded, args.accept)
