"""Models of released sizes with random weights, written tensor by tensor: what loading and speed are measured on.

`make_artifact` writes an artifact folder without a text encoder; text_features.safetensors in it holds made-up features
of a few prompts. `make_released` writes the files of a release, for the converter: t2m_random_all.zip with the
transformer under "trans" beside a DeepSpeed optimizer state, fsq.zip, mean.npy and std.npy. The optimizer's numbers are
a hole in the file: it has its full size and takes no room on the disk.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hftrainer.files import atomic_folder, write_json
from hftrainer.manifest import write_manifest
from hftrainer.models.checkpoint import write_safetensors, write_state
from hftrainer.models.checkpoint.torch_zip import read_torch_zip
from hftrainer.models.motion.motionmillion import MotionMillionConfig, files
from hftrainer.models.motion.motionmillion.network import LLaMAHFConfig
from hftrainer.models.text_features import FORMAT, text_hash
from hftrainer.motion.representation.base import get_representation

PROMPTS = ["a person walks forward", "someone runs in a circle", "a person sits down, then stands up again"]
TRANSFORMER = "t2m_random_all.zip"
WORDS = 20  # tokens of each made-up text
PIECE = 1 << 22  # numbers drawn at once
Types = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def model_config(size: str, **sizes: int | None) -> MotionMillionConfig:
    """A preset, some of its sizes replaced (those that are not None)."""
    given = {name: value for name, value in sizes.items() if value is not None}
    return MotionMillionConfig(ar=LLaMAHFConfig.from_name(size, **given))


def make_artifact(
    out: Path, config: MotionMillionConfig, dtype: torch.dtype, shard_bytes: int = 5 << 30, manifest: bool = True
) -> None:
    """An artifact folder; without `manifest`, what was written is not read once more to hash it."""
    _check_new(out)
    with atomic_folder(out) as staging:
        write_artifact(staging, config, dtype, shard_bytes)
        if manifest:
            write_manifest(staging)


def make_released(out: Path, config: MotionMillionConfig, dtype: torch.dtype, optimizer_bytes: int = 8) -> None:
    """The files of a release; `optimizer_bytes` of a parameter."""
    _check_new(out)
    with atomic_folder(out) as staging:
        write_released(staging, config, dtype, optimizer_bytes)


def _check_new(out: Path) -> None:
    if out.exists():
        raise ValueError(f"{out} already exists; choose another folder, or delete it")


def write_artifact(folder: Path, config: MotionMillionConfig, dtype: torch.dtype, shard_bytes: int) -> None:
    """An artifact folder without manifest and text encoder."""
    fsq, ar = part_types(config, dtype)
    write_state(folder, "fsq", fsq, draw(fsq), shard_bytes=shard_bytes)
    write_state(folder, "ar", ar, draw(ar), shard_bytes=shard_bytes)
    write_statistics(folder)
    write_json(folder / files.CONFIG, files.describe(config, has_text=False))
    write_json(folder / "model_index.json", files.index(has_ar=True, has_text=False))
    assert config.ar is not None
    write_features(folder / "text_features.safetensors", config.ar.config.clip_dim)


def write_released(folder: Path, config: MotionMillionConfig, dtype: torch.dtype, optimizer_bytes: int) -> None:
    """Files as the authors publish them; torch writes them with room for the numbers, which are filled in after."""
    fsq, ar = part_types(config, dtype)
    moments: Types = {name: (torch.uint8, (math.prod(shape), optimizer_bytes)) for name, (_, shape) in ar.items()}
    with torch.serialization.skip_data():  # nothing is read from these tensors, so they take no memory
        optimizer = {"base_optimizer_state": {"state": list(_empty(moments).values())}, "zero_stage": 2}
        trans = {f"module.{name}": tensor for name, tensor in _empty(ar).items()}
        torch.save({"trans": trans, "optimizer": optimizer, "nb_iter": 1}, folder / TRANSFORMER)
        torch.save({"net": _empty(fsq), "nb_iter": 1}, folder / "fsq.zip")
    fill(folder / TRANSFORMER, "trans", "module.", ar)
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
        fsq, ar = config.tokenizer.build().state_dict(), config.ar.build().state_dict()
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
        for start in range(0, len(out), PIECE):  # float32 numbers of a full matrix would take twice its memory
            piece = out[start : start + PIECE]
            piece.copy_(torch.randn(len(piece), generator=generator) * 0.02)
        return out.reshape(shape)

    return load


def write_statistics(folder: Path) -> None:
    """Mean and deviation that the checks accept."""
    motions = get_representation(MotionMillionConfig().motions)
    mean = np.zeros(motions.width, np.float32)
    mean[motions.positions_block()][1] = 0.9  # the pelvis's height
    np.save(folder / "mean.npy", mean)
    np.save(folder / "std.npy", np.full(motions.width, 0.05, np.float32))


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
