"""Work that is divided among the processes of a run."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def share(trainer: Any, count: int) -> list[int]:
    """Which of `count` things are this process's."""
    return list(range(count))[trainer.global_rank :: trainer.world_size]


def gather(trainer: Any, mine: dict[int, T]) -> dict[int, T]:
    """Everyone's things on every process, by their number in order."""
    if trainer.world_size > 1:
        parts: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(parts, mine)
        mine = {number: thing for part in parts for number, thing in part.items()}
    return dict(sorted(mine.items()))


def gather_list(trainer: Any, mine: list[T]) -> list[T]:
    """The lists of all processes, one after the other."""
    return [thing for part in gather(trainer, {trainer.global_rank: mine}).values() for thing in part]
