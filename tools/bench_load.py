"""``hftrainer bench load`` as a script: python tools/bench_load.py MODEL ..."""

import sys

from hftrainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "load", *sys.argv[1:]]))
