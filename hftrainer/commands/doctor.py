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

_PACKAGES = {
    "core": ("torch", "transformers", "safetensors", "numpy", "omegaconf", "einops", "huggingface_hub"),
    "train": ("lightning", "wandb"),
    "deepspeed": ("deepspeed",),
    "eval": ("scipy",),
    "viz": ("imageio-ffmpeg", "pillow"),
    "quant": ("torchao",),
}
EPILOG = """examples:
  hftrainer doctor gotozero-nano
  hftrainer doctor gotozero-7b-train --rope-check dataset/MotionMillion --clips 500"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("model", nargs="?", help="compare this model's files with their hashes, load it, describe it")
    parser.add_argument("--no-verify", action="store_true", help="do not read every file to compare its hash")
    parser.add_argument("--rope-check", type=Path, metavar="DATASET", help="dataset with captions and tokens")
    parser.add_argument("--split", default="val", help="of the rope check (default val)")
    parser.add_argument("--clips", type=int, default=200, help="of the rope check (default 200)")
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
    if args.rope_check and not args.model:
        raise ValueError("--rope-check needs a model")
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
    bundle = load_pipeline(args.model, device=args.device).bundle
    for name in ("vqvae", "ar", "text_encoder"):
        part = getattr(bundle, name)
        count = sum(p.numel() for p in part.parameters()) if part is not None else 0
        print(f"{name:12} {f'{count / 1e6:.1f} M parameters' if count else 'none'}")
    print(f"{'codebook':12} {bundle.vqvae.codebook_size} codes of {bundle.vqvae.frames_per_code} frames")
    if args.rope_check:
        from hftrainer.evaluation.rope_check import rope_check

        for line in rope_check(bundle, _pairs(args, bundle)).lines():
            print(line)
    return 0


def _pairs(args: argparse.Namespace, bundle: Any) -> Iterator[tuple[str, Any]]:
    """Captions and codes of a split, from tokens/ or upstream's one file a clip."""
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.tokens import codes_of

    dataset = DatasetFolder(args.rope_check)
    names = dataset.names(args.split)[: args.clips]
    longest = bundle.ar.config.block_size - bundle.text_encoder.config.max_tokens - 1
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
