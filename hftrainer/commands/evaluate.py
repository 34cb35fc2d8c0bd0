"""``hftrainer evaluate run|generate|leaderboard|tokenizer|actions|prompts``."""

from __future__ import annotations

import argparse

from hftrainer.commands import evaluate_generate, evaluate_leaderboard, evaluate_model, evaluate_prompts, evaluate_run

EPILOG = """examples:
  hftrainer evaluate run --data dataset/bandai --evaluator motionstreamer272-nano --model gotozero-nano --out runs/a
  hftrainer evaluate run --data dataset/HumanML3D_272 --evaluator evaluators/ms272 --predictions outputs/ms272/mine
  hftrainer evaluate run --compare runs/a runs/b
  hftrainer evaluate leaderboard runs/a runs/b runs/c --out runs/board
  hftrainer evaluate run --benchmark motionmillion-eval --prompts prompts.txt --model gotozero-nano --out runs/mme
  hftrainer evaluate generate --model gotozero-nano --pair-source official_split --data dataset/bandai -o made
  hftrainer evaluate tokenizer gotozero-nano --data dataset/bandai --split test
  hftrainer evaluate actions gotozero-nano --data dataset/bandai --seeds 20 --out docs/results
  hftrainer evaluate actions gotozero-nano --data dataset/cmu --evaluator motionstreamer272-nano --split val
  hftrainer evaluate prompts gotozero-nano --data dataset/bandai --split val --out docs/results"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    what = parser.add_subparsers(dest="what", metavar="what", required=True)
    for name, module, summary in (
        ("run", evaluate_run, "evaluate predictions, or a model, by a named protocol; compare two such runs"),
        ("generate", evaluate_generate, "generate a test set at exactly the real lengths, with many processes"),
        ("leaderboard", evaluate_leaderboard, "put several runs of one protocol and published results into one table"),
    ):
        module.add_arguments(what.add_parser(name, help=summary, description=summary))

    evaluate_model.add_arguments(what)
    evaluate_prompts.add_arguments(what)
