"""``hftrainer evaluate generate``: motions of exactly the real lengths, sharded, resumable, checked."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INCOMPLETE = 3  # exit status: this part is done, the set is not
_CORRECTED = "outputs/evaluation/t2m/humanml3d_official_test/captions/humanml3d_official_corrected"
ANNOTATION = f"{_CORRECTED}/test_hml3d_official272_gtlen_official_caption.json"
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_SECONDS_BETWEEN_LINES = 30

# what workers are told as it was given; what shard they take is added
_FORWARDED = (
    "model", "fsq", "ar", "text_model", "mean", "std", "out", "pair_source", "anno", "anno_data_dir", "data", "split",
    "texts", "protocol", "limit", "steps", "dtype", "device", "seed", "batch_size", "generations", "generations_of",
    "temperature", "top_k", "top_p",
)  # fmt: skip
_FORWARDED_FLAGS = ("greedy", "skip_unusable", "free_text_encoder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--out", "-o", type=Path, required=True, help="folder for <name>.npy")
    add_model_arguments(parser)
    parser.add_argument(
        "--pair-source", default="annotation", choices=["annotation", "official_split", "evaluator"],
        help="annotation: a file with one caption a clip (default); official_split: a data set's first captions; "
        "evaluator: every pair that a protocol judges",
    )  # fmt: skip
    parser.add_argument("--anno", default=ANNOTATION, help="annotation file (default: that of the corrected captions)")
    parser.add_argument("--anno-data-dir", default=".", help="what its caption files are relative to (default .)")
    parser.add_argument("--data", default="dataset/HumanML3D_272", help="data set folder, for the two other sources")
    parser.add_argument("--split", default="test")
    parser.add_argument("--texts", help="official_split: a folder of corrected captions, one a clip")
    parser.add_argument("--protocol", default="hml3d-272-allcaptions", help="evaluator: the protocol")
    parser.add_argument("--skip-unusable", action="store_true", help="leave out entries without caption or length")
    parser.add_argument("--limit", type=int, default=0, help="the first so many alone, before sharding")
    parser.add_argument("--generations", type=int, default=1, help="several of a clip, for multimodality")
    parser.add_argument("--generations-of", type=int, metavar="N", help="of the first N clips alone")
    parser.add_argument("--overwrite", action="store_true", help="replace motions that were made otherwise")
    shards = parser.add_argument_group("processes (torchrun and SLURM arrays are recognised)")
    shards.add_argument("--workers", type=int, default=1, help="processes here: GPUs, or processes with --device cpu")
    shards.add_argument("--num-shards", type=int, help="parts of the set (default: one for each worker)")
    shards.add_argument("--shard-base", type=int, help="run shards from here on, one a worker; others run elsewhere")
    shards.add_argument("--shard-index", help="run these shards (numbers and commas) in this process")
    shards.add_argument("--logs", type=Path, help="folder for the workers' logs (default: _logs beside OUT)")
    parser.set_defaults(run=run)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What generates, and how."""
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="zoo name, artifact folder, or owner/repository")
    model.add_argument("--fsq", help="released tokenizer file, instead of --model")
    model.add_argument("--ar", help="released transformer file, with --fsq")
    model.add_argument("--text-model", help="T5 folder or name, with --fsq")
    model.add_argument("--mean", help="statistics of the released files, with --fsq")
    model.add_argument("--std", help="see --mean")
    model.add_argument("--steps", type=int, default=150, help="codes at most (default 150: 300 frames)")
    model.add_argument("--dtype", choices=sorted(_DTYPES), help="of the transformer; default: as stored")
    model.add_argument("--device", help="default: cuda if there is one, else cpu")
    model.add_argument("--batch-size", type=int, help="rows (default: as many as pay and fit)")
    model.add_argument("--free-text-encoder", action="store_true", help="no room for it beside the transformer")
    model.add_argument("--seed", type=int, default=0, help="of sampling; a caption that comes again counts up")
    model.add_argument("--greedy", action="store_true", help="no sampling; default: the model's own settings")
    model.add_argument("--temperature", type=float)
    model.add_argument("--top-k", type=int)
    model.add_argument("--top-p", type=float)


def run(args: argparse.Namespace) -> int:
    """Generate a shard, or start a process for each; 0 only if everything asked for is there."""
    from hftrainer.commands.launch import shard_from_environment
    from hftrainer.data.text_motion.evaluation import captions_hash
    from hftrainer.files import check_writable
    from hftrainer.pipelines.exact_length import make_orders, prepare

    mine = shard_from_environment() if args.shard_index is None else None
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    if mine is not None and (args.num_shards or args.shard_base is not None):
        raise ValueError("torchrun or a SLURM array gives the shards; leave out --num-shards and --shard-base")
    pairs = read_pairs(args)
    orders = make_orders(pairs, args.seed, generations=args.generations, of_first=args.generations_of)
    source = {"annotation": args.anno, "official_split": args.texts or args.data, "evaluator": args.protocol}
    about = {
        "pair_source": args.pair_source,
        "captions": str(source[args.pair_source]),
        "captions_hash": captions_hash(pairs),
        "seed": args.seed,
    }
    generation = describe_generation(args, about)
    check_writable(args.out)
    prepare(args.out, generation, overwrite=args.overwrite)
    if args.shard_index is not None:
        numbers = [int(number) for number in args.shard_index.split(",")]
        return run_shards(args, generation, orders, numbers, args.num_shards or 1)
    if mine is not None:
        # this process and others like it, which nobody here waits for; each may have several workers of its own
        args.num_shards, args.shard_base = mine[1] * args.workers, mine[0] * args.workers
        status = _launch(args, generation, orders)
        return 0 if status == INCOMPLETE else status
    return _launch(args, generation, orders)


def read_pairs(args: argparse.Namespace) -> list[Any]:
    """(name, caption, frames) of the chosen source, cut to --limit."""
    from hftrainer.data.text_motion.evaluation import annotation_pairs, official_pairs

    if args.pair_source == "annotation":
        pairs = annotation_pairs(args.anno, root=args.anno_data_dir, skip_unusable=args.skip_unusable)
    elif args.pair_source == "official_split":
        pairs = official_pairs(args.data, args.split, texts=args.texts, skip_unusable=args.skip_unusable)
        if args.texts is None:
            print(f"captions: the first raw one of each clip of {args.data}; several are known not to fit their clip")
    else:
        from hftrainer.commands.judging import open_dataset, protocol_pairs
        from hftrainer.evaluation.protocols import load_protocol

        protocol = load_protocol(args.protocol)
        pairs = protocol_pairs(protocol, open_dataset(args.data, args.split, protocol))
    return pairs[: args.limit] if args.limit else pairs


# --- this process -----------------------------------------------------------------------------------------------------


def run_shards(
    args: argparse.Namespace, generation: Any, orders: list[Any], numbers: list[int], total: int, pipeline: Any = None
) -> int:
    """Make these shards one after another with one loaded model; 1 if a motion failed."""
    from hftrainer.pipelines.exact_length import finished, generate, shard_of, write_manifest

    wanted = [order for number in numbers for order in shard_of(orders, number, total)]
    todo = len(wanted) - len(finished(args.out, generation, wanted))
    print(f"shards {','.join(map(str, numbers))} of {total}: {len(wanted)} motions, {todo} to make", flush=True)
    failed: dict[str, str] = {}
    if todo:
        pipeline = pipeline or load(args)
        label = f"{numbers[0]}of{total}"
        failed = generate(
            pipeline, generation, wanted, args.out, batch_size=args.batch_size, progress=progress, label=label
        )
    manifest = write_manifest(args.out, generation, orders)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    print(
        f"{manifest['made']} of {manifest['wanted']} motions are in {args.out}; {manifest['padded_clips']} were "
        f"shorter than asked for and are at rest for {manifest['padded_frames']} frames in all",
        flush=True,
    )
    return 1 if failed else 0


def describe_generation(args: argparse.Namespace, about: dict[str, Any]) -> Any:
    """Model, its hash, and settings, without loading weights."""
    from hftrainer.pipelines.exact_length import Generation

    name, digest, folder = identify(args)
    return Generation(
        model=name, model_hash=digest, sampling=sampling_of(args, folder), max_sample_steps=args.steps,
        dtype=args.dtype or "as stored", about=about,
    )  # fmt: skip


def identify(args: argparse.Namespace) -> tuple[str, str, Path | None]:
    """Name and hash of what generates, and its folder if it is an artifact."""
    from hftrainer.manifest import fingerprint

    if args.model and args.fsq:
        raise ValueError("give --model or --fsq, not both")
    if args.model:
        from hftrainer.zoo.load import locate

        folder, _ = locate(args.model)
        return str(args.model), fingerprint(folder), folder
    if not (args.fsq and args.ar):
        raise ValueError("say what generates: --model NAME, or --fsq FILE --ar FILE for released files")
    from hftrainer.files import sha256

    for path in (args.fsq, args.ar):
        if not Path(path).is_file():
            raise ValueError(f"there is no file {path!r}")
    digest = f"sha256 of files:{sha256(args.fsq)[:32]},{sha256(args.ar)[:32]}"
    return f"{args.fsq} {args.ar}", digest, None


def sampling_of(args: argparse.Namespace, folder: Path | None) -> Any:
    """The model's own sampling, changed by what was given."""
    from hftrainer.pipelines.motionmillion import read_sampling
    from hftrainer.requests import SamplingParams

    own = read_sampling(folder) if folder is not None else SamplingParams()
    given = {key: getattr(args, key) for key in ("temperature", "top_k", "top_p") if getattr(args, key) is not None}
    if args.greedy and given:
        raise ValueError(f"--greedy does not sample; leave out {', '.join(given)}")
    if args.greedy:
        own = dataclasses.replace(own, do_sample=False)
    elif given:
        own = dataclasses.replace(own, do_sample=True, **given)
    if getattr(args, "generations", 1) > 1 and not own.do_sample:
        raise ValueError(f"{args.generations} greedy motions of a caption would all be the same; give --temperature")
    return own


def load(args: argparse.Namespace) -> Any:
    """The pipeline."""
    import os

    import torch

    local = os.environ.get("LOCAL_RANK")
    best = f"cuda:{local}" if local is not None else "cuda"
    device = args.device or (best if torch.cuda.is_available() else "cpu")
    dtype = _DTYPES[args.dtype] if args.dtype else None
    if args.model:
        from hftrainer.zoo.load import load_pipeline

        return load_pipeline(args.model, device=device, dtype=dtype, free_text_encoder=args.free_text_encoder)
    from hftrainer.models.motion.motionmillion import MotionMillionBundle
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline

    bundle = MotionMillionBundle(
        args.fsq, args.ar, args.text_model, mean_path=args.mean, std_path=args.std, device=device,
        dtype=getattr(torch, dtype) if dtype else None,
    )  # fmt: skip
    return MotionMillionPipeline(bundle, free_text_encoder=args.free_text_encoder)


def progress(items: Any) -> Iterator[Any]:
    """A bar on a terminal; in a log, a line now and then."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc="motions")
        return
    start = said = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= _SECONDS_BETWEEN_LINES:
            said = now
            print(f"{number} of {len(items)} motions, {(now - start) / number:.2f} s each", flush=True)


# --- several processes ------------------------------------------------------------------------------------------------


def _launch(args: argparse.Namespace, generation: Any, orders: list[Any]) -> int:
    """Start the workers, then look whether everything is there."""
    from hftrainer.commands.launch import parts, run_workers, visible_devices
    from hftrainer.pipelines.exact_length import write_manifest

    total = args.num_shards or args.workers
    if args.shard_base is None:
        here = list(range(total))
    else:
        here = list(range(args.shard_base, min(total, args.shard_base + args.workers)))
        if not here:
            raise ValueError(f"--shard-base {args.shard_base}: there are {total} shards, numbered from 0")
    if args.workers == 1:
        status = run_shards(args, generation, orders, here, total)
    else:
        shares = parts(here, args.workers)
        places = visible_devices(len(shares), _device(args))
        logs = args.logs or args.out.parent / "_logs"
        commands = [[*_forwarded(args), f"--num-shards={total}", f"--shard-index={_listed(share)}"] for share in shares]
        files = [logs / f"{args.out.name}_s{share[0]}of{total}.log" for share in shares]
        print(f"{len(orders)} motions in {total} shards by {len(shares)} processes; logs are in {logs}", flush=True)
        status = 1 if any(run_workers(commands, places, files)) else 0
        write_manifest(args.out, generation, orders)
    return status or _complete(args, generation, orders, here, total)


def _complete(args: argparse.Namespace, generation: Any, orders: list[Any], here: list[int], total: int) -> int:
    from hftrainer.pipelines.exact_length import coverage, shard_of

    lacking = coverage(args.out, generation, orders)
    if not lacking:
        print(f"all {len(orders)} motions are in {args.out}")
        return 0
    ours = {order.name for number in here for order in shard_of(orders, number, total)}
    failed = {name: reason for name, reason in lacking.items() if name in ours}
    for name, reason in list(failed.items())[:10]:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(ours)} motions are not there; run the command again", file=sys.stderr)
        return 1
    others = sorted(set(range(total)) - set(here))
    print(
        f"shards {_listed(here)} are done; {len(lacking)} of {len(orders)} motions are still lacking, those of shards "
        f"{_listed(others)}: run them elsewhere with --shard-base, or all of them here without it",
        file=sys.stderr,
    )
    return INCOMPLETE


def _device(args: argparse.Namespace) -> str:
    if args.device:
        return "cpu" if args.device == "cpu" else "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _forwarded(args: argparse.Namespace) -> list[str]:
    out = ["evaluate", "generate"]
    for name in _FORWARDED:
        value = getattr(args, name)
        if value is not None:
            out.append(f"--{name.replace('_', '-')}={value}")
    return out + [f"--{name.replace('_', '-')}" for name in _FORWARDED_FLAGS if getattr(args, name)]


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))
