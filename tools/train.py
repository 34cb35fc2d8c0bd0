"""``hftrainer train`` as a script: python tools/train.py ..."""

import sys

from hftrainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
