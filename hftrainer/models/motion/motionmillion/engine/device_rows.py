"""Rows on the device that move and shrink together with their cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.network.kv_cache import KVCache

Rows = TypeVar("Rows", bound="DeviceRows")


class DeviceRows:
    """A `cache`, and tensors with an entry for each of its rows, whose names are `per_row`."""

    per_row: ClassVar[tuple[str, ...]]
    cache: KVCache

    def move(self, moves: Sequence[tuple[int, int]], kv_lens: Sequence[int]) -> None:
        """Move rows as `plan_compaction` says; a row has written at most its `kv_lens` slots."""
        for source, target in moves:
            self.cache.move(source, target, kv_lens[source])
        sources, targets = torch.tensor(moves, device=self.cache.blocks.device).T
        for name in self.per_row:
            tensor: Tensor = getattr(self, name)
            tensor[targets] = tensor[sources]

    def first(self: Rows, rows: int) -> Rows:
        """The first `rows` rows, in the same memory."""
        part: Any = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        for name in self.per_row:
            setattr(part, name, getattr(self, name)[:rows])
        part.cache = self.cache.first(rows)
        return part  # type: ignore[no-any-return]
