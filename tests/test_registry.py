"""Registries: every row resolves, names that do not are helped, plug-ins and paths are checked like built-ins."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from hftrainer import plugins, registry
from hftrainer.config import ConfigError, plain, typed
from hftrainer.registry import CALLBACKS, MODELS, PIPELINES, Registry, part

ALL = [table for table in vars(registry).values() if isinstance(table, Registry)]


@pytest.fixture(autouse=True)
def _registries_as_before():
    before = list(registry._REGISTRIES)
    targets = [dict(table._targets) for table in before]
    yield
    registry._REGISTRIES[:] = before
    for table, known in zip(before, targets, strict=True):
        table._targets = {**{name: c for name, c in table._targets.items() if name in table._modules}, **known}


@pytest.mark.parametrize(
    ("table", "name"), [(t, n) for t in ALL for n in t._modules], ids=lambda v: getattr(v, "kind", v)
)
def test_every_row_registers_itself(table, name):
    if "training" in table._modules[name]:
        pytest.importorskip("lightning")
    assert callable(table.get(name))


def test_unknown_names_list_the_near_ones():
    with pytest.raises(ConfigError, match=r"no pipeline called 'motionmilion'. Did you mean 'motionmillion'\?"):
        PIPELINES.get("motionmilion")
    with pytest.raises(ConfigError, match=r"callbacks\[1\]\.name: there is no callback called 'emma'"):
        CALLBACKS.resolve({"name": "emma"}, path="callbacks[1]")


def test_a_name_with_a_colon_is_the_target():
    assert MODELS.get("torch.nn:Linear") is __import__("torch").nn.Linear
    with pytest.raises(ConfigError, match="cannot be imported"):
        MODELS.get("no_such_module:Thing")
    with pytest.raises(ConfigError, match="expected a class or a function"):
        MODELS.get("string:digits")
    with pytest.raises(ConfigError, match=r"'collections:OrderedDict' is not a model: .* derived from Module"):
        MODELS.get("collections:OrderedDict")
    with pytest.raises(ConfigError, match=r"'os:getcwd' is not a callback"):
        CALLBACKS.get("os:getcwd")
    with pytest.raises(ConfigError, match="is not a pipeline: it has no from_pretrained"):
        PIPELINES.get("collections:OrderedDict")


def test_arguments_of_a_class_without_a_schema_are_bound_before_it_is_built():
    pytest.importorskip("lightning")
    early = "lightning.pytorch.callbacks:EarlyStopping"
    with pytest.raises(ConfigError, match=r"callbacks\[0\].*unexpected keyword argument 'monitr'|missing.*'monitor'"):
        CALLBACKS.resolve({"name": early, "monitr": "val/loss"}, path="callbacks[0]")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'patienc'; its arguments: monitor, "):
        CALLBACKS.resolve({"name": early, "monitor": "val/loss", "patienc": 2}, path="callbacks[0]")
    assert CALLBACKS.resolve({"name": early, "monitor": "val/loss"})[1] == {"monitor": "val/loss"}
    with pytest.raises(ConfigError, match="missing a required argument"):
        MODELS.resolve({"name": "torch.nn:Linear", "in_features": 2}, path="model")
    assert MODELS.resolve({"name": "torch.nn:Linear", "in_features": 2}, runtime=["out_features"])


def test_a_config_that_is_no_dataclass_is_named():
    table = Registry("thing")

    @table.register("a")
    class Bad:
        Config = dict

    with pytest.raises(ConfigError, match=r"thing: .*Bad\.Config must be a dataclass"):
        table.resolve({"name": "a"})


def test_two_classes_cannot_share_a_name():
    table = Registry("thing")

    @table.register("a")
    class First: ...

    with pytest.raises(ValueError, match="the thing 'a' is already"):

        @table.register("a")
        class Second: ...

    assert table.get("a") is First
    assert table.name_of(First) == "a"


@pytest.mark.parametrize("first", ["lookup", "register"])
def test_a_built_in_cannot_be_replaced_whatever_comes_first(first):
    if first == "lookup":
        MODELS.get("text_encoder")
    with pytest.raises(ValueError, match="the model 'text_encoder' is built in"):

        @MODELS.register("text_encoder")
        class Mine: ...


def test_building_without_a_schema_passes_keywords():
    table = Registry("thing")
    table.register("a")(dict)
    assert table.build({"name": "a", "x": 1}, y=2) == {"x": 1, "y": 2}
    with pytest.raises(ConfigError, match=r"model\.name is missing"):
        table.build({"x": 1}, path="model")
    with pytest.raises(ConfigError, match=r"model must be a section with a name, got 3"):
        table.build(3, path="model")


# --- parts ----------------------------------------------------------------------------------------------------------

SHAPES, BOXES = Registry("shape"), Registry("box")
registry._REGISTRIES[-2:] = []


@SHAPES.register("round")
class Round:
    @dataclass
    class Config:
        radius: float = 1.0

    def __init__(self, config):
        self.radius = config.radius


@dataclass
class BoxConfig:
    width: int = 3
    shape: Any = part(SHAPES, "round")
    lid: Any = part(SHAPES)


def test_a_named_part_is_checked_built_and_written_back():
    default = typed(BoxConfig, {})
    assert plain(default) == {"width": 3, "shape": {"name": "round", "radius": 1.0}, "lid": None}
    found = typed(BoxConfig, {"shape": {"name": "round", "radius": 2}, "lid": {"name": "round"}}, path="box")
    assert found.shape.build().radius == 2.0
    assert typed(BoxConfig, plain(found)) == found != default
    for fields, message in {
        "radius": ({"shape": {"name": "round", "radios": 2}}, "unknown key 'box.shape.radios'; did you mean 'radius'"),
        "type": ({"shape": {"name": "round", "radius": "wide"}}, r"box\.shape\.radius: Value 'wide'"),
        "name": ({"shape": {"name": "rund"}}, r"box\.shape\.name: there is no shape called 'rund'"),
        "missing": ({"shape": {"radius": 2}}, r"box\.shape\.name is missing"),
        "section": ({"lid": "round"}, r"box\.lid must be a section"),
    }.values():
        with pytest.raises(ConfigError, match=message):
            typed(BoxConfig, fields, path="box")


def test_parts_are_found_in_sections_within_sections():
    @dataclass
    class Shelf:
        box: BoxConfig = field(default_factory=BoxConfig)
        boxes: int = 1

    found = typed(Shelf, {"box": {"lid": {"name": "round", "radius": 3}}}, path="shelf")
    assert found.box.lid.build().radius == 3
    with pytest.raises(ConfigError, match=r"shelf\.box\.lid\.name: there is no shape"):
        typed(Shelf, {"box": {"lid": {"name": "square"}}}, path="shelf")
    with pytest.raises(ConfigError, match=r"unknown key 'shelf\.box\.widht'"):
        typed(Shelf, {"box": {"widht": 3}}, path="shelf")


def test_a_schema_may_translate_what_an_earlier_release_wrote():
    @dataclass
    class New:
        size: int = 1

        @classmethod
        def upgrade(cls, fields, path):
            return {"size" if key == "old_size" else key: value for key, value in fields.items()}

    assert typed(New, {"old_size": 4}).size == 4


# --- plug-ins -------------------------------------------------------------------------------------------------------


@dataclass
class Point:
    """An entry point."""

    name: str
    value: str
    modules: dict[str, Any] = field(default_factory=dict)

    def load(self):
        return __import__(self.value)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs modules, given as source text, as plug-ins, in any order."""

    def do(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        points = [Point(name, name) for name in sources]
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(plugins, "_modules", None)
        monkeypatch.setattr(plugins, "_failures", {})
        monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "hftrainer.plugins" else [])

    yield do
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


GOOD = """
from hftrainer.registry import DATASETS
@DATASETS.register("{name}")
class Data:
    def train(self): ...
    def val(self): ...
    def collate(self): ...
"""


def test_plugins_register_through_their_entry_point(install):
    install(good_plugin=GOOD.format(name="from-plugin"))
    assert "from-plugin" in registry.DATASETS.names()
    assert registry.DATASETS.get("from-plugin").__module__ == "good_plugin"


def test_a_broken_plugin_is_named_and_harms_no_other(install):
    install(
        b_broken=GOOD.format(name="half") + "\nimport no_such_module_at_all\n",
        a_good=GOOD.format(name="first"),
        c_good=GOOD.format(name="second"),
    )
    with pytest.warns(plugins.PluginWarning, match=r"The plug-in 'b_broken' .*No module named 'no_such_module_at_all'"):
        names = registry.DATASETS.names()
    assert {"first", "second"} <= set(names)
    assert "half" not in names
    assert "text_tokens" in names
    assert list(plugins.plugin_failures()) == ["b_broken"]
    with pytest.raises(ConfigError, match=r"no dataset called 'half'.*The plug-in 'b_broken'"):
        registry.DATASETS.get("half")
    assert registry.DATASETS.get("second")  # again, after the failure


@pytest.mark.parametrize("looked_up_first", ["built-in", "plug-in"])
def test_a_plugin_that_replaces_a_built_in_is_refused_in_any_order(install, looked_up_first):
    install(bad_override=GOOD.format(name="text_tokens"), good=GOOD.format(name="fine"))
    if looked_up_first == "built-in":
        assert registry.DATASETS.get("text_tokens").__module__ == "hftrainer.data.tokens.captioned"
    with pytest.warns(plugins.PluginWarning, match="'bad_override'.*'text_tokens' is built in"):
        assert registry.DATASETS.get("fine")
    assert registry.DATASETS.get("text_tokens").__module__ == "hftrainer.data.tokens.captioned"


def test_one_name_of_two_plugins_goes_to_the_first_by_name(install):
    install(zz=GOOD.format(name="same"), aa=GOOD.format(name="same"))
    with pytest.warns(plugins.PluginWarning, match="'zz'.*the dataset 'same' is already aa:Data"):
        assert registry.DATASETS.get("same").__module__ == "aa"


def test_a_plugin_that_inherits_a_configuration_leaves_the_built_in_its_own():
    from hftrainer.models.motion.motionmillion.parts import LLaMAPart
    from hftrainer.registry import TRANSFORMERS

    @TRANSFORMERS.register("llama-of-mine")
    class Mine(LLaMAPart): ...

    assert TRANSFORMERS.part_of(LLaMAPart.Config(n_layer=1)).name == "llama"
    assert TRANSFORMERS.part({"name": "llama-of-mine", "n_layer": 1}).config.n_layer == 1
