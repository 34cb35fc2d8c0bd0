"""Verbs of ``hftrainer data`` for data at scale: packed sets and tar shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hftrainer.commands.common import add_dtype, progress


def add_verbs(verbs: Any) -> None:
    """Add the verbs to those of ``hftrainer data``."""
    summary = "pack captions and codes into a few memory-mapped files, for the dataset packed_tokens"
    sub = verbs.add_parser("pack-tokens", help=summary, description=summary)
    _common(sub)
    sub.add_argument("--tokens", default="tokens", help="folder of codes in the dataset (default tokens)")
    sub.add_argument("--model", help="model whose tokenizer made the codes, if they are in VQVAE_codebook_*/<name>.npy")
    sub.add_argument("--skip-incomplete", action="store_true", help="skip clips without codes or captions")
    sub.set_defaults(run=pack_tokens)

    summary = "pack motions into one memory-mapped array, for the dataset packed_windows"
    sub = verbs.add_parser("pack-motions", help=summary, description=summary)
    _common(sub)
    add_dtype(sub, "as stored (default float32)", ["float32", "float16"], default="float32")
    sub.set_defaults(run=pack_motions)

    summary = "import published tar archives, or webdataset shards, into a dataset folder"
    sub = verbs.add_parser("import-tar", help=summary, description=summary)
    sub.add_argument("shards", nargs="+", type=Path, help=".tar, .tar.gz, ...")
    sub.add_argument("--out", required=True, type=Path, help="dataset folder; existing files are kept")
    sub.add_argument("--prefix", default="", help="prefix for clip names, e.g. MotionGV")
    sub.add_argument("--split", help="also list these clips in this split")
    sub.set_defaults(run=import_tar)

    summary = "generate a packed dataset of synthetic rows, to test training at scale"
    sub = verbs.add_parser("synthetic-rows", help=summary, description=summary)
    sub.add_argument("--out", required=True, type=Path)
    sub.add_argument("--rows", type=int, default=2_000_000)
    sub.add_argument("--codebook-size", type=int, default=64_000)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=synthetic_rows)


def pack_tokens(args: argparse.Namespace) -> int:
    """Write a packed set of tokens."""
    from hftrainer.apps.pack import pack_tokens as pack

    for line in pack(
        args.dataset, args.out, splits=args.split, tokens=args.tokens, model=args.model,
        skip_incomplete=args.skip_incomplete, progress=progress("pack"),
    ):  # fmt: skip
        print(line)
    return 0


def pack_motions(args: argparse.Namespace) -> int:
    """Write a packed set of motions."""
    from hftrainer.apps.pack import pack_motions as pack

    for line in pack(args.dataset, args.out, splits=args.split, dtype=args.dtype, progress=progress("pack")):
        print(line)
    return 0


def import_tar(args: argparse.Namespace) -> int:
    """Unpack into a dataset folder."""
    from hftrainer.data.prepare.tar_import import import_tar as unpack

    report = unpack(args.shards, args.out, prefix=args.prefix, split=args.split, progress=progress("import"))
    print("\n".join(report.lines(args.out)))
    return 0


def synthetic_rows(args: argparse.Namespace) -> int:
    """Write made-up rows."""
    from hftrainer.data.synthetic.rows import write_synthetic_rows

    write_synthetic_rows(args.out, args.rows, codebook_size=args.codebook_size, seed=args.seed)
    print(f"{args.rows} rows -> {args.out}")
    return 0


def _common(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("dataset", type=Path, help="dataset folder")
    sub.add_argument("--out", type=Path, required=True, help="folder of the packed dataset; written atomically")
    sub.add_argument("--split", action="append", help="may be repeated; default: all splits")
