"""``hftrainer evaluate tokenizer|actions``: one model, and the real clips of a dataset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hftrainer.commands.common import add_sampling, progress, sampling_changes
from hftrainer.commands.evaluate_common import check_out, with_model, write_result


def add_arguments(what: Any) -> None:
    """Their arguments."""
    sub = with_model(what, "tokenizer", "evaluate a tokenizer: reconstruction of real clips")
    sub.add_argument("--evaluator", help="zoo name, folder or hub name of an evaluator, for FID")
    sub.set_defaults(run=tokenizer)

    sub = with_model(
        what, "actions", "check whether generated motions match their prompts: by a classifier or an evaluator"
    )
    sub.add_argument("--classifier", default="checkpoints/gotozero-nano/actions", help="folder of an action classifier")
    sub.add_argument("--evaluator", help="instead: zoo name or folder of an evaluator, which places motions among the "
                     "dataset's actions; --split are the clips kept aside")  # fmt: skip
    sub.add_argument("--least", type=int, default=10, help="with --evaluator: clips that an action has (default 10)")
    sub.add_argument(
        "--prompts", type=Path, help="with --evaluator: tab-separated prompt and action; default: included"
    )
    sub.add_argument("--templates", default="bandai-namco", help="caption templates for the prompts")
    sub.add_argument("--seeds", type=int, help="motions per action (default 20; with --evaluator 10)")
    sub.add_argument("--pairs", type=int, help="prompts of two actions (default 100; with --evaluator 60)")
    sub.add_argument("--styled", type=int, default=100, help="prompts with style words (default 100)")
    sub.add_argument("--unseen", type=Path, help="tab-separated prompt, action, style; default: the included file")
    add_sampling(sub)
    sub.set_defaults(run=actions)


def tokenizer(args: argparse.Namespace) -> int:
    """Print and write how well clips are reconstructed."""
    from hftrainer.apps.tokenizer_figures import evaluate_tokenizer

    check_out(args)
    given = {"split": args.split, "evaluator": args.evaluator}
    found = evaluate_tokenizer(args.model, args.data, **given, progress=progress("clips"))
    write_result(args, "tokenizer", found)
    for name, value in found["figures"].items():
        print(f"{name:44} {value:.3f}")
    return 0


def actions(args: argparse.Namespace) -> int:
    """Generate, score, print and write."""
    check_out(args)
    options: dict[str, Any] = {"sampling": sampling_changes(args), "progress": progress("motions")}
    counts = {name: value for name in ("seeds", "pairs") if (value := getattr(args, name)) is not None}
    if args.evaluator is not None:
        from hftrainer.apps.evaluator_trials import EvaluatorTrials, evaluate_by_evaluator

        trials = EvaluatorTrials(least=args.least, held_out=args.split, prompts=args.prompts, **counts)
        placed = evaluate_by_evaluator(args.model, args.data, args.evaluator, asked=trials, **options)
        print(placed.report.markdown())
        write_result(args, "actions", placed.content)
        return 0
    from hftrainer.apps.action_trials import ActionTrials, evaluate_actions

    asked = ActionTrials(templates=args.templates, styled=args.styled, unseen=args.unseen, **counts)
    found = evaluate_actions(args.model, args.data, args.classifier, split=args.split, asked=asked, **options)
    print(found.report.markdown())
    for prompt, seen in found.mistaken:
        print(f"unseen: {prompt!r} looks like {seen}", file=sys.stderr)
    write_result(args, "actions", found.content)
    return 0
