"""``hftrainer data tokenize | text-features``: what models make of motions and captions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hftrainer.commands.common import add_dtype, progress
from hftrainer.commands.data_common import open_dataset, with_dataset
from hftrainer.readers import FileError


def add_verbs(verbs: Any) -> None:
    """Their arguments."""
    sub = with_dataset(verbs, "tokenize", "encode motions into tokens/ with a model's tokenizer")
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


def tokenize(args: argparse.Namespace) -> int:
    """Write tokens/."""
    from hftrainer.data.tokens.folder import tokenize as write_tokens
    from hftrainer.zoo.load import load_tokenizer

    dataset = open_dataset(args)
    tokenizer = load_tokenizer(args.model, device=args.device)
    if tokenizer.representation != dataset.representation:
        raise FileError(
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
    from hftrainer.apps.text_features import check_target, encoder_of, texts_of
    from hftrainer.models.text_features import estimate_text_features, write_text_features

    if not args.size_only:
        check_target(args.out)
    texts = texts_of(args.prompts, args.dataset, args.split)
    encoder = encoder_of(args.model, args.encoder, args.config)
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
