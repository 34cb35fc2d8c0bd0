"""``hftrainer export MOTION --formats bvh,glb``: motions in other files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hftrainer.commands.exporting import FORMATS_HELP, add_export, formats_of, options_of
from hftrainer.shown import sentence

EPILOG = """examples:
  hftrainer export out/000_a-person-walks_s0.npy --formats bvh,glb --out exported/
  hftrainer export walk.bvh --formats amass --out for_robots/
  hftrainer export out/*.npz --formats glb --skeleton unreal --fps 60 --together moves.glb
  hftrainer export out/before out/after --together compare.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument(
        "motions", nargs="+", type=Path,
        help=".npy of motion272 features, .npz (ours, AMASS), .bvh, .glb; or two to four "
        "folders of `hftrainer generate`",
    )  # fmt: skip
    parser.add_argument("--out", "-o", type=Path, default=Path("exported"), help="folder (default exported/)")
    parser.add_argument("--formats", default="npz,bvh,glb,mp4,html", help=FORMATS_HELP)
    parser.add_argument("--together", metavar="FILE", help="all motions in one .glb, .html or video in --out")
    parser.add_argument("--model", help="fit .npy files to this model's body (default: SMPL's proportions)")
    parser.add_argument("--map", dest="skeleton_map", help="skeleton map of the .bvh files: a name or a YAML file")
    add_export(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files; 1 if a motion could not be read or written."""
    from hftrainer.apps.compare_folders import compare_folders
    from hftrainer.apps.export_files import export_files
    from hftrainer.files import check_writable
    from hftrainer.motion.body import body_of
    from hftrainer.render.export import check_formats, format_of
    from hftrainer.zoo.load import locate

    options = options_of(args)
    formats = formats_of(args, options) if args.together is None else (format_of(args.together),)
    check_formats(formats, options)
    if "npy" in formats:
        raise ValueError("npy contains a model's own features, which only `hftrainer generate` writes; choose npz")
    body = body_of(locate(args.model)[0]) if args.model else None
    out = check_writable(args.out)
    if all(path.is_dir() for path in args.motions):
        page = out / (args.together or "compare.html")
        count = compare_folders(args.motions, page, body=body)
        print(f"{count} prompts of {len(args.motions)} folders side by side: {page}")
        return 0
    count, failed = export_files(
        args.motions, out, formats, options,
        body=body, skeleton_map=args.skeleton_map, raw=args.raw, together=args.together,
    )  # fmt: skip
    for error in failed.values():
        print(f"failed: {sentence(str(error))}", file=sys.stderr)
    print(f"{count} motions exported to {out}, {len(failed)} failed")
    return 1 if failed else 0
