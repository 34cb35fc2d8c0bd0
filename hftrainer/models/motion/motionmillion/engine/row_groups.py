"""Which rows attention reads together on a CPU, and how rows of like length come to stand side by side.

Optional reading: what a row becomes does not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.network.attention import additive, attend

GROUP = 8  # rows that are read alike, and kept together by `plan_compaction`
_CALL = 128  # slots of rows that attention reads in the time that one more call of it takes


class RowGroups:
    """What each of b rows sees, read group by group and no further than the longest row of a group goes."""

    def __init__(self, positions: Tensor, dtype: torch.dtype):
        self.spans = kv_spans(positions.tolist())
        self.masks = [
            None if span.even else _seen(positions[span.start : span.stop], span.kv_len, dtype) for span in self.spans
        ]

    @property
    def even(self) -> bool:
        """Whether all rows are at one position."""
        return len(self.spans) == 1 and self.spans[0].even

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """As `network.attention.attend`."""
        if len(self.spans) == 1:
            kv_len = self.spans[0].kv_len
            return attend(q, k[:, :, :kv_len], v[:, :, :kv_len], self.masks[0], scale)
        parts = [
            attend(q[start:stop], k[start:stop, :, :kv_len], v[start:stop, :, :kv_len], mask, scale)
            for (start, stop, kv_len, _), mask in zip(self.spans, self.masks, strict=True)
        ]
        return torch.cat(parts)


def _seen(positions: Tensor, kv_len: int, dtype: torch.dtype) -> Tensor:
    return additive((torch.arange(kv_len) <= positions[:, None])[:, None, None], dtype)


class Span(NamedTuple):
    """Rows start .. stop - 1, none of which is beyond slot `kv_len` - 1; `even`: all of them are there."""

    start: int
    stop: int
    kv_len: int
    even: bool


def kv_spans(positions: Sequence[int]) -> list[Span]:
    """The rows in as few spans as are worthwhile: a call of attention reads as far as its longest row goes."""
    spans: list[Span] = []
    for start in range(0, len(positions), GROUP):
        part = positions[start : start + GROUP]
        new = Span(start, start + len(part), max(part) + 1, min(part) == max(part))
        if spans and _waste(spans[-1], new) <= _CALL:
            old = spans.pop()
            even = old.even and new.even and old.kv_len == new.kv_len
            new = Span(old.start, new.stop, max(old.kv_len, new.kv_len), even)
        spans.append(new)
    return spans


def _waste(a: Span, b: Span) -> int:
    """Slots that are read for nothing if two spans are read as one."""
    kv_len = max(a.kv_len, b.kv_len)
    return (kv_len - a.kv_len) * (a.stop - a.start) + (kv_len - b.kv_len) * (b.stop - b.start)


def plan_compaction(kv_lens: Sequence[int]) -> list[tuple[int, int]]:
    """Moves (source, target), one after another and each to a row that is free then, after which the rows that reach
    furthest are together in the first group of `GROUP`, the next in the second, and so on; free rows, which reach 0,
    come last. Few rows move: those whose group changes. Rows that could only trade places stay where they are."""
    order = sorted((row for row, slots in enumerate(kv_lens) if slots), key=lambda row: -kv_lens[row])
    wanted: dict[int, int] = {}  # source by target
    for start in range(0, len(order), GROUP):
        members = order[start : start + GROUP]
        places = range(start, start + len(members))
        vacant = sorted(set(places) - set(members))
        wanted |= zip(vacant, (row for row in members if row not in places), strict=True)
    moves: list[tuple[int, int]] = []
    for free in [row for row, slots in enumerate(kv_lens) if not slots]:
        while free in wanted:
            source = wanted.pop(free)
            moves.append((source, free))
            free = source
    return moves
