"""The flags by which ``hftrainer data import-motion`` and ``check-import`` read files."""

from __future__ import annotations

import argparse
from typing import Any


def add_source(sub: argparse.ArgumentParser) -> None:
    """What is read, and what is known of it."""
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


def settings_of(args: argparse.Namespace) -> Any:
    """`ImportSettings`; ``ValueError`` for flags that mean nothing."""
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
