"""``hftrainer zoo [NAME]``."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = "example:\n  hftrainer zoo gotozero-nano"
    parser.add_argument("name", nargs="?", help="show this model's card")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List, or show one."""
    from hftrainer.zoo import cards, find_card
    from hftrainer.zoo.load import is_here

    if args.name is None:
        width = max(map(len, cards()))
        for card in cards().values():
            where = "here" if is_here(card) else "hub" if card.hub else "-"
            print(f"{card.name:{width}}  {card.parameters:>6}  {where:4}  {card.summary}")
        return 0
    card = find_card(args.name)
    for key, value in vars(card).items():
        if value not in (None, [], ""):
            print(f"{key:12} {', '.join(value) if isinstance(value, list) else value}")
    return 0
