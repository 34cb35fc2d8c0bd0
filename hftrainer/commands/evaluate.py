"""``hftrainer evaluate run|generate|leaderboard|tokenizer|actions``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hftrainer.commands import evaluate_generate, evaluate_leaderboard, evaluate_run
from hftrainer.commands.common import add_sampling, progress, sampling_changes

EPILOG = """examples:
  hftrainer evaluate run --data dataset/bandai --evaluator motionstreamer272-nano --model gotozero-nano --out runs/a
  hftrainer evaluate run --data dataset/HumanML3D_272 --evaluator evaluators/ms272 --predictions outputs/ms272/mine
  hftrainer evaluate run --compare runs/a runs/b
  hftrainer evaluate leaderboard runs/a runs/b runs/c --out runs/board
  hftrainer evaluate run --benchmark motionmillion-eval --prompts prompts.txt --model gotozero-nano --out runs/mme
  hftrainer evaluate generate --model gotozero-nano --pair-source official_split --data dataset/bandai -o made
  hftrainer evaluate tokenizer gotozero-nano --data dataset/bandai --split test
  hftrainer evaluate actions gotozero-nano --data dataset/bandai --seeds 20 --out docs/results"""


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

    sub = _common(what, "tokenizer", "evaluate a tokenizer: reconstruction of real clips")
    sub.add_argument("--evaluator", help="zoo name, folder or hub name of an evaluator, for FID")
    sub.set_defaults(run=tokenizer)

    sub = _common(what, "actions", "check with a classifier whether generated motions match their prompts")
    sub.add_argument("--classifier", default="checkpoints/gotozero-nano/actions", help="folder of an action classifier")
    sub.add_argument("--templates", default="bandai-namco", help="caption templates for the prompts")
    sub.add_argument("--seeds", type=int, default=20, help="motions per action (default 20)")
    sub.add_argument("--pairs", type=int, default=100, help="prompts of two actions (default 100)")
    sub.add_argument("--styled", type=int, default=100, help="prompts with style words (default 100)")
    sub.add_argument("--unseen", type=Path, help="tab-separated prompt, action, style; default: the included file")
    add_sampling(sub)
    sub.set_defaults(run=actions)


def tokenizer(args: argparse.Namespace) -> int:
    """Print and write how well clips are reconstructed."""
    from hftrainer.apps.tokenizer_figures import evaluate_tokenizer

    given = {"split": args.split, "evaluator": args.evaluator}
    found = evaluate_tokenizer(args.model, args.data, **given, progress=progress("clips"))
    _write(args, "tokenizer", found)
    for name, value in found["figures"].items():
        print(f"{name:44} {value:.3f}")
    return 0


def actions(args: argparse.Namespace) -> int:
    """Generate, score, print and write."""
    from hftrainer.apps.action_trials import ActionTrials, evaluate_actions

    asked = ActionTrials(args.templates, args.seeds, args.pairs, args.styled, args.unseen)
    options = {"split": args.split, "sampling": sampling_changes(args), "progress": progress("motions")}
    found = evaluate_actions(args.model, args.data, args.classifier, asked=asked, **options)
    print(found.report.markdown())
    for prompt, seen in found.mistaken:
        print(f"unseen: {prompt!r} looks like {seen}", file=sys.stderr)
    _write(args, "actions", found.content)
    return 0


def _common(what: Any, name: str, summary: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = what.add_parser(name, help=summary, description=summary)
    sub.add_argument("model", help="zoo name or model folder")
    sub.add_argument("--data", required=True, help="dataset folder with real clips")
    sub.add_argument("--split", default="test")
    sub.add_argument("--out", type=Path, help="folder for the results as JSON")
    return sub


def _write(args: argparse.Namespace, name: str, content: dict[str, Any]) -> None:
    if args.out is not None:
        from hftrainer.files import check_writable, write_json

        write_json(check_writable(args.out) / f"{name}.json", content)
