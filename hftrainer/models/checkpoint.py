"""Reading weights from files, without running code from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hftrainer.files import atomic_path, write_json

INDEX_SUFFIX = ".index.json"


class CheckpointError(ValueError):
    """A weight file that cannot be used; the message names the file, the key, what came and what was expected."""


def read_state_dict(path: str | os.PathLike[str], *, keys: Sequence[str] = ()) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, a sharded one's index, or a torch file.

    `keys`: where a torch file may keep the state dict ("net", "trans", "state_dict"), tried in order; without any of
    them the file itself is the state dict. A ``module.`` prefix is removed. torch files are opened with
    ``weights_only=True`` and memory-mapped.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no weight file {str(path)!r}")
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is not a whole safetensors file ({error}); it holds {path.stat().st_size} bytes: "
                "was its download or copy cut short?"
            ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a torch weight file: {str(error).splitlines()[0]}") from error
    state = next((content[key] for key in keys if isinstance(content, Mapping) and key in content), content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointError(f"{path}: expected tensors by name, or one of the keys {list(keys)}, got {found}")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def assign(module: nn.Module, state: Mapping[str, Tensor], *, source: str, dtype: torch.dtype | None = None) -> None:
    """Put tensors into a module (built on the meta device, say) after checking every name and shape.

    Floating point tensors are cast to `dtype` if it is given. Raises `CheckpointError` listing what does not fit.
    """
    wanted = module.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name}: {tuple(state[name].shape)} in the file, {tuple(tensor.shape)} expected"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or extra or shapes:
        parts = [
            f"{len(problem)} {title}, e.g. {problem[0]}"
            for title, problem in (("names missing", missing), ("names unknown", extra), ("shapes wrong", shapes))
            if problem
        ]
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: {'; '.join(parts)}")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{source}: {name} holds NaN or infinite values")
    cast = {k: v.to(dtype) if dtype is not None and v.is_floating_point() else v for k, v in state.items()}
    module.load_state_dict(cast, strict=True, assign=True)


def write_state_dict(
    module: nn.Module, path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, drop: Sequence[str] = ()
) -> None:
    """Write a module's tensors as one safetensors file, atomically; `drop` leaves names out (tied copies)."""
    state = {
        name: (tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor)
        .detach()
        .cpu()
        .contiguous()
        for name, tensor in module.state_dict().items()
        if name not in drop
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def find_weights(folder: Path, stem: str) -> Path:
    """The weight file called `stem` in an artifact: safetensors, sharded safetensors, or an older torch file."""
    for name in (f"{stem}.safetensors", f"{stem}.safetensors{INDEX_SUFFIX}", f"{stem}.pt"):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has no {stem}.safetensors; it holds {sorted(p.name for p in folder.iterdir())}")


def _read_shards(index: Path) -> dict[str, Tensor]:
    table: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    state: dict[str, Tensor] = {}
    for shard in sorted(set(table.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} names a shard outside its folder: {shard!r}")
        state.update(read_state_dict(index.parent / shard))
    return state


def write_index(path: str | os.PathLike[str], weight_map: Mapping[str, str], total_size: int) -> None:
    """Write the index of a sharded file."""
    write_json(path, {"metadata": {"total_size": total_size}, "weight_map": dict(weight_map)})
