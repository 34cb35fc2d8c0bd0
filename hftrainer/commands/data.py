"""``hftrainer data VERB``: from motion capture files to a dataset that models train on."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from hftrainer.commands.common import add_dtype, progress, read_prompts
from hftrainer.commands.data_import import add_verbs as add_import_verbs
from hftrainer.commands.packing import add_verbs as add_packing_verbs

EPILOG = """example, from BVH files to tokens:
  hftrainer data check-import Bandai-Namco --skeleton bandai-namco
  hftrainer data import-motion Bandai-Namco --skeleton bandai-namco --out dataset/bandai
  hftrainer data captions dataset/bandai --templates bandai-namco --count 24
  hftrainer data split dataset/bandai --by set,content
  hftrainer data mirror dataset/bandai --split train --into train_aug
  hftrainer data join dataset/bandai --split train --into train_aug --count 4000
  hftrainer data captions dataset/bandai --templates bandai-namco --count 24
  hftrainer data stats dataset/bandai --split train --with-mirrored
  hftrainer data tokenize dataset/bandai --model runs/nano_tokenizer/best --split train_aug --split val
  hftrainer data verify dataset/bandai

example, motions in another representation:
  hftrainer data convert-representation outputs/ms272 --from motion272 --to hml263 --out outputs/hml263

example, published archives, packed for training at scale:
  hftrainer data import-tar split.tar.gz texts.tar.gz MotionGV/*.tar.gz --out dataset/MotionMillion
  hftrainer data pack-motions dataset/MotionMillion --split version1/tokenizer_96/train --out packed_motions
  hftrainer data pack-tokens dataset/MotionMillion --split version1/t2m_60_300/train --out packed

text features for a machine that the text encoder does not fit on:
  hftrainer data text-features --prompts prompts.txt --encoder google/flan-t5-xl --out features.safetensors"""

_TABLE = "included table (cmu-index, 100style, ...) or a .jsonl file; may be repeated"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)

    add_import_verbs(verbs)

    sub = _with_dataset(verbs, "captions", "write captions from labels by templates, or from a table of labels")
    how = sub.add_mutually_exclusive_group(required=True)
    how.add_argument("--templates", help="bandai-namco, or your templates.yaml")
    how.add_argument("--from", dest="tables", action="append", metavar="TABLE", help=_TABLE)
    sub.add_argument("--count", type=int, default=8, help="paraphrases per clip (default 8)")
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=captions)

    sub = _with_dataset(verbs, "split", "divide into train, val, test and all")
    sub.add_argument("--from", dest="tables", action="append", metavar="TABLE", help=f"take the splits of a {_TABLE}")
    sub.add_argument("--by", default="content", help="stratify by these labels, e.g. set,content")
    sub.add_argument("--val", type=float, default=0.04)
    sub.add_argument("--test", type=float, default=0.06)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=split)

    sub = _with_dataset(verbs, "mirror", "add mirror images, with left and right exchanged in their labels")
    _augmenting(sub)
    sub.set_defaults(run=mirror)

    sub = _with_dataset(verbs, "join", "add pairs of clips joined into one by a blended transition")
    _augmenting(sub)
    sub.add_argument("--count", type=int, default=1000)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=join)

    sub = _with_dataset(verbs, "stats", "write mean_std/ from a split")
    sub.add_argument("--split", default="train")
    sub.add_argument(
        "--per-dimension", action="store_true", help="do not average standard deviations over channel groups"
    )
    sub.add_argument("--with-mirrored", action="store_true", help="include the mirror image of every clip")
    sub.set_defaults(run=stats)

    sub = _with_dataset(verbs, "tokenize", "encode motions into tokens/ with a model's tokenizer")
    sub.add_argument("--model", required=True, help="a model folder or zoo name")
    sub.add_argument("--split", action="append", help="may be repeated; default: all motions")
    sub.add_argument("--out", default="tokens", help="folder inside the dataset (default tokens)")
    sub.add_argument("--one-phase", action="store_true", help="do not also encode each clip from its second frame")
    sub.add_argument("--device", default="cpu")
    sub.set_defaults(run=tokenize)

    summary = "precompute text features, to generate and train without the text encoder"
    sub = verbs.add_parser("text-features", help="encode captions into a file of text features", description=summary)
    sub.add_argument("dataset", type=Path, nargs="?", help="dataset folder; all of its captions are encoded")
    sub.add_argument("--split", action="append", help="of the dataset; may be repeated; default: all motions")
    sub.add_argument("--prompts", type=Path, help="a file with one prompt per line")
    sub.add_argument("--model", help="use this model's encoder: a folder, zoo name or owner/repository")
    sub.add_argument("--encoder", help="use this T5 encoder: a folder or owner/repository; e.g. google/flan-t5-xl")
    sub.add_argument("--config", help="use the encoder of a training configuration: its model.text_encoder")
    sub.add_argument("--out", type=Path, required=True, help="file, e.g. features.safetensors")
    add_dtype(sub, "as stored (default float32)", ["float32", "bfloat16"], default="float32")
    sub.add_argument("--batch-size", type=int, default=32)
    sub.add_argument("--size-only", action="store_true", help="print the size of the file, and stop")
    sub.add_argument("--device", default="cpu")
    sub.set_defaults(run=text_features)

    sub = _with_dataset(
        verbs, "verify", "check counts, NaN, lengths, captions, statistics, splits; or a packed dataset"
    )
    sub.add_argument("--sample", type=int, help="read at most this many motions, chosen at random")
    sub.set_defaults(run=verify)
    add_packing_verbs(verbs)

    sub = verbs.add_parser("convert-representation", help="convert a folder or dataset to another representation")
    sub.add_argument("source", help="a folder of *.npy, or a dataset, whose captions and splits are kept")
    sub.add_argument(
        "--from", dest="source_name", metavar="NAME", help="representation of the files; a dataset records it"
    )
    sub.add_argument("--to", dest="target_name", required=True, metavar="NAME", help="representation to write")
    sub.add_argument("--out", required=True, help="folder for the results and conversion.json")
    sub.add_argument("--fps", type=float, help="frame rate of source joints (default 30)")
    sub.add_argument("--layout", default="columns_interleaved", help="6D layout of motion135: this, or columns")
    sub.add_argument("--skeleton", help=".npy of (22, 3) vectors from parent to joint, to pose rotations with")
    sub.set_defaults(run=convert_representation)

    sub = verbs.add_parser("synthetic", help="generate a small procedural dataset for testing")
    sub.add_argument("--out", required=True)
    sub.add_argument("--clips", type=int, default=48)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=synthetic)


def captions(args: argparse.Namespace) -> int:
    """Write texts/ and labels.json; 1 if a clip has no labels."""
    from hftrainer.data.prepare.caption_table import load_table, write_table_captions
    from hftrainer.data.prepare.captions import load_templates, write_captions

    dataset = _open(args)
    if args.tables:
        tables = [load_table(table) for table in args.tables]
        for table in tables:
            if table.about.get("use") == "evaluation":
                print(f"{table.name}: for evaluation only; do not train on these captions", file=sys.stderr)
        written, left = write_table_captions(dataset, tables)
        print(f"{written} clips captioned, {len(left)} without sentences in the tables")
        return 0 if written else 1
    failed = write_captions(dataset, load_templates(args.templates), count=args.count, seed=args.seed)
    for name, reason in list(failed.items())[:20]:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    print(f"{len(dataset.names()) - len(failed)} clips captioned, {len(failed)} failed")
    return 1 if failed else 0


def split(args: argparse.Namespace) -> int:
    """Write split/."""
    from hftrainer.data.prepare.caption_table import load_table, split_from_tables
    from hftrainer.data.prepare.splits import split_dataset

    dataset = _open(args)
    if args.tables:
        parts = split_from_tables(dataset.names(), [load_table(table) for table in args.tables])
    else:
        keys = [key for key in args.by.split(",") if key]
        parts = split_dataset(dataset, keys, val=args.val, test=args.test, seed=args.seed)
    for name, members in parts.items():
        dataset.write_split(name, members)
        print(f"{name:10} {len(members)}")
    return 0


def mirror(args: argparse.Namespace) -> int:
    """Add mirror images."""
    from hftrainer.data.prepare.augment import mirror_split
    from hftrainer.data.prepare.captions import load_templates

    dataset = _open(args)
    made, without = mirror_split(
        dataset, load_templates(args.templates), args.split, args.into, progress=progress("mirror")
    )
    for reason, count in Counter(without.values()).items():
        print(f"{count} clips are not mirrored: {reason}", file=sys.stderr)
    uncaptioned = sum(not dataset.captions(name) for name in made)
    captions = f"; {uncaptioned} have no captions yet" if uncaptioned else ""
    print(f"{len(made)} mirrored clips added to {args.into}{captions}")
    return 0 if made else 1


def join(args: argparse.Namespace) -> int:
    """Add joined clips."""
    from hftrainer.data.prepare.augment import JoinConfig, join_split
    from hftrainer.data.prepare.captions import load_templates

    config = JoinConfig(count=args.count, seed=args.seed)
    made = join_split(
        _open(args), load_templates(args.templates), args.split, args.into, config, progress=progress("join")
    )
    print(f"{len(made)} joined clips added to {args.into}; now write their captions")
    return 0


def stats(args: argparse.Namespace) -> int:
    """Write mean_std/."""
    from hftrainer.data.prepare.statistics import write_statistics

    clips = write_statistics(_open(args), args.split, grouped=not args.per_dimension, with_mirrored=args.with_mirrored)
    print(f"mean_std/ from {clips} clips of {args.split}")
    return 0


def tokenize(args: argparse.Namespace) -> int:
    """Write tokens/."""
    from hftrainer.data.tokens.folder import tokenize as write_tokens
    from hftrainer.zoo.load import load_tokenizer

    dataset = _open(args)
    tokenizer = load_tokenizer(args.model, device=args.device)
    if tokenizer.representation != dataset.representation:
        raise ValueError(
            f"{dataset.root} holds {dataset.representation}, but the tokenizer of {args.model} expects "
            f"{tokenizer.representation}; convert the dataset: hftrainer data convert-representation"
        )
    names = list(dict.fromkeys(n for s in args.split for n in dataset.names(s))) if args.split else dataset.names()
    entries = write_tokens(
        dataset, names, dataset.root / args.out, tokenizer.encode,
        tokenizer_sha256=tokenizer.sha256, codebook_size=tokenizer.codebook_size,
        frames_per_code=tokenizer.frames_per_code, both_phases=not args.one_phase, progress=progress("tokenize"),
    )  # fmt: skip
    print(f"{entries} entries of {len(names)} clips -> {dataset.root / args.out}")
    return 0


def text_features(args: argparse.Namespace) -> int:
    """Write a file of features."""
    from hftrainer.models.text_features import estimate_text_features, write_text_features

    texts = _texts(args)
    encoder = _encoder(args)
    size = estimate_text_features(texts, encoder, dtype=args.dtype)
    print(size.line(args.out))
    if args.size_only:
        return 0
    size.check_room(args.out)
    count = write_text_features(
        args.out,
        texts,
        encoder.to(args.device),
        dtype=args.dtype,
        batch_size=args.batch_size,
        progress=progress("encode"),
    )
    print(f"features of {count} texts by {encoder.name} -> {args.out}")
    return 0


def _encoder(args: argparse.Namespace) -> Any:
    from hftrainer.registry import TEXT_ENCODERS

    if sum(given is not None for given in (args.model, args.encoder, args.config)) != 1:
        raise ValueError("give the encoder: one of --model MODEL, --config FILE, or --encoder FOLDER (a T5)")
    if args.encoder is not None:
        return TEXT_ENCODERS.build({"name": "t5", "source": args.encoder}, on_demand=True)
    if args.config is not None:
        from hftrainer.config import load_experiment

        section = load_experiment(args.config).model.get("text_encoder")
        if section is None:
            raise ValueError(f"{args.config} has no model.text_encoder")
        return TEXT_ENCODERS.build(section, path="model.text_encoder", on_demand=True)
    from hftrainer.zoo.load import load_pipeline

    encoder = load_pipeline(args.model, load_ar=False).bundle.text_encoder
    if encoder is None:
        raise ValueError(f"{args.model} has no text encoder; name one with --config or --encoder")
    return encoder


def verify(args: argparse.Namespace) -> int:
    """Report; 1 if something is wrong."""
    from hftrainer.apps.pack import verify_packed
    from hftrainer.data.prepare.verify import verify as check

    packed = verify_packed(args.dataset, progress=progress("verify"))
    if packed is not None:
        facts, problems = packed
        print("\n".join([*facts, *(f"WRONG: {problem}" for problem in problems)]))
        print("ok" if not problems else f"{len(problems)} problems")
        return 1 if problems else 0
    report = check(_open(args), sample=args.sample, progress=progress("verify"))
    for line in report.lines():
        print(line)
    return 0 if report.good else 1


def convert_representation(args: argparse.Namespace) -> int:
    """Convert; 1 if a file failed."""
    from hftrainer.data.prepare.convert_dataset import convert_dataset, is_dataset
    from hftrainer.data.prepare.representation import convert_folder

    options = {"layout": args.layout, "skeleton": args.skeleton, "progress": progress("convert")}
    if is_dataset(args.source):
        report = convert_dataset(args.source, args.out, args.target_name, source_name=args.source_name, **options)
    elif args.source_name is None:
        raise ValueError(f"give the representation of {args.source} with --from; only datasets record it")
    else:
        report = convert_folder(args.source, args.out, args.source_name, args.target_name, fps=args.fps, **options)
    for reason in report.failed.values():
        print(f"failed: {reason}", file=sys.stderr)
    print(f"{len(report.made)} converted, {len(report.kept)} kept, {len(report.failed)} failed -> {args.out}")
    return 1 if report.failed else 0


def synthetic(args: argparse.Namespace) -> int:
    """Write a procedural dataset."""
    from hftrainer.data.synthetic.motions import write_dataset

    write_dataset(args.out, clips=args.clips, seed=args.seed)
    print(f"{args.clips} clips -> {args.out}")
    return 0


def _texts(args: argparse.Namespace) -> list[str]:
    """Prompts of a file, and captions of a dataset."""
    if args.prompts is None and args.dataset is None:
        raise ValueError("nothing to encode; give --prompts FILE or a dataset")
    texts = read_prompts([], args.prompts) if args.prompts is not None else []
    if args.dataset is not None:
        dataset = _open(args)
        for name in dict.fromkeys(n for split in args.split or [None] for n in dataset.names(split)):
            texts += [caption.text for caption in dataset.captions(name)]
    return texts


def _with_dataset(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    sub.add_argument("dataset", type=Path, help="dataset folder")
    return sub


def _augmenting(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--split", default="train", help="source clips (default train)")
    sub.add_argument("--into", default="train_aug", help="split that gets them and the originals (default train_aug)")
    sub.add_argument("--templates", default="bandai-namco", help="caption templates; they define what may be mirrored")


def _open(args: argparse.Namespace) -> Any:
    from hftrainer.data.folder import DatasetFolder

    return DatasetFolder(args.dataset)
