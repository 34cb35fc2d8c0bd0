"""Plot the curves of a run: python tools/plot_curves.py runs/nano_ar --out docs/images/nano_ar.png"""

import argparse
import sys
from pathlib import Path

from hftrainer.training.curves import draw_curves


def main() -> int:
    """Parse, draw, print."""
    parser = argparse.ArgumentParser(description="The curves of a run as a PNG, from its CSV logs.")
    parser.add_argument("run", type=Path, help="the output_dir of a run")
    parser.add_argument("--out", type=Path, help="output file; by default curves.png in the run's folder")
    parser.add_argument("--names", nargs="+", help="values to plot, e.g. train/loss val/loss; by default all")
    parser.add_argument("--columns", type=int, default=3, help="panels per row")
    parser.add_argument("--title")
    args = parser.parse_args()
    try:
        out = args.out or args.run / "curves.png"
        print(draw_curves(args.run, out, names=args.names, columns=args.columns, title=args.title))
    except (ValueError, OSError, ImportError) as error:
        print(f"plot_curves: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
