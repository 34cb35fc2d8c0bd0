"""Registries: every row resolves, names that do not are helped, plugins and paths work."""

from __future__ import annotations

import importlib.metadata
import sys
import types

import pytest

from hftrainer import registry
from hftrainer.config import ConfigError
from hftrainer.registry import CALLBACKS, DATASETS, EVALUATORS, MODELS, PIPELINES, TASKS, Registry

ALL = [MODELS, PIPELINES, TASKS, DATASETS, EVALUATORS, CALLBACKS]


@pytest.mark.parametrize(
    ("table", "name"), [(t, n) for t in ALL for n in t.names()], ids=lambda v: getattr(v, "kind", v)
)
def test_every_row_registers_itself(table, name):
    if table in (TASKS, CALLBACKS):
        pytest.importorskip("lightning")
    assert callable(table.get(name))


def test_unknown_names_list_the_near_ones():
    with pytest.raises(ConfigError, match=r"no pipeline called 'motionmilion'. Did you mean 'motionmillion'\?"):
        PIPELINES.get("motionmilion")


def test_a_name_with_a_colon_is_the_target():
    assert MODELS.get("collections:OrderedDict") is __import__("collections").OrderedDict
    with pytest.raises(ConfigError, match="cannot be imported"):
        MODELS.get("no_such_module:Thing")
    with pytest.raises(ConfigError, match="expected a class or a function"):
        MODELS.get("string:digits")


def test_two_classes_cannot_share_a_name():
    table = Registry("thing", {})

    @table.register("a")
    class First: ...

    with pytest.raises(ValueError, match="the thing 'a' is already"):

        @table.register("a")
        class Second: ...

    assert table.get("a") is First


def test_plugins_register_through_their_entry_point(monkeypatch):
    table = Registry("thing", {})
    module = types.ModuleType("some_plugin")
    module.table = table
    monkeypatch.setitem(sys.modules, "some_plugin", module)

    class Point:
        def load(self):
            table.register("from-plugin")(dict)

    monkeypatch.setattr(registry, "_plugins_loaded", False)
    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "hftrainer.plugins" else [])
    assert table.get("from-plugin") is dict
    assert "from-plugin" in table.names()
    assert importlib.metadata.entry_points is not None


def test_building_without_a_schema_passes_keywords():
    table = Registry("thing", {})
    table.register("a")(dict)
    assert table.build({"name": "a", "x": 1}, y=2) == {"x": 1, "y": 2}
    with pytest.raises(ConfigError, match=r"model\.name is missing"):
        table.build({"x": 1}, path="model")
