"""``hftrainer bench WHAT``."""

from __future__ import annotations

import argparse

EPILOG = """examples:
  hftrainer bench sample --size 44M --batch 1,32 --rounds 5 --json docs/results/bench_44M.json
  hftrainer bench sample --size gotozero-nano --codes 75
  hftrainer bench sample --size 111M --ragged 256 --no-uncached
  hftrainer bench evalset --size 44M --prompts 512
  hftrainer bench train --size 111M --batch 16
  hftrainer bench metrics --clips 4042 --json docs/results/bench_metrics.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    kinds = parser.add_subparsers(dest="what", metavar="what", required=True)
    sample = kinds.add_parser("sample", help="codes a second against an un-cached and a batch-1 cached sampler")
    sample.add_argument("--size", default="44M", help="a preset with random weights, or a model (default 44M)")
    sample.add_argument("--batch", default="1,32", help="batch sizes of ours (default 1,32)")
    sample.add_argument("--codes", type=int, default=150, help="codes a prompt (default 150)")
    sample.add_argument("--rounds", type=int, default=5, help="each way runs once a round (default 5)")
    sample.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    sample.add_argument("--device", default="cpu")
    sample.add_argument("--ragged", type=int, default=0, metavar="N", help="N prompts of unequal length, too")
    sample.add_argument("--engine", choices=["transformers"], help="measure this engine beside ours")
    sample.add_argument("--no-uncached", action="store_true", help="leave out the slowest way")
    sample.add_argument("--json", help="write the figures here")
    sample.set_defaults(run=run_sample)
    evalset = kinds.add_parser("evalset", help="many prompts of unequal length: rows refilled, or batches that wait")
    evalset.add_argument("--prompts", type=int, default=512)
    evalset.add_argument("--codes", type=int, default=100, help="on average (default 100)")
    _add_metrics(kinds)
    train = kinds.add_parser("train", help="an optimizer step of the transformer, ours and the released way")
    for kind, size, batch, run in ((evalset, "44M", 32, run_evalset), (train, "111M", 16, run_train)):
        kind.add_argument("--size", default=size, help=f"a preset with random weights, or a model (default {size})")
        kind.add_argument("--batch", type=int, default=batch, help=f"rows (default {batch})")
        kind.add_argument("--rounds", type=int, default=3, help="each way runs once a round (default 3)")
        kind.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
        kind.add_argument("--device", default="cpu")
        kind.add_argument("--json", help="write the figures here")
        kind.set_defaults(run=run)


def _add_metrics(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    metrics = kinds.add_parser("metrics", help="evaluation: the evaluator, metrics, FID, physics, 272 to 263")
    metrics.add_argument("--clips", type=int, default=4042, help="made clips of 40 to 300 frames (default 4042)")
    metrics.add_argument("--rounds", type=int, default=3, help="each part runs once a round (default 3)")
    metrics.add_argument("--device", default="cpu", help="of the evaluator")
    metrics.add_argument("--json", help="write the figures here")
    metrics.set_defaults(run=run_metrics)


def run_metrics(args: argparse.Namespace) -> int:
    """Measure what evaluation costs."""
    from hftrainer.bench.metrics import MetricsBench, run

    run(MetricsBench(args.clips, args.rounds, device=args.device), args.json)
    return 0


def run_sample(args: argparse.Namespace) -> int:
    """Measure sampling."""
    from hftrainer.bench.sample import SampleBench, run

    run(
        SampleBench(
            size=args.size,
            batches=tuple(int(rows) for rows in args.batch.split(",")),
            codes=args.codes,
            rounds=args.rounds,
            dtype=args.dtype,
            device=args.device,
            ragged=args.ragged,
            transformers=args.engine == "transformers",
            uncached=not args.no_uncached,
        ),
        args.json,
    )
    return 0


def run_train(args: argparse.Namespace) -> int:
    """Measure a training step."""
    from hftrainer.bench.train import TrainBench, run

    run(TrainBench(args.size, args.batch, args.rounds, args.dtype, args.device), args.json)
    return 0


def run_evalset(args: argparse.Namespace) -> int:
    """Measure many prompts."""
    from hftrainer.bench.evalset import EvalsetBench, run

    run(EvalsetBench(args.size, args.prompts, args.batch, args.codes, args.rounds, args.dtype, args.device), args.json)
    return 0
