"""``hftrainer export MOTION --formats bvh,glb``: motions in other files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hftrainer.commands.exporting import FORMATS_HELP, add_export, formats_of, options_of

EPILOG = """examples:
  hftrainer export out/000_a-person-walks_s0.npy --formats bvh,glb --out exported/
  hftrainer export walk.bvh --formats amass --out for_robots/
  hftrainer export out/*.npz --formats glb --skeleton unreal --fps 60 --together moves.glb
  hftrainer export out/before out/after --together compare.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument(
        "motions",
        nargs="+",
        type=Path,
        help=".npy of 272 features, .npz (ours, AMASS), .bvh, .glb; "
        "or two to four folders of `hftrainer generate`, to be compared on one page",
    )
    parser.add_argument("--out", "-o", type=Path, default=Path("exported"), help="folder (default exported/)")
    parser.add_argument("--formats", default="npz,bvh,glb,mp4,html", help=FORMATS_HELP)
    parser.add_argument("--together", metavar="FILE", help="all motions in one .glb, .html or video in --out")
    parser.add_argument("--model", help="fit .npy files to this model's body (default: SMPL's proportions)")
    parser.add_argument("--map", dest="skeleton_map", help="skeleton map of the .bvh files: a name or a YAML file")
    add_export(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files; 1 if a motion could not be read or written."""
    from hftrainer.files import check_writable
    from hftrainer.motion.body import body_of
    from hftrainer.motion.io.read_body import read_motions
    from hftrainer.render.export import ENDINGS, describe_loop, format_of, write
    from hftrainer.render.viewer import clips_of, write_viewer
    from hftrainer.zoo.load import locate

    options = options_of(args)
    formats = formats_of(args, options) if args.together is None else (format_of(args.together),)
    if "npy" in formats:
        raise ValueError("npy holds a model's own features, which only `hftrainer generate` writes; choose npz")
    if all(path.is_dir() for path in args.motions):
        return _compare(args)
    body = body_of(locate(args.model)[0]) if args.model else None
    out = check_writable(args.out)
    shown, titles, failed = [], [], 0
    stems: set[str] = set()
    for path in args.motions:
        try:
            for title, motion in read_motions(path, body=body, skeleton_map=args.skeleton_map, raw=args.raw):
                if options.loop:
                    print(f"{title}: {describe_loop(motion)[1]}")
                moved = options.apply(motion)
                stem = _free(path.stem if title == path.stem else f"{path.stem}_{title}", stems)
                if args.together is None:
                    for name in formats:
                        if name != "html":
                            write(out / f"{stem}{ENDINGS[name]}", [moved], options, titles=[title], kind=name)
                shown.append(moved)
                titles.append(title)
        except ValueError as error:
            print(f"failed: {error}", file=sys.stderr)
            failed += 1
    if shown and args.together is not None:
        write(out / args.together, shown, options, titles=titles)
    elif shown and "html" in formats:
        write_viewer(out / "index.html", clips_of(shown, titles), title=f"{len(shown)} motions")
    print(f"{len(shown)} motions exported to {out}, {failed} failed")
    return 1 if failed else 0


def _compare(args: argparse.Namespace) -> int:
    from hftrainer.apps.compare_folders import compare_folders
    from hftrainer.files import check_writable
    from hftrainer.motion.body import body_of
    from hftrainer.zoo.load import locate

    path = check_writable(args.out) / (args.together or "compare.html")
    body = body_of(locate(args.model)[0]) if args.model else None
    count = compare_folders(args.motions, path, body=body)
    print(f"{count} prompts of {len(args.motions)} folders side by side: {path}")
    return 0


def _free(stem: str, taken: set[str]) -> str:
    """A file name that no other motion of this run has."""
    stem = "".join("-" if letter in '/\\:*?"<>|' or not letter.isprintable() else letter for letter in stem)
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name
