"""``hftrainer zoo list | show NAME | path NAME | pull NAME``."""

from __future__ import annotations

import argparse
import json
import sys
import warnings

EPILOG = """examples:
  hftrainer zoo list --task text-to-motion
  hftrainer zoo show gotozero-7b-train
  hftrainer zoo pull gotozero-3b-train --cache_dir /data/models"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.set_defaults(run=run_list, task=None, representation=None, json=False)
    what = parser.add_subparsers(dest="what", metavar="what")
    sub = what.add_parser("list", help="all models: the package's, those of plug-ins, those of HFTRAINER_ZOO")
    sub.add_argument("--task", help="only models for this task: text-to-motion, evaluator, tokenizer, ...")
    sub.add_argument("--representation", help="only models of this representation: motion272, hml263, ...")
    sub.add_argument("--json", action="store_true", help="the cards as JSON")
    sub = what.add_parser("show", help="one model's card")
    sub.add_argument("name", help="name or alias")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.add_argument("--vocabulary", action="store_true", help="print the words that the model was trained on")
    sub.set_defaults(run=run_show)
    sub = what.add_parser("path", help="print the folder of a model on this machine or in the hub's cache")
    sub.add_argument("name", help="name or alias")
    sub.set_defaults(run=run_path)
    sub = what.add_parser("pull", help="download a model, and check its files against the card's hashes")
    sub.add_argument("name", help="name or alias")
    sub.add_argument("--revision", help="branch, tag or commit; default: the card's")
    sub.add_argument("--cache_dir", help="default: the hub's cache")
    sub.set_defaults(run=run_pull)


def run_list(args: argparse.Namespace) -> int:
    """A line a model; what is wrong with cards and plug-ins goes to stderr."""
    from hftrainer import zoo
    from hftrainer.zoo.show import describe, select, table

    found = select(zoo.cards().values(), task=args.task, representation=args.representation)
    print(json.dumps([describe(card) for card in found], indent=2) if args.json else table(found))
    for problem in zoo.all_problems():
        print(f"warning: {problem}", file=sys.stderr)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """One card, or the vocabulary in its model's folder."""
    from hftrainer.zoo import find_card
    from hftrainer.zoo.files import cached_folder, read_vocabulary
    from hftrainer.zoo.show import describe, text, vocabulary_text

    card = find_card(args.name)
    if args.vocabulary:
        words = read_vocabulary(cached_folder(card), card)
        print(json.dumps(words, indent=2) if args.json else vocabulary_text(words))
    else:
        print(json.dumps(describe(card), indent=2) if args.json else text(card))
    return 0


def run_path(args: argparse.Namespace) -> int:
    """Where the files are."""
    from hftrainer.zoo import find_card
    from hftrainer.zoo.files import cached_folder

    print(cached_folder(find_card(args.name)))
    return 0


def run_pull(args: argparse.Namespace) -> int:
    """Download and compare."""
    from hftrainer.zoo import find_card
    from hftrainer.zoo.files import pull

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        pulled = pull(find_card(args.name), revision=args.revision, cache_dir=args.cache_dir)
    for note in notes:
        print(f"warning: {note.message}", file=sys.stderr)
    print(f"{pulled.folder}: {f'{pulled.checked} files match their hashes' if pulled.checked else 'no known hashes'}")
    return 0
