"""Convert released Go to Zero files to an artifact folder: `hftrainer convert checkpoint` under the model card's name.

python3 scripts/eval/convert_motionmillion_checkpoint.py --ar FILE --out_dir FOLDER --text_model_source FOLDER --verify
"""

import sys

from hftrainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", "checkpoint", *sys.argv[1:]]))
