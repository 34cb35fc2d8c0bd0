"""Keys and values of what has been decoded, and which of them a step has to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 8  # rows that are read alike on a CPU, and kept together by `arrange`
_CALL = 128  # slots of rows that attention reads in the time that one more call of it takes


class KVCache:
    """Keys and values, allocated once: `blocks` (layers, rows, 2, heads, slots, head_size), of `cache_dtype`."""

    def __init__(self, layers: int, rows: int, heads: int, slots: int, head_size: int, like: Tensor):
        self.blocks = like.new_zeros((layers, rows, 2, heads, slots, head_size), dtype=cache_dtype(like))

    @property
    def slots(self) -> int:
        """Positions that a row has room for."""
        return self.blocks.shape[4]

    def keep(self, rows: int) -> None:
        """Go on with the first `rows` rows."""
        self.blocks = self.blocks[:, :rows]

    def write(self, rows: Tensor, other: KVCache, theirs: Tensor) -> None:
        """Copy rows `theirs` (r,) of a cache with no more slots to `rows` (r,) of this one."""
        self.blocks[:, rows, :, :, : other.slots] = other.blocks[:, theirs]

    def move(self, source: int, target: int, live: int) -> None:
        """Copy the first `live` slots of one row to another."""
        self.blocks[:, target, :, :, :live] = self.blocks[:, source, :, :, :live]


def cache_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a model with such weights keeps keys and values in.

    torch's attention for CPUs takes three to five times as long on one query in bfloat16 as in float32.
    """
    half = weight.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if half and weight.device.type == "cpu" else weight.dtype


class Span(NamedTuple):
    """Rows start .. stop - 1, none of which is beyond slot `live` - 1; `even`: all of them are there."""

    start: int
    stop: int
    live: int
    even: bool


def live_spans(positions: Sequence[int]) -> list[Span]:
    """The rows in as few spans as pay: a call of attention reads as far as its longest row goes."""
    spans: list[Span] = []
    for start in range(0, len(positions), GROUP):
        part = positions[start : start + GROUP]
        new = Span(start, start + len(part), max(part) + 1, min(part) == max(part))
        if spans and _waste(spans[-1], new) <= _CALL:
            old = spans.pop()
            even = old.even and new.even and old.live == new.live
            new = Span(old.start, new.stop, max(old.live, new.live), even)
        spans.append(new)
    return spans


def _waste(a: Span, b: Span) -> int:
    """Slots that are read in vain if two spans are read as one."""
    live = max(a.live, b.live)
    return (live - a.live) * (a.stop - a.start) + (live - b.live) * (b.stop - b.start)


def arrange(reach: Sequence[int]) -> list[tuple[int, int]]:
    """Moves (source, target), one after another and each to a row that is free then, after which the rows that reach
    furthest are together in the first group of `GROUP`, the next in the second, and so on; free rows, which reach 0,
    come last. Few rows move: those whose group changes. Rows that could only trade places stay where they are."""
    order = sorted((row for row, slots in enumerate(reach) if slots), key=lambda row: -reach[row])
    wanted: dict[int, int] = {}  # source by target
    for start in range(0, len(order), GROUP):
        members = order[start : start + GROUP]
        places = range(start, start + len(members))
        vacant = sorted(set(places) - set(members))
        wanted |= zip(vacant, (row for row in members if row not in places), strict=True)
    moves: list[tuple[int, int]] = []
    for free in [row for row, slots in enumerate(reach) if not slots]:
        while free in wanted:
            source = wanted.pop(free)
            moves.append((source, free))
            free = source
    return moves
