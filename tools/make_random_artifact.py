"""Write a model of a released size with random weights, tensor by tensor: what loading and speed are measured on.

python tools/make_random_artifact.py --size 7B --dtype bfloat16 --out runs/random_7b
python tools/make_random_artifact.py --size 7B --released --out runs/random_7b_released

The first is an artifact folder without a text encoder; text_features.safetensors in it holds made-up features of a few
prompts. With --released the files are those of a release, for the converter: t2m_random_all.zip with the transformer
under "trans" beside a DeepSpeed optimizer state, fsq.zip, mean.npy and std.npy. The optimizer's numbers are a hole in
the file: it has its full size and takes no room on the disk.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hftrainer.config import plain
from hftrainer.files import write_json
from hftrainer.manifest import write_manifest
from hftrainer.models.checkpoint import write_safetensors, write_state
from hftrainer.models.checkpoint.torch_zip import read_torch_zip
from hftrainer.models.motion.motionmillion import MotionMillionConfig, artifact
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from hftrainer.models.text_features import FORMAT, text_hash

PROMPTS = ["a person walks forward", "someone runs in a circle", "a person sits down, then stands up again"]
WORDS = 20  # tokens of each made-up text
PIECE = 1 << 22  # numbers drawn at once
Types = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def main() -> None:
    """Write the folder; it appears when everything is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="7B", choices=list(PRESETS))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "float16"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--released", action="store_true", help="released files instead of an artifact")
    parser.add_argument("--optimizer-bytes", type=int, default=8, help="of a parameter, with --released (default 8)")
    parser.add_argument("--shard-gb", type=float, default=5.0)
    parser.add_argument("--layers", type=int, help="fewer layers than the size has, for trying out")
    parser.add_argument("--width", type=int, help="another width than the size has, for trying out")
    parser.add_argument("--no-manifest", action="store_true", help="do not read everything once more to hash it")
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"{args.out} is there already; choose another folder, or delete it")
    given = {"n_layer": args.layers, "n_embd": args.width}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    config = MotionMillionConfig(ar=LLaMAHFConfig.from_name(args.size, **overrides))
    staging = args.out.with_name(f".{args.out.name}-partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    dtype = getattr(torch, args.dtype)
    if args.released:
        write_released(staging, config, dtype, args.optimizer_bytes)
    else:
        write_artifact(staging, config, dtype, int(args.shard_gb * (1 << 30)))
        if not args.no_manifest:
            write_manifest(staging)
    os.replace(staging, args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*"))
    print(f"{args.out}: {size / 1e9:.2f} GB, {config.ar}")


def write_artifact(folder: Path, config: MotionMillionConfig, dtype: torch.dtype, shard_bytes: int) -> None:
    """An artifact folder without manifest and text encoder."""
    fsq, ar = part_types(config, dtype)
    write_state(folder, "fsq", fsq, draw(fsq), shard_bytes=shard_bytes)
    write_state(folder, "ar", ar, draw(ar), shard_bytes=shard_bytes)
    write_statistics(folder)
    write_json(folder / artifact.CONFIG, artifact.describe(config, has_text=False))
    write_json(folder / "model_index.json", artifact.index(has_ar=True, has_text=False))
    assert config.ar is not None
    write_features(folder / "text_features.safetensors", config.ar.clip_dim)


def write_released(folder: Path, config: MotionMillionConfig, dtype: torch.dtype, optimizer_bytes: int) -> None:
    """Files as the authors publish them; torch writes them with room for the numbers, which are filled in after."""
    fsq, ar = part_types(config, dtype)
    moments = {name: (torch.uint8, (math.prod(shape), optimizer_bytes)) for name, (_, shape) in ar.items()}
    with torch.serialization.skip_data():  # nothing is read from these tensors, so they take no memory
        optimizer = {"base_optimizer_state": {"state": list(_empty(moments).values())}, "zero_stage": 2}
        trans = {f"module.{name}": tensor for name, tensor in _empty(ar).items()}
        torch.save({"trans": trans, "optimizer": optimizer, "nb_iter": 1}, folder / "t2m_random_all.zip")
        torch.save({"net": _empty(fsq), "nb_iter": 1}, folder / "fsq.zip")
    fill(folder / "t2m_random_all.zip", "trans", "module.", ar)
    fill(folder / "fsq.zip", "net", "", fsq)
    write_statistics(folder)


def fill(path: Path, key: str, prefix: str, types: Types) -> None:
    """Write random numbers where a torch file has room for its tensors."""
    load, refs = draw(types), read_torch_zip(path).value[key]
    with open(path, "r+b") as stream:
        for name in types:
            stream.seek(refs[prefix + name].storage.start)
            stream.write(load(name).reshape(-1).view(torch.uint8).numpy().data)


def part_types(config: MotionMillionConfig, dtype: torch.dtype) -> tuple[Types, Types]:
    """Type and shape of every tensor of tokenizer (float32) and transformer."""
    assert config.ar is not None
    with torch.device("meta"):
        fsq, ar = HumanVQVAE(**plain(config.vqvae)).state_dict(), LLaMAHF(config.ar).state_dict()
    return (
        {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in fsq.items()},
        {name: (dtype, tuple(tensor.shape)) for name, tensor in ar.items()},
    )


def draw(types: Types) -> Callable[[str], Tensor]:
    """Numbers for a tensor by its name: the same for each run, of the spread that training starts from."""

    def load(name: str) -> Tensor:
        dtype, shape = types[name]
        if not dtype.is_floating_point:
            return torch.arange(math.prod(shape), dtype=dtype).reshape(shape)
        if len(shape) == 1:
            return (torch.zeros if name.endswith("bias") else torch.ones)(shape, dtype=dtype)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        out = torch.empty(math.prod(shape), dtype=dtype)
        for piece in out.split(PIECE):  # float32 numbers of a whole matrix would take twice its room
            piece.copy_(torch.randn(len(piece), generator=generator) * 0.02)
        return out.reshape(shape)

    return load


def write_statistics(folder: Path) -> None:
    """Mean and deviation that the checks accept."""
    mean = np.zeros(272, np.float32)
    mean[9] = 0.9
    np.save(folder / "mean.npy", mean)
    np.save(folder / "std.npy", np.full(272, 0.05, np.float32))


def write_features(path: Path, width: int) -> None:
    """Made-up stored features for `PROMPTS`."""
    texts = [text.encode() for text in PROMPTS]
    n = len(texts)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "hashes": torch.tensor([list(text_hash(text)) for text in PROMPTS], dtype=torch.uint8),
        "tokens": torch.full((n,), WORDS, dtype=torch.int32),
        "starts": torch.arange(n + 1) * WORDS,
        "texts": torch.tensor(list(b"".join(texts)), dtype=torch.uint8),
        "text_starts": torch.tensor([0, *np.cumsum([len(text) for text in texts]).tolist()]),
        "features.0": torch.randn(n * WORDS, width, generator=generator) * 0.2,
    }
    about = {
        "format": FORMAT, "encoder": "made up", "encoder_sha256": "made up", "dtype": "float32",
        "computed_in": "float32", "max_tokens": "150", "width": str(width),
    }  # fmt: skip
    types = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_safetensors(path, types, tensors.__getitem__, metadata=about)


def _empty(types: Types) -> dict[str, Tensor]:
    return {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in types.items()}


if __name__ == "__main__":
    main()
