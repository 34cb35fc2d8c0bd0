"""``hftrainer evaluate generate``: motions of exactly the real lengths, sharded, resumable, checked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hftrainer.commands.common import as_flags, progress_lines
from hftrainer.commands.evaluate_flags import add_model_arguments, settings_of, source_of

_CORRECTED = "outputs/evaluation/t2m/humanml3d_official_test/captions/humanml3d_official_corrected"
ANNOTATION = f"{_CORRECTED}/test_hml3d_official272_gtlen_official_caption.json"
_OF_THIS_PROCESS = ("overwrite", "workers", "num_shards", "shard_base", "shard_index", "logs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("--out", "-o", type=Path, required=True, help="folder for <name>.npy")
    add_model_arguments(parser)
    sources = "annotation: a file with one caption per clip (default); official_split: a dataset's first captions; "
    choices = ["annotation", "official_split", "evaluator"]
    add("--pair-source", default=choices[0], choices=choices, help=f"{sources}evaluator: all that a protocol evaluates")
    add("--anno", default=ANNOTATION, help="annotation file (default: that of the corrected captions)")
    add("--anno-data-dir", default=".", help="folder that its caption files are relative to (default .)")
    add("--data", default="dataset/HumanML3D_272", help="dataset folder, for the two other sources")
    add("--split", default="test")
    add("--texts", help="official_split: a folder of corrected captions, one per clip")
    add("--protocol", default="hml3d-272-allcaptions", help="evaluator: the protocol")
    add("--skip-unusable", action="store_true", help="skip entries without caption or length")
    add("--limit", type=int, default=0, help="only the first N, before sharding")
    add("--generations", type=int, default=1, help="several per clip, for multimodality")
    add("--generations-of", type=int, metavar="N", help="only for the first N clips")
    add("--overwrite", action="store_true", help="replace motions that were generated with other settings")
    shards = parser.add_argument_group("processes (torchrun and SLURM arrays are recognised)")
    shards.add_argument(
        "--workers", type=int, default=1, help="processes on this machine: GPUs, or CPU processes with --device cpu"
    )
    shards.add_argument("--num-shards", type=int, help="parts of the set (default: one per worker)")
    shards.add_argument(
        "--shard-base", type=int, help="run shards from this number on, one per worker; others run elsewhere"
    )
    shards.add_argument("--shard-index", help="run these shards (comma-separated) in this process")
    shards.add_argument("--logs", type=Path, help="folder for the workers' logs (default: _logs next to OUT)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generate a shard, or start a process for each; 0 only if everything asked for is there."""
    from hftrainer.apps.generate_set import SetJob, Source, make_shards
    from hftrainer.apps.launch import shard_from_environment
    from hftrainer.apps.pairs import PairSource, read_pairs
    from hftrainer.apps.shards import report_lines, run_shards

    mine = shard_from_environment() if args.shard_index is None else None
    if mine is not None and (args.num_shards or args.shard_base is not None):
        raise ValueError("torchrun or a SLURM array sets the shards; remove --num-shards and --shard-base")
    asked = PairSource(
        args.pair_source, args.anno, args.anno_data_dir, args.data, args.split, args.texts, args.protocol, args.limit,
        args.skip_unusable,
    )  # fmt: skip
    source = source_of(args) or Source()
    pairs = read_pairs(asked, made=source.representation, say=_say)
    job = SetJob(
        source, args.out, pairs, settings_of(args), args.generations, args.generations_of, asked.about()
    )  # fmt: skip
    job.claim(overwrite=args.overwrite)
    bar = progress_lines("motions")
    if args.shard_index is not None:
        numbers = [int(number) for number in args.shard_index.split(",")]
        result = make_shards(job, numbers, args.num_shards or 1, say=_say, progress=bar)
        print("\n".join(report_lines(result)), file=sys.stderr)
        return 1 if result.failed else 0
    if mine is not None:  # this process and others like it, which nobody here waits for; each with its own workers
        args.num_shards, args.shard_base = mine[1] * args.workers, mine[0] * args.workers
    flags = as_flags(args, without=_OF_THIS_PROCESS)
    result = run_shards(
        job,
        lambda part, total: [*flags, f"--num-shards={total}", f"--shard-index={','.join(map(str, part))}"],
        workers=args.workers, total=args.num_shards, base=args.shard_base, logs=args.logs, say=_say, progress=bar,
    )  # fmt: skip
    print("\n".join(report_lines(result)), file=sys.stderr if result.status else sys.stdout)
    return 0 if mine is not None and not result.failed else result.status


def _say(line: str) -> None:
    print(line, flush=True)
