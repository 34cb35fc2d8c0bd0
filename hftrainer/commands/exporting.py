"""How motions are written: the flags that ``generate`` and ``export`` have in common. Nothing heavy is imported."""

from __future__ import annotations

import argparse
from typing import Any

FORMATS_HELP = "of npy, npz, amass, bvh, glb, vrma, csv, usd, mp4, gif, webp, html"


def add_export(parser: Any) -> None:
    """--skeleton, --fps, --unit, --up, --in-place, --root-motion, --loop, --transparent, --raw."""
    group = parser.add_argument_group("output options")
    group.add_argument(
        "--skeleton", default="model", metavar="NAME",
        help="bone names, proportions and rest pose of: model (default), smpl, mixamo, unreal, unity, vrm",
    )  # fmt: skip
    group.add_argument("--fps", type=float, help="frame rate of the files, e.g. 24, 30 or 60; default: the model's")
    group.add_argument("--unit", choices=["m", "cm", "mm", "inch"], help="of lengths; default: cm in BVH, m in GLB")
    group.add_argument("--up", choices=["y", "z"], default="y", help="in BVH files (default y)")
    group.add_argument("--in-place", action="store_true", help="remove the path of the root")
    group.add_argument("--root-motion", action="store_true", help="a root bone on the floor carries path and heading")
    group.add_argument("--loop", action="store_true", help="the longest good cycle, closed in position and velocity")
    group.add_argument("--transparent", action="store_true", help="no ground and sky (gif, webp)")
    group.add_argument(
        "--raw", action="store_true", help="no smoothing or foot locking: as close to the model as the skeleton allows"
    )


def options_of(args: argparse.Namespace) -> Any:
    """The `ExportOptions` that the flags say; ``ValueError`` if they contradict each other."""
    from hftrainer.render.export import ExportOptions

    return ExportOptions(
        skeleton=args.skeleton, fps=args.fps, unit=args.unit, up=args.up, in_place=args.in_place,
        root_motion=args.root_motion, loop=args.loop, transparent=args.transparent,
    )  # fmt: skip


def formats_of(args: argparse.Namespace, options: Any) -> tuple[str, ...]:
    """The formats of --formats, checked before any work."""
    from hftrainer.render.export import check_formats

    formats = tuple(name.strip().lower().lstrip(".") for name in args.formats.split(",") if name.strip())
    check_formats(formats, options)
    return formats
