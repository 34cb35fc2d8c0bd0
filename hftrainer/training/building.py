"""Building what a configuration names, with those of the run's own objects that it asks for."""

from __future__ import annotations

import inspect
from typing import Any

from hftrainer.registry import Registry, make


def build_with(registry: Registry, section: dict[str, Any], path: str, **runtime: Any) -> Any:
    """Build a callback or a logger; of `runtime` it gets the arguments that its signature has.

    So a class of Lightning's or of a user's own, which knows nothing of a run's folder, needs no adapter.
    """
    factory, config = registry.resolve(section, path=path)
    called = getattr(factory, "from_config", factory)
    wanted = inspect.signature(called).parameters
    return make(factory, config, **{name: value for name, value in runtime.items() if name in wanted})
