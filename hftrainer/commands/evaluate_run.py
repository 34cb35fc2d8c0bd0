"""``hftrainer evaluate run``: evaluate predictions or a model by a protocol, and compare two such runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hftrainer.commands.common import device_of, progress, progress_lines
from hftrainer.commands.evaluate_common import check_out
from hftrainer.commands.evaluate_flags import add_model_arguments, settings_of, source_of

BENCHMARKS = ("motionmillion-eval",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("--protocol", default="hftrainer-v1", help="name or YAML file (default hftrainer-v1)")
    change = "override a protocol field, e.g. missing=failure; may be repeated"
    add("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE", help=change)
    add("--data", help="dataset folder with the real clips")
    add("--split", help="of the dataset; default: the protocol's")
    add("--texts", help="folder with other captions, <name>.txt, e.g. corrected ones")
    add("--evaluator", help="zoo name, folder, or owner/repository")
    folders = "folder of <name>.npy; further ones are further generations of the same captions (multimodality)"
    add("--predictions", nargs="+", metavar="FOLDER", help=folders)
    add("--any-rate", action="store_true", help="skip the frame-rate check on prediction lengths")
    odd = "evaluate predictions even if they are in other units, frozen or upside down"
    add("--any-values", action="store_true", help=odd)
    add("--out", "-o", type=Path, help="folder for the report and, with --model, motions")
    add("--limit", type=int, default=0, help="only the first N clips of the split")
    add("--cases", type=int, default=8, help="number of worst and of best retrievals on the page (default 8)")
    add("--cache", type=Path, help="folder for cached embeddings")
    add("--wandb", metavar="PROJECT", help="also log the results there")
    add("--compare", nargs=2, type=Path, metavar=("A", "B"), help="folders of two earlier runs")
    add("--benchmark", choices=BENCHMARKS, help="prompts without real clips: gallery and physical metrics")
    add("--prompts", type=Path, help="the benchmark's file, one prompt per line")
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge, compare, or run a benchmark."""
    source = source_of(args)
    if args.compare:
        return _compare(args)
    if args.benchmark:
        from hftrainer.commands.evaluate_benchmark import run_benchmark

        return run_benchmark(args, source)
    if not args.data:
        raise ValueError("give the real clips: --data FOLDER (or use --compare A B, or --benchmark NAME)")
    if (source is None) == (args.predictions is None):
        raise ValueError("give either --predictions FOLDER or --model NAME")
    from hftrainer.apps.evaluate import evaluate

    report = evaluate(
        source or args.predictions, args.data, protocol=args.protocol, evaluator=args.evaluator,
        overrides=args.overrides, split=args.split, texts=args.texts, limit=args.limit, out=args.out,
        settings=settings_of(args), any_rate=args.any_rate, any_values=args.any_values, device=device_of(args),
        cache_dir=args.cache, progress=progress(), progress_of_motions=progress_lines("motions"), say=_say,
    )  # fmt: skip
    print(report)
    for name, reason in list(report.outcome.broken.items())[:10]:
        print(f"broken: {name}: {reason}", file=sys.stderr)
    if args.out is not None:
        print(f"\nwritten: {', '.join(str(path) for path in report.write(args.out, cases=args.cases))}")
    if args.wandb:
        from hftrainer.apps.log import log_report

        log_report(args.wandb, report)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from hftrainer.apps.compare import compare_runs

    check_out(args)
    found = compare_runs(*args.compare)
    print(found)
    if args.out is not None:
        found.write(args.out)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
