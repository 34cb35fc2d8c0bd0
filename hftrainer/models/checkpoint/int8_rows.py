"""Matrices stored in 8 bits with a scale for each row, for small models that travel in a repository.

A file holds ``name`` (int8) and ``name.scale`` (float32, one a row); the values are ``name * scale[:, None]``, within
half a scale of what they were. Only files are smaller: in memory the matrices are what the module computes with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.reader import Checkpoint
from hftrainer.models.checkpoint.safetensors import write_safetensors

SCALE = ".scale"
_MOST = 127


def round_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (r, c) as int8 and a scale (r,) float32 for each row; rows of zeros have the scale 0."""
    scale = matrix.float().abs().amax(dim=1) / _MOST
    rounded = (matrix.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    return rounded.clamp(-_MOST, _MOST).to(torch.int8), scale


def write_int8_module(
    module: nn.Module, path: Path, *, dtype: torch.dtype | None = None, drop: Sequence[str] = ()
) -> None:
    """Write a module as one file, its matrices in 8 bits and the rest in `dtype` (None: as they are)."""
    stored: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        if name in drop:
            continue
        if tensor.ndim == 2 and tensor.is_floating_point():
            stored[name], stored[name + SCALE] = round_rows(tensor)
        else:
            stored[name] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    write_safetensors(path, {name: (t.dtype, tuple(t.shape)) for name, t in stored.items()}, stored.__getitem__)


def with_matrices(state: Checkpoint) -> Mapping[str, Tensor]:
    """The tensors of a file in float32, matrices in 8 bits among them; `state` itself, mapped, where it has none."""
    scaled = [name for name in state if name + SCALE in state and state.dtype_of(name) == torch.int8]
    if not scaled:
        return state
    for name in scaled:
        rows, scales = state.shape_of(name), state.shape_of(name + SCALE)
        if len(rows) != 2 or scales != rows[:1] or not state.dtype_of(name + SCALE).is_floating_point:
            raise CheckpointError(f"{state.path}: {name} has {rows} values and {scales} scales, expected one a row")
    scales_of = {name + SCALE for name in scaled}
    out = {name: _in_float32(state[name]) for name in state if name not in scales_of}
    return out | {name: out[name].float() * state[name + SCALE].float()[:, None] for name in scaled}


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
