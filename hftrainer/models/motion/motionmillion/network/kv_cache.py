"""Keys and values of what has been decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.network.attention import padded_head


class LayerCache(Protocol):
    """The cache as one block sees it in one pass."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values (b, heads, t, s); all those that queries may look at (b, heads, keys, s)."""


class KVCache:
    """Keys and values, allocated once: `blocks` (layers, rows, 2, heads, max_seq_len, head), of `cache_dtype`.

    Row i keeps its text in slots 0 .. n_i - 1 and its motion right behind: slot and position are one number. In memory
    a head's slots are contiguous on CPUs, as their attention wants it; on CUDA a slot's heads are, and all keys of a
    layer are one list of slots (rows * max_seq_len, heads, head), as kernels with a length for each row want it.
    """

    def __init__(self, layers: int, rows: int, heads: int, max_seq_len: int, head_size: int, like: Tensor):
        head, dtype = padded_head(head_size, like.device), cache_dtype(like)
        if like.device.type == "cuda":
            blocks = like.new_zeros((layers, 2, rows, max_seq_len, heads, head), dtype=dtype)
            self.blocks = blocks.permute(0, 2, 1, 4, 3, 5)
        else:
            self.blocks = like.new_zeros((layers, rows, 2, heads, max_seq_len, head), dtype=dtype)

    @property
    def max_seq_len(self) -> int:
        """Positions that a row has room for."""
        return self.blocks.shape[4]

    def first(self, rows: int) -> KVCache:
        """The first `rows` rows, in the same memory."""
        part = object.__new__(KVCache)
        part.blocks = self.blocks[:, :rows]
        return part

    def write(self, rows: Tensor, other: KVCache, theirs: Tensor) -> None:
        """Copy rows `theirs` (r,) of a cache with no more slots to `rows` (r,) of this one."""
        self.blocks[:, rows, :, :, : other.max_seq_len] = other.blocks[:, theirs]

    def move(self, source: int, target: int, kv_len: int) -> None:
        """Copy the first `kv_len` slots of one row to another."""
        self.blocks[:, target, :, :, :kv_len] = self.blocks[:, source, :, :, :kv_len]

    def prefill(self) -> list[LayerCache]:
        """For a pass over complete rows, from their first position."""
        return [_Prefill(block) for block in self.blocks]

    def step(self, positions: Tensor, kv_len_bound: int, *, even: bool = False) -> list[LayerCache]:
        """For a pass over one more position a row, `positions` (b,), each below `kv_len_bound`; `even`: all of them are
        kv_len_bound - 1."""
        if even:
            return [_EvenStep(block[:, :, :, :kv_len_bound]) for block in self.blocks]
        rows = torch.arange(len(positions), device=positions.device)
        return [_Step(block[:, :, :, :kv_len_bound], rows, positions) for block in self.blocks]


@dataclass
class _Prefill:
    block: Tensor

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        _, _, width, size = k.shape
        self.block[:, 0, :, :width, :size], self.block[:, 1, :, :width, :size] = k, v
        return k, v  # what is new is all there is


@dataclass
class _Step:
    block: Tensor
    rows: Tensor
    positions: Tensor

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.block.unbind(dim=1)
        for cached, new in ((keys, k), (values, v)):
            cached[..., : new.shape[-1]][self.rows, :, self.positions] = new[:, :, 0].to(cached.dtype)
        return keys, values


@dataclass
class _EvenStep:
    block: Tensor

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.block[:, 0, :, -1:, : k.shape[-1]], self.block[:, 1, :, -1:, : v.shape[-1]] = k, v
        return self.block[:, 0], self.block[:, 1]


def cache_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a model with such weights keeps keys and values in.

    torch's attention for CPUs takes three to five times as long on one query in bfloat16 as in float32.
    """
    half = weight.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if half and weight.device.type == "cpu" else weight.dtype
