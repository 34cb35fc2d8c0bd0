"""DeepSpeed's checkpoint folders, without DeepSpeed: fp32 weights gathered from every rank's partitions.

    stage 0     mp_rank_00_model_states.pt holds the complete module
    stage 1, 2  *_optim_states.pt of each rank hold a slice of every group of parameters, flattened and laid end to end
    stage 3     each rank holds a slice of every single parameter, padded to the same length

Files of `tag/` are found through `latest`. Partitions are read when a tensor is asked for, so one tensor is put
together at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.pickle_keys import short
from hftrainer.models.checkpoint.safe_pickle import Placeholder, Unpickled
from hftrainer.models.checkpoint.tensors import MAX_DIMENSIONS, MAX_SIZE, Mappings, TensorRef
from hftrainer.readers import read_text

_MAX_TAG = 4096  # bytes of the name of a folder
Read = Callable[[Path], Unpickled]


@dataclass(frozen=True)
class PiecedTensor:
    """A tensor that is the concatenation of flat pieces, `(tensor, start, stop)` in items of each."""

    pieces: tuple[tuple[TensorRef, int, int], ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Total bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def load(self, mappings: Mappings | None = None) -> Tensor:
        """Put the pieces together."""
        flat = [ref.load(mappings).reshape(-1)[start:stop] for ref, start, stop in self.pieces]
        return (torch.cat(flat) if len(flat) != 1 else flat[0]).reshape(self.shape)


def is_deepspeed(folder: Path) -> bool:
    """Whether a folder is a DeepSpeed checkpoint: has a tag that `latest` names, or is a tag's folder."""
    return _tag_folder(folder) is not None


def read_deepspeed(folder: Path, read: Read) -> tuple[dict[str, Any], int, set[str]]:
    """Tensors by name, the ZeRO stage, and third-party names that were not loaded."""
    tag = _tag_folder(folder)
    if tag is None:
        raise CheckpointError(f"{folder} is not a DeepSpeed checkpoint")
    try:
        tensors, stage, placeholders = _read(tag, read)
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{tag} is not as DeepSpeed writes it ({type(error).__name__}: {error})"[:400]) from error
    for name, tensor in tensors.items():
        if not isinstance(tensor, (TensorRef, PiecedTensor)):
            raise CheckpointError(f"{tag}: {name} is a {type(tensor).__name__}, expected a tensor")
    return tensors, stage, placeholders


def _read(tag: Path, read: Read) -> tuple[dict[str, Any], int, set[str]]:
    placeholders: set[str] = set()

    def open_all(pattern: str) -> list[dict[str, Any]]:
        found = []
        for path in sorted(tag.glob(pattern), key=_rank):
            content = read(path)
            placeholders.update(content.placeholders)
            if not isinstance(content.value, dict):
                raise CheckpointError(f"{path}: expected a dictionary, got a {type(content.value).__name__}")
            found.append(content.value)
        return found

    models = open_all("*_model_states.pt")
    optimizers = [_optimizer_state(o, tag) for o in open_all("*_optim_states.pt")]
    if not optimizers:
        return _tensors(models[0].get("module"), tag), 0, placeholders
    stage = _number(optimizers[0].get("zero_stage"), tag, "zero_stage")
    count = optimizers[0].get("partition_count")
    counts = [_number(n, tag, "partition_count") for n in (count if isinstance(count, (list, tuple)) else [count])]
    world = max(counts, default=0)
    if world != len(optimizers):
        raise CheckpointError(f"{tag}: was written by {world} ranks, but holds the partitions of {len(optimizers)}")
    if stage in (1, 2):
        tensors = _join_groups(models[0], optimizers, tag)
    elif stage == 3:
        tensors = _join_parameters(models[0], optimizers, tag)
    else:
        raise CheckpointError(f"{tag}: ZeRO stage {stage} is not known")
    whole: dict[str, Any] = {**_left_whole(models, world if stage == 3 else 1, tag), **tensors}
    shared = models[0].get("shared_params")
    for second, first in (shared if isinstance(shared, dict) else {}).items():
        if isinstance(first, str) and first in whole:
            whole[str(second)] = whole[first]
    return whole, stage, placeholders


# --- stages ---------------------------------------------------------------------------------------------------------


def _join_groups(model: dict[str, Any], optimizers: list[dict[str, Any]], tag: Path) -> dict[str, PiecedTensor]:
    """Stages 1 and 2: a group is one long vector, cut into as many slices as there are ranks."""
    groups = [
        _list(o.get("single_partition_of_fp32_groups"), tag, "single_partition_of_fp32_groups") for o in optimizers
    ]
    shapes = _group_shapes(model, tag)
    paddings = optimizers[0].get("param_alignment_paddings")
    out: dict[str, PiecedTensor] = {}
    for number, group in enumerate(shapes):
        slices = [rank[number] for rank in groups]
        at = 0
        for place, (name, shape) in enumerate(group.items()):
            out[name] = _cut(slices, at, shape, name, tag)
            at += prod(shape)
            if isinstance(paddings, list):
                at += _number(paddings[number][place], tag, "param_alignment_paddings")
    return out


def _join_parameters(model: dict[str, Any], optimizers: list[dict[str, Any]], tag: Path) -> dict[str, PiecedTensor]:
    """Stage 3: every rank's vector holds its slice of the first parameter, then of the second, and so on."""
    ranks = []
    for optimizer in optimizers:
        groups = _list(optimizer.get("fp32_flat_groups"), tag, "fp32_flat_groups")
        ranks.append([ref for ref in groups if isinstance(ref, TensorRef)])
    world, at = len(ranks), 0
    out: dict[str, PiecedTensor] = {}
    for group in _group_shapes(model, tag):
        for name, shape in group.items():
            whole = prod(shape)
            part = -(-whole // world)
            pieces = []
            for rank in range(world):
                kept = max(0, min(part, whole - rank * part))
                if kept:
                    pieces += _span(ranks[rank], at, kept, name, tag)
            out[name] = PiecedTensor(tuple(pieces), shape, torch.float32)
            at += part
    return out


def _left_whole(models: list[dict[str, Any]], world: int, tag: Path) -> dict[str, Any]:
    """What the optimizer does not hold: buffers and frozen parameters."""
    first = models[0]
    module = first.get("module") if isinstance(first.get("module"), dict) else {}
    assert isinstance(module, dict)
    names = _list(first.get("buffer_names") or [], tag, "buffer_names")
    out: dict[str, Any] = {
        name: module[name] for name in names if isinstance(name, str) and isinstance(module.get(name), TensorRef)
    }
    for name, size in (first.get("frozen_param_shapes") or {}).items():
        if not isinstance(name, str):
            raise CheckpointError(f"{tag}: a frozen parameter is called {short(name)}, expected text")
        shape = _shape(size, name, tag)
        fragments = [model["frozen_param_fragments"][name] for model in models]
        if world == 1:
            out[name] = fragments[0]
        else:
            whole, part = prod(shape), -(-prod(shape) // world)
            cuts = [(ref, 0, max(0, min(part, whole - rank * part))) for rank, ref in enumerate(fragments)]
            out[name] = PiecedTensor(tuple(cuts), shape, fragments[0].dtype)
    return out


# --- pieces ---------------------------------------------------------------------------------------------------------


def _cut(slices: list[Any], at: int, shape: tuple[int, ...], name: str, tag: Path) -> PiecedTensor:
    refs = [ref for ref in slices if isinstance(ref, TensorRef)]
    if len(refs) != len(slices):
        raise CheckpointError(f"{tag}: a partition that should hold {name} is missing")
    return PiecedTensor(tuple(_span(refs, at, prod(shape), name, tag)), shape, refs[0].dtype)


def _span(refs: list[TensorRef], at: int, count: int, name: str, tag: Path) -> list[tuple[TensorRef, int, int]]:
    """The pieces that items `at` to `at + count` of a row of vectors lie in."""
    pieces, start, end = [], at, at + count
    here = 0
    for ref in refs:
        size = prod(ref.shape)
        low, high = max(start, here), min(end, here + size)
        if low < high:
            pieces.append((ref, low - here, high - here))
        here += size
    if here < end:
        raise CheckpointError(f"{tag}: {name} needs items {start}..{end} of its partitions, which hold {here}")
    return pieces


# --- reading what DeepSpeed wrote -----------------------------------------------------------------------------------


def _tag_folder(folder: Path) -> Path | None:
    if any(folder.glob("*_model_states.pt")):
        return folder
    latest = folder / "latest"
    if latest.is_file():
        tag = read_text(latest, _MAX_TAG, error=CheckpointError).strip()
        if tag and Path(tag).name == tag and any((folder / tag).glob("*_model_states.pt")):
            return folder / tag
    inner = folder / "checkpoint"  # Lightning puts the tag's files here
    return inner if any(inner.glob("*_model_states.pt")) else None


def _rank(path: Path) -> tuple[int, str]:
    match = re.search(r"zero_pp_rank_(\d+)", path.name)
    return (int(match[1]) if match else -1, path.name)


def _optimizer_state(content: dict[str, Any], tag: Path) -> dict[str, Any]:
    state = content.get("optimizer_state_dict")
    if not isinstance(state, dict):
        raise CheckpointError(f"{tag}: an optimizer file has no optimizer_state_dict")
    return state


def _group_shapes(model: dict[str, Any], tag: Path) -> list[dict[str, tuple[int, ...]]]:
    groups = _list(model.get("param_shapes"), tag, "param_shapes")
    return [{str(name): _shape(size, str(name), tag) for name, size in group.items()} for group in groups]


def _tensors(state: Any, tag: Path) -> dict[str, TensorRef]:
    if not isinstance(state, dict) or not all(isinstance(ref, TensorRef) for ref in state.values()):
        raise CheckpointError(f"{tag}: the model's file has no module with tensors")
    return {str(name): ref for name, ref in state.items()}


def _shape(size: Any, name: str, tag: Path) -> tuple[int, ...]:
    fits = isinstance(size, tuple) and len(size) <= MAX_DIMENSIONS
    if not fits or not all(type(n) is int and 0 <= n < MAX_SIZE for n in size):
        raise CheckpointError(f"{tag}: the shape of {name} is {short(size)}, expected at most {MAX_DIMENSIONS} sizes")
    if prod(max(n, 1) for n in size) * 4 >= MAX_SIZE:
        raise CheckpointError(f"{tag}: no tensor of shape {size} can be had, as {name} says to be")
    return tuple(size)


# deepspeed's ZeroStageEnum by name, as Python 3.11.0 to 3.11.3 write it
_STAGES = {"disabled": 0, "optimizer_states": 1, "gradients": 2, "weights": 3}


def _list(value: Any, tag: Path, name: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise CheckpointError(f"{tag}: {name} is a {type(value).__name__}, expected a list")
    return list(value)


def _number(value: Any, tag: Path, name: str) -> int:
    """A plain number, or what a placeholder holds of an enumeration's member: its value, or its name."""
    if isinstance(value, Placeholder) and len(value.arguments) == 1:
        value = value.arguments[0]
        value = _STAGES.get(value, value) if isinstance(value, str) else value
    if type(value) is not int:
        raise CheckpointError(f"{tag}: {name} is {short(value)}, expected a number")
    return value
