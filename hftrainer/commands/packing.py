"""Verbs of ``hftrainer data`` for data at scale: packed sets and tar shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def add_verbs(verbs: Any) -> None:
    """Add the verbs to those of ``hftrainer data``."""
    summary = "captions and codes into a few memory-mapped files, for the dataset packed_tokens"
    sub = verbs.add_parser("pack-tokens", help=summary, description=summary)
    _common(sub)
    sub.add_argument("--tokens", default="tokens", help="folder of codes in the dataset (default tokens)")
    sub.add_argument("--model", help="whose tokenizer made the codes, where they lie in VQVAE_codebook_*/<name>.npy")
    sub.add_argument("--skip-incomplete", action="store_true", help="leave out clips without codes or captions")
    sub.set_defaults(run=pack_tokens)

    summary = "motions into one memory-mapped array, for the dataset packed_windows"
    sub = verbs.add_parser("pack-motions", help=summary, description=summary)
    _common(sub)
    sub.add_argument("--dtype", default="float32", choices=["float32", "float16"], help="as stored (default float32)")
    sub.set_defaults(run=pack_motions)

    summary = "tar archives as published, or webdataset shards, into a dataset folder"
    sub = verbs.add_parser("import-tar", help=summary, description=summary)
    sub.add_argument("shards", nargs="+", type=Path, help=".tar, .tar.gz, ...")
    sub.add_argument("--out", required=True, type=Path, help="dataset folder; what is there stays")
    sub.add_argument("--prefix", default="", help="put before clip names, e.g. MotionGV")
    sub.add_argument("--split", help="also list these clips in this split")
    sub.set_defaults(run=import_tar)

    summary = "a packed set of made-up rows, as many as wanted, to try out training at scale"
    sub = verbs.add_parser("synthetic-rows", help=summary, description=summary)
    sub.add_argument("--out", required=True, type=Path)
    sub.add_argument("--rows", type=int, default=2_000_000)
    sub.add_argument("--codebook-size", type=int, default=64_000)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=synthetic_rows)


def pack_tokens(args: argparse.Namespace) -> int:
    """Write a packed set of tokens."""
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.tokens.pack import Tokenizer
    from hftrainer.data.tokens.pack import pack_tokens as pack

    tokenizer = None
    if args.model is not None:
        from hftrainer.models.motion.motionmillion.tokenizer import load_tokenizer
        from hftrainer.zoo.load import locate

        model = load_tokenizer(locate(args.model)[0])
        tokenizer = Tokenizer(model.sha256, model.codebook_size, model.frames_per_code)
    counts = pack(
        DatasetFolder(args.dataset), args.out, splits=args.split, tokens=args.tokens, tokenizer=tokenizer,
        skip_incomplete=args.skip_incomplete, progress=_bar("pack"),
    )  # fmt: skip
    for what, names in (("codes", counts.without_codes), ("captions", counts.without_captions)):
        if names:
            print(f"left out: {len(names)} clips without {what}, e.g. {names[0]}")
    print(f"{counts.entries} entries of {counts.clips} clips with {counts.captions} captions")
    print(f"{counts.codes} codes -> {args.out} ({_megabytes(args.out)})")
    return 0


def pack_motions(args: argparse.Namespace) -> int:
    """Write a packed set of motions."""
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.motion.packed import pack_motions as pack

    counts = pack(
        DatasetFolder(args.dataset), args.out, splits=args.split, dtype=args.dtype, progress=_bar("pack")
    )  # fmt: skip
    if args.dtype == "float16":
        print(f"float16 moved a joint by {counts.error_mm:.2f} mm at most")
    print(f"{counts.frames} frames of {counts.clips} clips -> {args.out} ({_megabytes(args.out)})")
    return 0


def import_tar(args: argparse.Namespace) -> int:
    """Unpack into a dataset folder."""
    from hftrainer.data.prepare.tar_import import import_tar as unpack

    report = unpack(args.shards, args.out, prefix=args.prefix, split=args.split, progress=_bar("import"))
    print(f"{', '.join(f'{count} {kind}' for kind, count in report.counts.items())} -> {args.out}")
    if report.renamed:
        print(f"{report.renamed} members had their top folder twice; it was written once")
    if report.skipped:
        print(f"{len(report.skipped)} members were passed over, e.g. {report.skipped[0]}")
    return 0


def synthetic_rows(args: argparse.Namespace) -> int:
    """Write made-up rows."""
    from hftrainer.data.synthetic.rows import write_synthetic_rows

    write_synthetic_rows(args.out, args.rows, codebook_size=args.codebook_size, seed=args.seed)
    print(f"{args.rows} rows -> {args.out} ({_megabytes(args.out)})")
    return 0


def verify_packed(folder: Path) -> int | None:
    """Verify a packed set; None if the folder is none."""
    import json

    from hftrainer.data.flat import MANIFEST, TOKENS_FORMAT, PackedFolder, PackedTokens
    from hftrainer.data.motion.packed import MOTIONS_FORMAT, PackedMotions

    if not (folder / MANIFEST).is_file():
        return None
    form = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("format")
    kinds: dict[str, type[PackedFolder]] = {TOKENS_FORMAT: PackedTokens, MOTIONS_FORMAT: PackedMotions}
    if form not in kinds:
        return None
    packed = kinds[form](folder)
    for key in ("dataset", "tokenizer_sha256", "codebook_size", "entries", "clips", "captions", "codes", "frames"):
        if key in packed.made_from:
            print(f"{key:20} {packed.made_from[key]}")
    for name, about in packed.made_from["splits"].items():
        print(f"{f'split {name}':20} {about['entries']}")
    problems = packed.verify(progress=_bar("verify"))
    for problem in problems:
        print(f"WRONG: {problem}")
    print("ok" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


def _common(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("dataset", type=Path, help="dataset folder")
    sub.add_argument("--out", type=Path, required=True, help="folder of the packed set; appears whole or not at all")
    sub.add_argument("--split", action="append", help="may be given several times; default: every split")


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:,.1f} MB"


def _bar(title: str) -> Any:
    from tqdm import tqdm

    def wrap(items: Iterable[Any]) -> Iterable[Any]:
        return tqdm(items, desc=title, disable=not sys.stderr.isatty())

    return wrap
