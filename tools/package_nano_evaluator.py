"""Package the trained evaluator of gotozero-nano where the zoo finds it, with its card.

python tools/package_nano_evaluator.py --evaluator runs/motionstreamer272_nano/best
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from hftrainer.manifest import verify_manifest, write_manifest
from hftrainer.models.motion.motionstreamer import MotionStreamer272Evaluator

CARD = Path(__file__).parent / "motionstreamer272-nano.md"
LARGEST = 15e6  # bytes; it is committed


def main() -> None:
    """Write OUT from scratch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluator", type=Path, default=Path("runs/motionstreamer272_nano/best"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/motionstreamer272-nano"))
    args = parser.parse_args()

    evaluator = MotionStreamer272Evaluator.from_pretrained(args.evaluator)
    evaluator.encode_texts(["a person walks"])  # fails if the folder is incomplete
    evaluator.save_pretrained(args.out)
    shutil.copyfile(CARD, args.out / "README.md")
    write_manifest(args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    if size > LARGEST:
        raise SystemExit(f"{args.out} has {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}: make the model smaller")
    print(f"{args.out}: {verify_manifest(args.out)} files, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
