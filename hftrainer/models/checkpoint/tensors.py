"""Tensors in files, by place: nothing is read before it is asked for, and what is read is memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hftrainer.models.checkpoint.errors import CheckpointError


@dataclass(frozen=True)
class StorageRef:
    """`numel` items of `dtype` from byte `start` of a file on."""

    path: Path
    start: int
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class TensorRef:
    """A tensor in a storage; `offset` and `stride` in items."""

    storage: StorageRef
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Type of an item."""
        return self.storage.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, which may be less than its storage's."""
        return prod(self.shape) * self.dtype.itemsize

    def check(self, name: str) -> None:
        """Raise `CheckpointError` if the tensor reaches outside its storage."""
        sizes = (*self.shape, *self.stride, self.offset)
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in sizes):
            raise CheckpointError(
                f"{name}: shape {self.shape}, stride {self.stride}, offset {self.offset} are no sizes"
            )
        if len(self.shape) != len(self.stride):
            raise CheckpointError(f"{name}: shape {self.shape} and stride {self.stride} do not belong together")
        reach = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True)) + 1
        if prod(self.shape) and reach > self.storage.numel:
            raise CheckpointError(
                f"{name}: needs {reach} items of {self.dtype}, its storage holds {self.storage.numel}"
            )

    def load(self) -> Tensor:
        """The tensor, mapped from the file where it is aligned and read otherwise; changes do not reach the file."""
        ref = self.storage
        if ref.numel == 0:
            return torch.empty(self.shape, dtype=ref.dtype)
        if ref.start % ref.dtype.itemsize == 0:
            whole = _mapped(ref.path)
            flat = torch.empty(0, dtype=ref.dtype).set_(whole, ref.start // ref.dtype.itemsize, (ref.numel,), (1,))
        else:
            data = np.fromfile(ref.path, dtype=np.uint8, count=ref.nbytes, offset=ref.start)
            flat = torch.from_numpy(data).view(ref.dtype)
        return flat.as_strided(self.shape, self.stride, flat.storage_offset() + self.offset)


def _mapped(path: Path) -> Any:
    """A file as a private mapping; it is unmapped with the last tensor in it."""
    return torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)


def contiguous_ref(path: Path, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> TensorRef:
    """A tensor that lies in a file in row-major order."""
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= size
    return TensorRef(StorageRef(path, start, dtype, prod(shape)), shape, tuple(reversed(stride)))
