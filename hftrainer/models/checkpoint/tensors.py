"""Tensors in files, by place: nothing is read before it is asked for, and what is read is memory-mapped."""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hftrainer.models.checkpoint.errors import CheckpointError

# Pages are copied when they are written to. MAP_NORESERVE: no memory is set aside for that, without which the kernel
# refuses to map a file that is larger than the machine's memory, as a 7B checkpoint with its optimizer is.
_PRIVATE: dict[str, Any] = {"access": mmap.ACCESS_COPY}
if sys.platform == "linux":
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | 0x4000, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
MAX_DIMENSIONS = 64  # torch's own limit
MAX_SIZE = 1 << 62  # of an axis, and of all axes together in bytes
_EXPANDED = 64  # an expanded tensor may be larger than its storage by this factor; a file of 10 bytes is no terabyte
_SMALL = 64 << 20
# files that one checkpoint has mapped; a mapping holds a file descriptor, so its tensors share it
Mappings = weakref.WeakValueDictionary[Path, mmap.mmap]


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
        if len(self.shape) > MAX_DIMENSIONS or any(type(n) is not int or not 0 <= n < MAX_SIZE for n in sizes):
            raise CheckpointError(f"{name}: its shape, strides or offset are no sizes of a tensor")
        if len(self.shape) != len(self.stride):
            raise CheckpointError(f"{name}: shape {self.shape} and stride {self.stride} do not belong together")
        reach = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True)) + 1
        if prod(self.shape) and reach > self.storage.numel:
            raise CheckpointError(
                f"{name}: needs {reach} items of {self.dtype}, its storage holds {self.storage.numel}"
            )
        if prod(max(n, 1) for n in self.shape) * self.dtype.itemsize >= MAX_SIZE:
            raise CheckpointError(f"{name}: no tensor of shape {self.shape} can be had")
        if self.nbytes > max(_SMALL, _EXPANDED * self.storage.nbytes):
            raise CheckpointError(
                f"{name}: shape {self.shape} with stride {self.stride} makes {self.nbytes} bytes out of "
                f"{self.storage.nbytes}, which no weights are"
            )

    def load(self, mappings: Mappings | None = None) -> Tensor:
        """The tensor, mapped from the file where it is aligned and read otherwise; changes do not reach the file.

        With `mappings`, tensors that are alive share their file's mapping.
        """
        ref = self.storage
        if ref.numel == 0:
            return torch.empty(self.shape, dtype=ref.dtype)
        flat = _mapped(ref, Mappings() if mappings is None else mappings)
        return flat.as_strided(self.shape, self.stride, flat.storage_offset() + self.offset)


def _mapped(ref: StorageRef, mappings: Mappings) -> Tensor:
    """A storage's items in a private mapping of their file, which lives as long as a tensor in it."""
    pages = mappings.get(ref.path)
    if pages is None:
        with open(ref.path, "rb") as stream:
            pages = mappings[ref.path] = mmap.mmap(stream.fileno(), os.fstat(stream.fileno()).st_size, **_PRIVATE)
    if len(pages) < ref.start + ref.nbytes:
        raise CheckpointError(f"{ref.path} has become shorter since it was opened")
    if ref.start % ref.dtype.itemsize == 0:
        return torch.frombuffer(pages, dtype=ref.dtype, count=ref.numel, offset=ref.start)
    flat = torch.frombuffer(pages, dtype=torch.uint8, count=ref.nbytes, offset=ref.start)
    return flat.clone().view(ref.dtype)  # torch wants items at multiples of their size


def contiguous_ref(path: Path, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> TensorRef:
    """A tensor that lies in a file in row-major order."""
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= size
    return TensorRef(StorageRef(path, start, dtype, prod(shape)), shape, tuple(reversed(stride)))
