"""``hftrainer evaluate run``: predictions, or a model to make them, judged by a protocol; and two such compared."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrainer.commands.evaluate_generate import add_model_arguments

BENCHMARKS = ("motionmillion-eval",)
PREDICTIONS = "predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--protocol", default="hftrainer-v1", help="name or YAML file (default hftrainer-v1)")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
        help="change the protocol, e.g. missing=failure; may be given again",
    )  # fmt: skip
    parser.add_argument("--data", help="data set folder with the real clips")
    parser.add_argument("--split", help="of the data set; default: the protocol's")
    parser.add_argument("--texts", help="folder with other captions, <name>.txt, e.g. corrected ones")
    parser.add_argument("--evaluator", help="zoo name, folder, or owner/repository")
    parser.add_argument(
        "--predictions", nargs="+", metavar="FOLDER",
        help="folder of <name>.npy; further ones are further generations of the same captions (multimodality)",
    )  # fmt: skip
    parser.add_argument("--any-rate", action="store_true", help="lengths that look like another frame rate are meant")
    parser.add_argument("--out", "-o", type=Path, help="folder for the report and, with --model, motions")
    parser.add_argument("--limit", type=int, default=0, help="the first so many clips of the split alone")
    parser.add_argument("--cases", type=int, default=8, help="worst, and best, retrievals on the page (default 8)")
    parser.add_argument("--cache", type=Path, help="folder where embeddings are kept from run to run")
    parser.add_argument("--wandb", metavar="PROJECT", help="log the figures there too")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="folders of two earlier runs")
    parser.add_argument("--benchmark", choices=BENCHMARKS, help="prompts without real clips: gallery and physics")
    parser.add_argument("--prompts", type=Path, help="the benchmark's file, one prompt a line")
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge, compare, or run a benchmark."""
    if args.compare:
        return _compare(args)
    if args.benchmark:
        from hftrainer.commands.evaluate_benchmark import run_benchmark

        return run_benchmark(args)
    if not args.data:
        raise ValueError("say what is judged against: --data FOLDER (or --compare A B, or --benchmark NAME)")
    if bool(args.predictions) == bool(args.model or args.fsq):
        raise ValueError("give --predictions FOLDER, or --model NAME to make them, and not both")
    if (args.model or args.fsq) and args.out is None:
        raise ValueError("--model needs --out, where its motions are kept")
    return _judge(args)


def _judge(args: argparse.Namespace) -> int:
    from hftrainer.commands.judging import open_dataset
    from hftrainer.evaluation.protocols import load_protocol
    from hftrainer.evaluation.protocols.run import evaluate
    from hftrainer.evaluation.report import terminal
    from hftrainer.files import check_writable
    from hftrainer.zoo.load import load_evaluator

    started = time.perf_counter()
    protocol = _protocol(args, load_protocol)
    if args.out is not None:
        check_writable(args.out)
    options: dict[str, Any] = {"device": _device(args)}
    if args.cache is not None:
        if protocol.evaluator != "motionstreamer272":
            raise ValueError(f"--cache is of motionstreamer272 evaluators; {protocol.name} has a {protocol.evaluator}")
        options["cache_dir"] = args.cache
    if args.evaluator is None:
        raise ValueError(f"{protocol.name} is judged by a {protocol.evaluator} evaluator: --evaluator NAME or FOLDER")
    evaluator = load_evaluator(args.evaluator, protocol.evaluator, **options)
    clips = open_dataset(args.data, args.split or protocol.ids.split, protocol, texts=args.texts)
    if args.limit:
        clips.ids = list(clips.ids)[: args.limit]
    folders = args.predictions or [_generate(args, protocol, clips)]
    about = _attach(args, protocol, clips, folders)
    report = evaluate(protocol, clips, evaluator, progress=_bar)
    tables = _physical(protocol, clips, report)
    result = {
        **report.as_dict(),
        "evaluator": {"name": str(args.evaluator), "identity": _identity(evaluator, args.evaluator)},
        "data": {"folder": str(args.data), "split": args.split or protocol.ids.split, "texts": args.texts},
        "predictions": about,
        "physical": {row: table.summary() for row, table in tables.items()},
        "seconds": round(time.perf_counter() - started, 2),
        "versions": _versions(),
    }
    print(terminal(result))
    for name, reason in list(report.broken.items())[:10]:
        print(f"broken: {name}: {reason}", file=sys.stderr)
    if args.out is not None:
        _write(args, protocol, clips, report, tables, result)
    if args.wandb:
        _log(args.wandb, result)
    return 0


def _protocol(args: argparse.Namespace, load: Callable[..., Any]) -> Any:
    """The protocol, with a split of one's own as one of its overrides."""
    wrong = [text for text in args.overrides if "=" not in text]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no change of the protocol; write field=value, e.g. missing=failure")
    protocol = load(args.protocol, args.overrides)
    if args.split and args.split != protocol.ids.split:
        protocol = load(args.protocol, [*args.overrides, f"ids.split={args.split}"])
    return protocol


def _attach(args: argparse.Namespace, protocol: Any, clips: Any, folders: list[Any]) -> dict[str, Any]:
    """Give the clips their predictions, after a look at the folders; what is known of them."""
    from hftrainer.commands.judging import one_caption_a_clip
    from hftrainer.evaluation.predictions import Predictions
    from hftrainer.evaluation.protocols.plan import entries

    first = Predictions(folders[0], protocol.representation)
    kept = entries(protocol, clips.ids, clips.captions, clips.frames).kept
    clips.by_key = not one_caption_a_clip(protocol) and any(first.path(e.key).is_file() for e in kept if e.key != e.id)
    if not args.any_rate:
        wanted = {e.key: e.end - e.start for e in kept} if clips.by_key else {e.id: clips.frames[e.id] for e in kept}
        first.check_rate(wanted, protocol.fps)
    clips.predicted = first
    others = [Predictions(folder, protocol.representation) for folder in folders[1:]]
    names = {clips.named(entry) for entry in kept}
    numbers = range(1, first.generations(names))
    others += [Predictions(folders[0], protocol.representation, f"_{number}") for number in numbers]
    clips.others = others
    there = [name for name in names if first.path(name).is_file()]
    if not there:
        raise ValueError(
            f"{first.root} holds {len(first.files())} motions, none of which is called like a clip of the split "
            f"({next(iter(sorted(names)), '')}.npy, ...)"
        )
    manifest = first.manifest()
    kept_facts = (
        "model", "model_hash", "captions", "captions_hash", "sampling", "dtype", "seed", "padded_clips", "padded_frames"
    )  # fmt: skip
    facts = {key: manifest[key] for key in kept_facts if key in manifest}
    return {"name": str(facts.get("model", first.root)), "folders": [str(f) for f in folders], **facts}


def _generate(args: argparse.Namespace, protocol: Any, clips: Any) -> Path:
    """Make what the protocol judges in the run's own folder; what is there already stays."""
    from hftrainer.commands.evaluate_generate import describe_generation, run_shards
    from hftrainer.commands.judging import protocol_pairs
    from hftrainer.data.text_motion.evaluation import captions_hash
    from hftrainer.pipelines.exact_length import make_orders, prepare

    out = args.out / PREDICTIONS
    pairs = protocol_pairs(protocol, clips)
    about = {"captions": f"{args.texts or args.data} by {protocol.name}", "captions_hash": captions_hash(pairs)}
    generation = describe_generation(args, {**about, "seed": args.seed})
    prepare(out, generation)
    given = argparse.Namespace(**{**vars(args), "out": out})
    status = run_shards(given, generation, make_orders(pairs, args.seed), [0], 1)
    if status and protocol.missing == "error":
        raise ValueError("not every motion could be made; judge the others with missing=drop or missing=failure")
    return Path(out)


def _physical(protocol: Any, clips: Any, report: Any) -> dict[str, Any]:
    """Tables of the real clips and of their predictions, by item."""
    from hftrainer.evaluation.physical_table import physical_table

    judged = report.judged
    good = set() if judged.predicted is None else {
        clips.named(item) for item, row in zip(judged.items, judged.predicted, strict=True) if row[0] == row[0]
    }  # fmt: skip
    names = [clips.named(item) for item in judged.items]
    return {
        "real": physical_table([item.id for item in judged.items], clips.real, protocol.representation, progress=_bar),
        "predicted": physical_table(
            names, lambda name: clips.predicted(name) if name in good else None, protocol.representation, progress=_bar
        ),
    }


def _write(args: argparse.Namespace, protocol: Any, clips: Any, report: Any, tables: Any, result: Any) -> None:
    """report.json, report.md, judged.npz, report.html."""
    from hftrainer.evaluation.compare import JUDGED, RESULT, read_run, write_items
    from hftrainer.evaluation.page import write_page
    from hftrainer.evaluation.report import markdown
    from hftrainer.files import write_json, write_text

    write_items(args.out, report, tables["real"].published, tables["predicted"].published)
    write_json(args.out / RESULT, result)
    write_text(args.out / "report.md", markdown(result))
    items = report.judged.items

    def real(row: int) -> Any:
        item = items[row]
        return clips.real(item.id)[item.start : item.start + item.frames]

    def predicted(row: int) -> Any:
        return clips.predicted(clips.named(items[row]))

    write_page(args.out / "report.html", result, read_run(args.out).items, real, predicted, count=args.cases)
    print(f"\nwritten: {args.out}/report.html, report.md, {RESULT}, {JUDGED}")


def _compare(args: argparse.Namespace) -> int:
    from hftrainer.evaluation.compare import as_dicts, compare, difference_table, read_run
    from hftrainer.evaluation.report import aligned, pipe_table
    from hftrainer.files import check_writable, write_json, write_text

    a, b = (read_run(folder) for folder in args.compare)
    differences = compare(a, b)
    names = (a.name, b.name) if a.name != b.name else (str(a.folder), str(b.folder))
    table = difference_table(differences, *names)
    left_out = [len(run.items["keys"]) - differences[0].n for run in (a, b)]
    print(f"{names[1]} against {names[0]}, {differences[0].n} items of {a.result['protocol']['name']}, item by item")
    if any(left_out):
        print(f"left out, because the other run has none of them: {left_out[0]} and {left_out[1]}")
    print(f"\n{aligned(table)}")
    if args.out is not None:
        check_writable(args.out)
        write_json(args.out / "comparison.json", {"a": names[0], "b": names[1], "differences": as_dicts(differences)})
        write_text(args.out / "comparison.md", f"# {names[1]} against {names[0]}\n\n{pipe_table(table)}\n")
    return 0


def _log(project: str, result: dict[str, Any]) -> None:
    """One W&B run with every figure in its summary."""
    from hftrainer.evaluation.report import flat
    from hftrainer.extras import need

    wandb: Any = need("wandb", "logging to Weights & Biases")
    name = f"{result['predictions']['name']} {result['protocol']['name']}"
    config = {key: result[key] for key in ("protocol", "evaluator", "data", "predictions")}
    with wandb.init(project=project, name=name, job_type="evaluation", config=config) as run_:
        run_.summary.update(flat(result))


def _identity(evaluator: Any, name: Any) -> str:
    """What decides embeddings: weights and statistics, or for evaluators that do not say, their folder."""
    if hasattr(evaluator, "identity"):
        return str(evaluator.identity())
    from hftrainer.hub import find_model
    from hftrainer.manifest import fingerprint

    return fingerprint(find_model(name))


def _device(args: argparse.Namespace) -> str:
    if args.device:
        return str(args.device)
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from hftrainer.version import __version__

    return {"hftrainer": __version__, "torch": torch.__version__, "numpy": numpy.__version__}


def _bar(items: Any) -> Any:
    from tqdm import tqdm

    return tqdm(items, disable=not sys.stderr.isatty())
