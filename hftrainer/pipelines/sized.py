"""An iterator that knows how many items come, and a bar for it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class SizedIterator(Generic[Item]):
    """`items`, of which there are `count`: what a progress bar wants to know."""

    def __init__(self, items: Iterator[Item], count: int):
        self.items, self.count = items, count

    def __iter__(self) -> Iterator[Item]:
        return self.items

    def __len__(self) -> int:
        return self.count


def show_progress(items: Iterable[Any]) -> Iterable[Any]:
    """A bar on a terminal or in a notebook; elsewhere, and for a single item, nothing."""
    notebook = "ipykernel" in sys.modules
    if not (notebook or sys.stderr.isatty()) or (isinstance(items, SizedIterator) and len(items) < 2):
        return items
    from tqdm.auto import tqdm

    bar: Iterable[Any] = tqdm(items, desc="motions")
    return bar
