"""``hftrainer data mirror | join``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from hftrainer.commands.common import progress
from hftrainer.commands.data_common import changed_dataset, with_dataset


def add_verbs(verbs: Any) -> None:
    """Their arguments."""
    sub = with_dataset(verbs, "mirror", "add mirror images, with left and right exchanged in their labels")
    _add_augmenting(sub)
    sub.set_defaults(run=mirror)

    sub = with_dataset(verbs, "join", "add pairs of clips joined into one by a blended transition")
    _add_augmenting(sub)
    sub.add_argument("--count", type=int, default=1000)
    sub.add_argument("--seed", type=int, default=0)
    text = 'make captions of the clips\' own ("..., then ..."), for data that no templates describe'
    sub.add_argument("--from-captions", action="store_true", help=text)
    sub.set_defaults(run=join)


def mirror(args: argparse.Namespace) -> int:
    """Add mirror images."""
    from hftrainer.data.prepare.augment import mirror_split
    from hftrainer.data.prepare.captions import load_templates

    templates = load_templates(args.templates)
    with changed_dataset(args) as dataset:
        made, without = mirror_split(dataset, templates, args.split, args.into, progress=progress("mirror"))
    first = {reason: name for name, reason in reversed(without.items())}
    for reason, count in Counter(without.values()).items():
        print(f"{count} clips are not mirrored ({first[reason]} is the first): {reason}", file=sys.stderr)
    uncaptioned = sum(not dataset.captions(name) for name in made)
    captions = f"; {uncaptioned} have no captions yet" if uncaptioned else ""
    print(f"{len(made)} mirrored clips added to {args.into}{captions}")
    return 0 if made else 1


def join(args: argparse.Namespace) -> int:
    """Add joined clips."""
    from hftrainer.data.prepare.augment import JoinConfig, join_split
    from hftrainer.data.prepare.captions import load_templates

    config = JoinConfig(count=args.count, seed=args.seed)
    templates = None if args.from_captions else load_templates(args.templates)
    with changed_dataset(args) as dataset:
        made = join_split(dataset, templates, args.split, args.into, config, progress=progress("join"))
    print(f"{len(made)} joined clips added to {args.into}" + ("; now write their captions" if templates else ""))
    return 0


def _add_augmenting(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--split", default="train", help="source clips (default train)")
    sub.add_argument("--into", default="train_aug", help="split that gets them and the originals (default train_aug)")
    sub.add_argument("--templates", default="bandai-namco", help="caption templates; they define what may be mirrored")
