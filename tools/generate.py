"""``hftrainer generate`` as a script: python tools/generate.py ..."""

import sys

from hftrainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
