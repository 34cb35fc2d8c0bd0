"""``hftrainer doctor [MODEL]``."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

_PACKAGES = {
    "core": ("torch", "transformers", "safetensors", "numpy", "omegaconf", "einops", "huggingface_hub"),
    "train": ("lightning", "wandb"),
    "deepspeed": ("deepspeed",),
    "eval": ("scipy",),
    "viz": ("imageio-ffmpeg", "pillow"),
    "quant": ("torchao",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = "example:\n  hftrainer doctor gotozero-nano"
    parser.add_argument("model", nargs="?", help="load this model and say what it holds")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is there; 1 if the model does not load."""
    print(f"python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    for extra, packages in _PACKAGES.items():
        print(f"{extra:10} {', '.join(f'{name} {_version(name)}' for name in packages)}")
    if find_spec("torch"):
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        print(f"{'devices':10} {', '.join(devices) or 'cpu only'}, {torch.get_num_threads()} threads")
    return _describe(args.model) if args.model else 0


def _describe(model: str) -> int:
    from hftrainer.hub import fingerprint
    from hftrainer.zoo.load import load_pipeline, locate

    folder, _ = locate(model)
    bundle = load_pipeline(model).bundle
    print(f"{'model':10} {folder} {fingerprint(folder)}")
    for name in ("vqvae", "ar", "text_encoder"):
        part = getattr(bundle, name)
        count = sum(p.numel() for p in part.parameters()) if part is not None else 0
        print(f"{name:12} {count / 1e6:.1f} M parameters" if count else f"{name:12} none")
    print(f"{'codebook':12} {bundle.vqvae.codebook_size} codes of {bundle.vqvae.frames_per_code} frames")
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
