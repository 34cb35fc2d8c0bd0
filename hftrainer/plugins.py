"""Installed packages that add names to the registries, by the entry-point group ``hftrainer.plugins``.

Each entry point names a module that registers what it has when it is imported. Plug-ins are imported in the order of
their names, once, at the first look-up of a name that is not built in. One that cannot be imported is named in a
warning, what it had registered until then is taken back, and the others load all the same.
"""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points
from types import ModuleType

GROUP = "hftrainer.plugins"


class PluginWarning(UserWarning):
    """A plug-in that could not be loaded; its names are missing."""


_modules: dict[str, ModuleType] | None = None
_failures: dict[str, str] = {}


def load_plugins() -> dict[str, ModuleType]:
    """The modules of all working plug-ins, by the names of their entry points (two of one name: with the module)."""
    global _modules
    if _modules is not None:
        return _modules
    from hftrainer.registry import withdraw

    _modules = {}  # before loading: a plug-in may itself look names up
    _failures.clear()
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        key = point.name if point.name not in {*_modules, *_failures} else f"{point.name} ({point.value})"
        try:
            _modules[key] = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever a stranger's module raises
            withdraw(point.value.partition(":")[0])
            _failures[key] = _describe(point.name, point.value, error)
            warnings.warn(_failures[key], PluginWarning, stacklevel=2)
    return _modules


def plugin_failures() -> dict[str, str]:
    """What is wrong with each plug-in that could not be loaded, by the name of its entry point."""
    return dict(_failures)


def _describe(name: str, value: str, error: BaseException) -> str:
    return f"The plug-in {name!r} ({value}) cannot be loaded: {type(error).__name__}: {error}"
