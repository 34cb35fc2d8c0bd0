"""``hftrainer evaluate`` as a script: python tools/evaluate.py ..."""

import sys

from hftrainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
