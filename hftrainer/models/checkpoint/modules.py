"""Weights into modules and out of them."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hftrainer.files import write_json
from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.reader import INDEX_SUFFIX, Checkpoint
from hftrainer.models.checkpoint.safetensors import shards, write_safetensors

SHARD_BYTES = 5 << 30
_CHECK_BELOW = 512 << 20  # bytes; scanning larger files for NaN would read all of them


def assign(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    dtype: torch.dtype | None = None,
    check_values: bool | None = None,
) -> None:
    """Put tensors into a module, built on the meta device or not, after checking every name, shape and kind.

    Floating point tensors are cast to `dtype` if it is given; otherwise they stay what they are, and mapped. Values are
    looked at for NaN if `check_values`, by default in files below 512 MB. Raises `CheckpointError`.
    """
    check_fit(module, state, source=source)
    names = list(module.state_dict())
    if check_values is None:
        check_values = sum(_bytes_of(state, name) for name in names) < _CHECK_BELOW
    # one after the other, and no name for the tensor as it comes: what is cast must not keep its source mapped
    cast = {name: _taken(state[name], name, dtype, source if check_values else None) for name in names}
    module.load_state_dict(cast, strict=True, assign=True)


def check_fit(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Raise `CheckpointError` unless names, shapes and kinds (floating point or not) are the module's; nothing is
    read."""
    wanted = module.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes, kinds = [], []
    for name in wanted.keys() & state.keys():
        shape, kind = _describe(state, name)
        if shape != tuple(wanted[name].shape):
            shapes.append(f"{name}: {shape} in the file, {tuple(wanted[name].shape)} expected")
        if kind.is_floating_point != wanted[name].dtype.is_floating_point:
            kinds.append(f"{name}: {kind} in the file, {wanted[name].dtype} expected")
    problems = (("names missing", missing), ("names unknown", extra), ("shapes wrong", shapes), ("types wrong", kinds))
    if any(problem for _, problem in problems):
        parts = [f"{len(problem)} {title}, e.g. {sorted(problem)[0]}" for title, problem in problems if problem]
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: {'; '.join(parts)}")


@contextlib.contextmanager
def skeleton() -> Iterator[None]:
    """Inside, modules are built without memory and without first values, which `assign` brings from a file."""
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Leaves tensors on the meta device undrawn: torch computes that with its symbolic shapes, which take half a second
    to import."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draws = func in _DRAWS or getattr(func, "__module__", "") == nn.init.__name__
        tensor = args[0] if args else (kwargs or {}).get("tensor")
        if draws and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **(kwargs or {}))


_DRAWS = (Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_)


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise `CheckpointError` naming the first tensor with NaN or infinite values."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise CheckpointError(f"{source}: {name} holds NaN or infinite values")


def _is_finite(tensor: Tensor) -> bool:
    """Of a finite sum every summand is finite, and a sum is one pass; where it overflows, each is looked at."""
    if tensor.dtype.itemsize > 1:
        wide = torch.promote_types(tensor.dtype, torch.float32)
        if math.isfinite(float(tensor.sum(dtype=wide))):
            return True
    return bool(torch.isfinite(tensor).all())


def write_module(
    module: nn.Module,
    folder: Path,
    stem: str,
    *,
    dtype: torch.dtype | None = None,
    drop: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Write a module as ``stem.safetensors``, or above `shard_bytes` as shards with an index. The names of the files.

    Tensors are cast and written one at a time; `drop` leaves names out (the second name of tied weights).
    """
    state = {name: tensor for name, tensor in module.state_dict().items() if name not in drop}
    types = {
        name: (dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype, tuple(tensor.shape))
        for name, tensor in state.items()
    }
    return write_state(folder, stem, types, lambda name: state[name].to(types[name][0]), shard_bytes=shard_bytes)


def write_state(
    folder: Path,
    stem: str,
    types: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    load: Callable[[str], Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Write named tensors as one file or shards; `load` brings each when its turn comes. The names of the files."""
    sizes = {name: torch.Size(shape).numel() * kind.itemsize for name, (kind, shape) in types.items()}
    groups = shards(sizes.items(), shard_bytes)
    if len(groups) <= 1:
        write_safetensors(folder / f"{stem}.safetensors", types, load)
        return [f"{stem}.safetensors"]
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors"
        write_safetensors(folder / file, {name: types[name] for name in group}, load)
        weight_map |= dict.fromkeys(group, file)
    write_index(folder / f"{stem}.safetensors{INDEX_SUFFIX}", weight_map, sum(sizes.values()))
    return [*dict.fromkeys(weight_map.values()), f"{stem}.safetensors{INDEX_SUFFIX}"]


def write_index(path: str | os.PathLike[str], weight_map: Mapping[str, str], total_size: int) -> None:
    """Write the index of a sharded file."""
    write_json(path, {"metadata": {"total_size": total_size}, "weight_map": dict(weight_map)})


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and values."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_weights(folder: Path, stem: str) -> Path:
    """The weight file called `stem` in an artifact: safetensors, sharded safetensors, or an older torch file."""
    for name in (f"{stem}.safetensors", f"{stem}.safetensors{INDEX_SUFFIX}", f"{stem}.pt"):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has no {stem}.safetensors; it holds {sorted(p.name for p in folder.iterdir())}")


def _describe(state: Mapping[str, Tensor], name: str) -> tuple[tuple[int, ...], torch.dtype]:
    if isinstance(state, Checkpoint):
        return state.shape_of(name), state.dtype_of(name)
    return tuple(state[name].shape), state[name].dtype


def _bytes_of(state: Mapping[str, Tensor], name: str) -> int:
    return state.bytes_of(name) if isinstance(state, Checkpoint) else state[name].nbytes


def _taken(tensor: Tensor, name: str, dtype: torch.dtype | None, check_source: str | None) -> Tensor:
    if check_source is not None:
        check_finite({name: tensor}, check_source)
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
