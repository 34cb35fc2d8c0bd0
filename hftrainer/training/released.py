"""Sections of a task that have a released default: what a configuration leaves out is the release's.

`optimizer_part` makes the field `task.optimizer`, `loss_part` the field `task.loss`. A section that names the released
optimizer (or none) takes over what it does not say; one with another name starts from that one's own defaults. What
an earlier release wrote is translated, with a warning that says what to write.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hftrainer.config import warn_old
from hftrainer.registry import LOSSES, OPTIMIZERS, Part, Registry

_MOVED = {"warmup": "warmup", "final": "min_lr_ratio", "drops": "milestones", "gamma": "gamma"}
_MEANT_FOR = {"cosine": {"final"}, "steps": {"drops", "gamma"}, "constant": set()}


class Released:
    """Stands for `registry` in a field: makes a `Part` of a section and of what the release had."""

    def __init__(self, registry: Registry, default: Mapping[str, Any]):
        self.registry, self.default = registry, dict(default)

    def part(self, section: Mapping[str, Any] | Part, *, path: str = "") -> Part:
        """The checked part."""
        if isinstance(section, Part):
            return section
        fields = dict(section)
        if self.registry is OPTIMIZERS:
            fields = upgrade_optimizer(fields, path, self.default.get("schedule", {}).get("name", "cosine"))
        elif fields and "name" not in fields:
            warn_old(path, f"{path}: {{name: {self.default['name']}, ...}}")
        return self.registry.part(_filled(fields, self.default), path=path)

    def __deepcopy__(self, memo: Any) -> Released:
        return self


def optimizer_part(**default: Any) -> Any:
    """A field for an optimizer; `default`: the section that the release had, with its schedule."""
    return _field(Released(OPTIMIZERS, {"name": "adamw", **default}))


def loss_part(name: str, **default: Any) -> Any:
    """A field for a loss; `default`: what the release had."""
    return _field(Released(LOSSES, {"name": name, **default}))


def _field(released: Released) -> Any:
    return dataclasses.field(default_factory=lambda: released.part({}), metadata={"registry": released})


def _filled(fields: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """`fields`, filled in from `default` where both name the same thing."""
    if fields.get("name", default.get("name")) != default.get("name"):
        return dict(fields)
    out = {**default, **fields}
    for key, value in default.items():
        if isinstance(value, Mapping) and isinstance(fields.get(key), Mapping):
            out[key] = _filled(fields[key], value)
    return out


def upgrade_optimizer(fields: dict[str, Any], path: str, default: str) -> dict[str, Any]:
    """The section as it is written now: the schedule is a section of its own with a name, by default `default`."""
    schedule = fields.get("schedule")
    old = sorted(_MOVED.keys() & fields.keys())
    if not old and not isinstance(schedule, str):
        return fields
    kind = schedule if isinstance(schedule, str) else default
    moved = {"name": kind, **(schedule if isinstance(schedule, Mapping) else {})}
    for key in old:
        value = fields.pop(key)
        if key == "warmup" or key in _MEANT_FOR.get(kind, set()):
            moved[_MOVED[key]] = value
    fields["schedule"] = moved
    written = ", ".join(f"{key}: {value}" for key, value in moved.items())
    warn_old(path, f"{path}.schedule: {{{written}}}")
    return fields
