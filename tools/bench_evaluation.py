"""What evaluation costs on this machine: `hftrainer bench metrics`.

python tools/bench_evaluation.py --clips 4042 --rounds 3
"""

import sys

from hftrainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "metrics", *sys.argv[1:]]))
