"""Fields of configuration dataclasses that say what values they take: ranges of numbers, choices of words.

``lr: float = number(4e-4, above=0)`` is checked by `hftrainer.config.typed`, whose message has the path of the field.
Every number of a configuration has to be finite, with or without a range.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `at_least` (or `above`) to `at_most` (or `below`), as far as they are given."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def allows(self, value: float) -> bool:
        """Whether a number lies inside."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        parts = [
            text.format(value)
            for text, value in (
                ("at least {:g}", self.at_least),
                ("above {:g}", self.above),
                ("at most {:g}", self.at_most),
                ("below {:g}", self.below),
            )
            if value is not None
        ]
        return " and ".join(parts)


def number(
    default: Any = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field for a number in a range, or for a list of such numbers; None passes where the type allows it."""
    metadata = {"range": Range(at_least, above, at_most, below)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def choice(default: str, options: Sequence[str]) -> Any:
    """A field for one of a few words."""
    return dataclasses.field(default=default, metadata={"choices": tuple(options)})


def problems(config: Any, path: str = "") -> Iterator[str]:
    """What is wrong with the values of a dataclass and of those in it, as sentences that begin with their paths."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        where = f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from problems(value, where)
        elif value is not None:
            yield from _of_value(field, value, where)


def _of_value(field: dataclasses.Field[Any], value: Any, where: str) -> Iterator[str]:
    choices = field.metadata.get("choices")
    if choices is not None and value not in choices:
        yield f"{where} must be one of {', '.join(choices)}, got {value!r}"
    allowed: Range | None = field.metadata.get("range")
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            continue
        if not math.isfinite(one):
            yield f"{where} must be a finite number, got {one}"
        elif allowed is not None and not allowed.allows(one):
            yield f"{where} must be {allowed}, got {one}"
