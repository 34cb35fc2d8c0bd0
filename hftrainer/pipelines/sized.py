"""An iterator that knows how many items come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class SizedIterator(Generic[Item]):
    """`items`, of which there are `count`: what a progress bar wants to know."""

    def __init__(self, items: Iterator[Item], count: int):
        self.items, self.count = items, count

    def __iter__(self) -> Iterator[Item]:
        return self.items

    def __len__(self) -> int:
        return self.count
