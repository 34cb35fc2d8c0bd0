"""``python -m hftrainer`` is the ``hftrainer`` command."""

import sys

from hftrainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
