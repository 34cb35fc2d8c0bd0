"""``${...}`` in configurations: only those whose size can be told before they are replaced, and resolvers that a
plug-in registered, which are its own code.

A hundred short lines that name each other twice stand for more than there is memory for.
"""

from __future__ import annotations

import re
from typing import Any

from omegaconf import OmegaConf

MAX_EXPANDED = 10_000_000  # letters and items
_MAX_EXPRESSIONS = 50_000  # letters; OmegaConf parses some ten thousand of them a second
# the name of a field, a variable of the environment with or without a default, or one that is written as text: \\${
_EXPRESSION = re.compile(r"\$\{\s*[\w.\[\]-]+\s*\}|\$\{\s*oc\.env:[^${}]*\}|(?<!\\)(?:\\\\)*\\\$\{")


_RESOLVER = re.compile(r"\$\{\s*(?!oc\.)([A-Za-z_][\w.]*)\s*:[^${}]*\}")


def _without(found: re.Match[str]) -> str:
    return "" if OmegaConf.has_resolver(found[1]) else found[0]


def why_not_replaced(raw: Any) -> str | None:
    """Why the expressions of a configuration are not replaced; None if they may be."""
    return _unknown(raw) or (
        f"what its interpolations stand for is longer than {MAX_EXPANDED} letters"
        if _expanded(raw) > MAX_EXPANDED
        else None
    )


def _unknown(raw: Any) -> str | None:
    """The first expression whose size cannot be told, or that there are more than can be parsed in seconds."""
    letters, waiting = 0, [raw]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
        elif isinstance(value, str) and "${" in value:
            letters += len(value)
            if "${" in _RESOLVER.sub(_without, _EXPRESSION.sub("", value)):
                return (
                    f"{value[:80]!r} has an expression other than ${{name.of.field}}, ${{oc.env:NAME}} and those of "
                    "resolvers that a plug-in registered"
                )
    return (
        None if letters <= _MAX_EXPRESSIONS else f"its values with ${{...}} have more than {_MAX_EXPRESSIONS} letters"
    )


def _expanded(raw: Any) -> int:
    """At most how many letters and items a configuration has once ``${...}`` are replaced."""
    values: dict[str, list[Any]] = {}
    waiting = [raw]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                values.setdefault(str(key), []).append(item)
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    known: dict[str, int] = {}

    def named(word: str) -> int:
        if word not in known:
            known[word] = 0  # one that stands for itself is an error of its own
            known[word] = max(map(size, values[word]))
        return known[word]

    def size(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + sum(map(size, value.values()))
        if isinstance(value, list):
            return 1 + sum(map(size, value))
        if not isinstance(value, str) or "${" not in value:
            return len(value) if isinstance(value, str) else 1
        return len(value) + sum(named(word) for word in re.findall(r"[\w-]+", value) if word in values)

    return size(raw)
