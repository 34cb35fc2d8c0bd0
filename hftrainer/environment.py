"""Variables of the environment in configurations: only those that a configuration asks for by name, and kept out of
what is written or logged.

``${oc.env:NAME}`` would let any configuration read any secret of the user and hand it to a logger. Here it gives the
variables that ``allow_env`` lists, and `without_secrets` puts the expression back in the place of the value.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from inspect import signature
from typing import Any

from omegaconf import OmegaConf

_NOTHING = object()
_LONG = 6  # letters; shorter values are matched only as complete strings
_allowed: ContextVar[tuple[str, ...]] = ContextVar("allowed", default=())
_values: dict[str, str] = {}  # what was given out, by expression


@contextlib.contextmanager
def environment_for(names: Sequence[str]) -> Iterator[None]:
    """Inside, ``${oc.env:NAME}`` gives the variables `names`; any other is a ``ValueError``."""
    token = _allowed.set(tuple(names))
    try:
        yield
    finally:
        _allowed.reset(token)


def without_secrets(value: Any) -> Any:
    """Plain data in which every value that came from the environment is the expression that asked for it."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    for expression, secret in _values.items():
        if value == secret:
            return expression
        if len(secret) >= _LONG:
            value = value.replace(secret, expression)
    return value


def _from_environment(name: str, default: Any = _NOTHING) -> Any:
    if name not in _allowed.get():
        raise ValueError(
            f"the configuration uses the environment variable {name!r}, which it may not read; if you trust the "
            f"file, add to it: allow_env: [{name}]"
        )
    if name in os.environ:
        if os.environ[name]:
            _values[f"${{oc.env:{name}}}"] = os.environ[name]
        return os.environ[name]
    if default is _NOTHING:
        raise ValueError(f"the configuration uses the environment variable {name!r}, which is not set")
    return None if default is None else str(default)


_register: Any = OmegaConf.register_resolver
if "replace" not in signature(_register).parameters:  # before OmegaConf 2.4 the name was that of an older function
    _register = OmegaConf.register_new_resolver
_register("oc.env", _from_environment, replace=True)
