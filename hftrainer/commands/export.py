"""``hftrainer export MOTION.npy --formats bvh,mp4``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """example:
  hftrainer export out/000_a-person-walks_s0.npy --formats bvh,npz,html --out exported/"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("motions", nargs="+", type=Path, help=".npy files with (frames, 272) motions")
    parser.add_argument("--out", "-o", type=Path, default=Path("exported"))
    parser.add_argument("--formats", default="npz,bvh,mp4,html", help="of npz, bvh, mp4, html")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files; 1 if a motion could not be read."""
    import numpy as np

    from hftrainer.data.folder import load_motion
    from hftrainer.files import check_writable
    from hftrainer.motion.representation import motion272
    from hftrainer.motion.representation.base import DEFAULT, get_representation
    from hftrainer.pipelines.outputs import check_formats, write_files
    from hftrainer.render.viewer import ViewerClip, write_viewer

    formats = [name.strip() for name in args.formats.split(",") if name.strip()]
    check_formats(formats)
    check_writable(args.out)
    clips, failed = [], 0
    for path in args.motions:
        try:
            motion = load_motion(path)
        except ValueError as error:
            print(f"failed: {error}", file=sys.stderr)
            failed += 1
            continue
        write_files(args.out / path.stem, motion, path.stem, formats, get_representation(DEFAULT))
        clips.append(ViewerClip(joints=motion272.to_joints(motion.astype(np.float64)), title=path.stem))
    if "html" in formats and clips:
        write_viewer(args.out / "index.html", clips, title=f"{len(clips)} motions")
    print(f"{len(clips)} motions exported to {args.out}, {failed} failed")
    return 1 if failed else 0
