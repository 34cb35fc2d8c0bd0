"""``hftrainer data VERB``: from motion capture files to a dataset that models train on."""

from __future__ import annotations

import argparse

from hftrainer.commands import (
    data_augment,
    data_captions,
    data_checks,
    data_convert,
    data_encode,
    data_import,
    data_vocabulary,
    packing,
)

EPILOG = """example, from BVH files to tokens:
  hftrainer data check-import Bandai-Namco --skeleton bandai-namco
  hftrainer data import-motion Bandai-Namco --skeleton bandai-namco --out dataset/bandai
  hftrainer data captions dataset/bandai --templates bandai-namco --count 24
  hftrainer data split dataset/bandai --by set,content
  hftrainer data mirror dataset/bandai --split train --into train_aug
  hftrainer data join dataset/bandai --split train --into train_aug --count 4000
  hftrainer data captions dataset/bandai --templates bandai-namco --count 24
  hftrainer data stats dataset/bandai --split train --with-mirrored
  hftrainer data tokenize dataset/bandai --model runs/nano_tokenizer/best --split train_aug --split val
  hftrainer data verify dataset/bandai

example, motions in another representation:
  hftrainer data convert-representation outputs/ms272 --from motion272 --to hml263 --out outputs/hml263

example, published archives, packed for training at scale:
  hftrainer data import-tar split.tar.gz texts.tar.gz MotionGV/*.tar.gz --out dataset/MotionMillion
  hftrainer data pack-motions dataset/MotionMillion --split version1/tokenizer_96/train --out packed_motions
  hftrainer data pack-tokens dataset/MotionMillion --split version1/t2m_60_300/train --out packed

text features for a machine that the text encoder does not fit on:
  hftrainer data text-features --prompts prompts.txt --encoder google/flan-t5-xl --out features.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)
    groups = (
        data_import,
        data_captions,
        data_augment,
        data_encode,
        data_checks,
        data_convert,
        data_vocabulary,
        packing,
    )
    for group in groups:
        group.add_verbs(verbs)
