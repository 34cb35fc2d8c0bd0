"""``hftrainer doctor [MODEL]``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hftrainer.commands.common import add_dtype, read_prompts

_PACKAGES = {
    "core": ("torch", "transformers", "safetensors", "numpy", "omegaconf", "einops", "huggingface_hub"),
    "train": ("lightning", "wandb"),
    "deepspeed": ("deepspeed",),
    "eval": ("scipy",),
    "viz": ("imageio-ffmpeg", "pillow"),
    "quant": ("torchao",),
}
SPLITS = {
    "train": "the train split",
    "all": "all splits, test included: not eligible for test-set leaderboards",
    "unknown": "splits that its files do not tell",
}
PROMPTS = [
    "a person walks forward", "someone runs in a circle", "a person sits down, then stands up again",
    "a man throws a ball with the right hand", "a person crawls on the floor", "a woman dances slowly",
    "someone jumps over an obstacle and turns around", "a person kicks with the left leg",
]  # fmt: skip
EPILOG = """examples:
  hftrainer doctor gotozero-nano
  hftrainer doctor gotozero-7b-train --rope-check dataset/MotionMillion/tokens --clips 500
  hftrainer doctor gotozero-7b-train --quant-check int8 --prompts prompts.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("model", nargs="?", help="compare this model's files with their hashes, load it, describe it")
    parser.add_argument("--no-verify", action="store_true", help="do not read every file to compare its hash")
    parser.add_argument("--rope-check", type=Path, metavar="TOKENS", help="a dataset with tokens, or its tokens/")
    parser.add_argument("--split", default="val", help="of the rope check (default val)")
    parser.add_argument("--clips", type=int, default=200, help="of the rope check (default 200)")
    parser.add_argument("--quant-check", choices=["int8", "int4"], help="compare packed matrices with the stored ones")
    parser.add_argument("--prompts", type=Path, help="of the quant check, one a line (default: 8 of our own)")
    parser.add_argument("--codes", type=int, default=40, help="of each prompt in the quant check (default 40)")
    parser.add_argument("--text-features", type=Path, help="stored features, for a model without its text encoder")
    add_dtype(parser, "of the transformer, e.g. bf16; default: as stored")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is there; 1 if the model does not load or is damaged."""
    print(f"python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    for extra, packages in _PACKAGES.items():
        print(f"{extra:10} {', '.join(f'{name} {_version(name)}' for name in packages)}")
    if find_spec("torch"):
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        print(f"{'devices':10} {', '.join(devices) or 'cpu only'}, {torch.get_num_threads()} threads")
    for check in ("rope_check", "quant_check"):
        if getattr(args, check) and not args.model:
            raise ValueError(f"--{check.replace('_', '-')} needs a model")
    return _describe(args) if args.model else 0


def _describe(args: argparse.Namespace) -> int:
    from hftrainer.manifest import MANIFEST, fingerprint, verify_manifest
    from hftrainer.zoo.load import load_pipeline, locate

    folder, _ = locate(args.model)
    print(f"{'model':12} {folder}")
    print(f"{'identity':12} {fingerprint(folder)}")
    if not (folder / MANIFEST).is_file():
        print(f"{'files':12} not compared: the folder has no {MANIFEST}")
    elif not args.no_verify:
        print(f"{'files':12} {verify_manifest(folder)} files have their hashes")
    options = {"device": args.device, "dtype": args.dtype, "text_features": args.text_features}
    bundle = load_pipeline(args.model, **options).bundle
    for name in ("vqvae", "ar", "text_encoder"):
        part = getattr(bundle, name)
        count = sum(p.numel() for p in part.parameters()) if part is not None else 0
        print(f"{name:12} {f'{count / 1e6:.1f} M parameters' if count else 'none'}")
    print(f"{'codebook':12} {bundle.vqvae.codebook_size} codes of {bundle.vqvae.frames_per_code} frames")
    print(f"{'trained on':12} {SPLITS[bundle.config.training_splits]}")
    if args.quant_check:
        for line in _quant_check(args, bundle):
            print(line)
    if args.rope_check:
        from hftrainer.evaluation.rope_check import rope_check

        for line in rope_check(bundle, _pairs(args, bundle)).lines():
            print(line)
    return 0


def _quant_check(args: argparse.Namespace, bundle: Any) -> list[str]:
    """Load the transformer twice, once packed, and compare; what is loaded already is let go of."""
    from hftrainer.evaluation.quant_check import prepare_texts, quant_check
    from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
    from hftrainer.zoo.load import locate

    prompts = read_prompts([], args.prompts) if args.prompts else PROMPTS
    texts = prepare_texts(bundle, prompts)
    made_up = [] if bundle.text_encoder is not None else ["the model has no text encoder: features are made up"]
    folder = locate(args.model)[0]

    def load(quantize: str | None) -> Any:
        options = {"device": args.device, "dtype": args.dtype, "quantize": quantize}
        return MotionMillionBundle.from_pretrained(folder, text_encoder=None, **options).ar

    found = quant_check(lambda: load(None), lambda: load(args.quant_check), args.quant_check, texts, codes=args.codes)
    return [*made_up, *found.lines()]


def _pairs(args: argparse.Namespace, bundle: Any) -> Iterator[tuple[str, Any]]:
    """Captions and codes of a split, from tokens/ or upstream's one file a clip."""
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.tokens.folder import codes_of

    root = args.rope_check
    if not (root / "split").is_dir() and (root.parent / "split").is_dir():
        root = root.parent  # the folder of the tokens inside the dataset
    if bundle.text_encoder is None:
        raise ValueError("--rope-check needs text features: the model has no text encoder; give --text-features FILE")
    dataset = DatasetFolder(root)
    names = dataset.names(args.split)[: args.clips]
    longest = bundle.ar.config.block_size - bundle.text_encoder.max_tokens - 1
    for name, codes in codes_of(dataset, names, bundle.vqvae.codebook_size, bundle.tokenizer_sha256):
        captions = dataset.captions(name)
        if not captions:
            print(f"no caption: {name}", file=sys.stderr)
        elif len(codes):
            yield captions[0].text, codes[:longest]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
