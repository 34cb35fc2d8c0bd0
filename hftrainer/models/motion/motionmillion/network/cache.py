"""Keys and values of what has been decoded, allocated once. Row i keeps position p in slot p."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class KVCache:
    """`keys` and `values`, each (layers, rows, heads, slots, head_size)."""

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        slots: int,
        head_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        shape = (layers, rows, heads, slots, head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.rows = torch.arange(rows, device=device)

    def at(self, layer: int, positions: Tensor | slice, live: int | None = None) -> CacheSlot:
        """Where a layer writes now: the same slots in every row, or one position a row; `live` slots are read."""
        return CacheSlot(self.keys[layer], self.values[layer], self.rows, positions, live)


class CacheSlot(NamedTuple):
    """A layer's part of the cache at the current positions."""

    keys: Tensor
    values: Tensor
    rows: Tensor
    positions: Tensor | slice
    live: int | None

    def store(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values (b, heads, t, head_size); give back those that queries look at."""
        if isinstance(self.positions, slice):
            self.keys[:, :, self.positions] = k
            self.values[:, :, self.positions] = v
            return k, v
        self.keys[self.rows, :, self.positions] = k[:, :, 0]
        self.values[self.rows, :, self.positions] = v[:, :, 0]
        return self.keys[:, :, : self.live], self.values[:, :, : self.live]
