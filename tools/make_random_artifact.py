"""Write a model of a released size with random weights, to measure loading and speed.

python tools/make_random_artifact.py --size 7B --dtype bfloat16 --out runs/random_7b
python tools/make_random_artifact.py --size 7B --released --out runs/random_7b_released

The first is an artifact folder without a text encoder, the second the files of a release, with an optimizer state;
`hftrainer.bench.random_files` documents them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from hftrainer.bench.random_files import make_artifact, make_released, model_config
from hftrainer.models.motion.motionmillion.network.llama import PRESETS


def main() -> None:
    """Write the folder; it appears when it is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="7B", choices=list(PRESETS))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "float16"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--released", action="store_true", help="released files instead of an artifact")
    parser.add_argument("--optimizer-bytes", type=int, default=8, help="per parameter, with --released (default 8)")
    parser.add_argument("--shard-gb", type=float, default=5.0)
    parser.add_argument("--layers", type=int, help="fewer layers than the preset, for testing")
    parser.add_argument("--width", type=int, help="another width than the preset's, for testing")
    parser.add_argument("--no-manifest", action="store_true", help="skip the manifest, which needs to hash all files")
    args = parser.parse_args()
    config, dtype = model_config(args.size, n_layer=args.layers, n_embd=args.width), getattr(torch, args.dtype)
    try:
        if args.released:
            make_released(args.out, config, dtype, args.optimizer_bytes)
        else:
            make_artifact(args.out, config, dtype, int(args.shard_gb * (1 << 30)), manifest=not args.no_manifest)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    size = sum(path.stat().st_size for path in args.out.rglob("*"))
    print(f"{args.out}: {size / 1e9:.2f} GB, {config.ar.config}")


if __name__ == "__main__":
    main()
