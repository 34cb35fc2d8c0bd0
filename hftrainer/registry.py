"""Short names for what the zoo offers.

A registry holds a table of the modules that define its built-ins (`hftrainer.builtin_names`). A module is imported when
its name is first looked up, and its ``@REGISTRY.register("name")`` decorator fills the table; so nothing heavy is
imported before it is needed and nothing can be forgotten (a test resolves every row). Installed packages add names
through the entry-point group ``hftrainer.plugins``; see `hftrainer.plugins`. A name with a colon,
``package.module:Class``, is itself the target and needs no registration; it is checked like every other name.

`Part` is a named part inside a configuration (``model.tokenizer.name: human_vqvae``); `part` makes a dataclass field
that holds one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

from hftrainer import builtin_names
from hftrainer.config import ConfigError, plain, typed
from hftrainer.plugins import load_plugins, plugin_failures

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """A table from names to classes of one kind.

    `builtins`: the module of each built-in name. `base`: "module:Class" that every target derives from. `methods`: what
    a target must have where no base class is asked for.
    """

    def __init__(
        self, kind: str, builtins: Mapping[str, str] | None = None, *, base: str = "", methods: Sequence[str] = ()
    ):
        self.kind, self.base, self.methods = kind, base, tuple(methods)
        self._modules = dict(builtins or {})
        self._targets: dict[str, Callable[..., Any]] = {}
        _REGISTRIES.append(self)

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: make the class known as `name`.

        Raises ``ValueError`` if the name is taken: by a built-in, whether it was imported already or not, or by another
        class.
        """

        def add(target: T) -> T:
            home = self._modules.get(name)
            if home is not None and home != target.__module__:
                raise ValueError(
                    f"the {self.kind} {name!r} is built in ({home}) and cannot be replaced by "
                    f"{target.__module__}:{target.__qualname__}; choose another name"
                )
            known = self._targets.get(name)
            if known is not None and _path(known) != _path(target):
                raise ValueError(
                    f"the {self.kind} {name!r} is already {_path(known)}; choose another name for {_path(target)}"
                )
            self._targets[name] = target
            return target

        return add

    def names(self) -> list[str]:
        """Every known short name, built-in and from plug-ins, sorted."""
        load_plugins()
        return sorted({*self._modules, *self._targets})

    def get(self, name: str) -> Callable[..., Any]:
        """The class called `name`, or at ``package.module:Class``; an unknown name lists the near ones."""
        if ":" in name:
            return self._checked(_import_target(name), name)
        if name not in self._targets and name in self._modules:
            import_module(self._modules[name])
        if name not in self._targets:
            load_plugins()
        if name not in self._targets:
            near = get_close_matches(name, self.names(), n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            known = ", ".join(self.names()) or "none"
            broken = "".join(f" {failure}." for failure in plugin_failures().values())
            raise ConfigError(f"there is no {self.kind} called {name!r}.{hint} Known: {known}.{broken}")
        return self._checked(self._targets[name], name)

    def name_of(self, target: Callable[..., Any]) -> str | None:
        """The short name of a registered class; None if it has none."""
        return next((name for name, known in self._targets.items() if known is target), None)

    def build(self, section: Mapping[str, Any], *, path: str = "", **runtime: Any) -> Any:
        """Make the object that a config section describes: its ``name`` is looked up, the rest is its configuration.

        A class with a ``Config`` dataclass gets one, checked field by field (errors carry `path`), through its
        ``from_config`` if it has that; another gets the fields as keyword arguments. `runtime` objects are passed on
        by keyword.
        """
        factory, config = self.resolve(section, path=path, runtime=runtime)
        return make(factory, config, **runtime)

    def resolve(
        self, section: Mapping[str, Any], *, path: str = "", runtime: Collection[str] = ()
    ) -> tuple[Callable[..., Any], Any]:
        """What `build` would call: the class, and its checked ``Config`` (or the plain fields without one).

        Fields of a class without a ``Config`` are bound to its signature; `runtime` names the arguments that are added
        when it is built.
        """
        if not isinstance(section, Mapping):
            raise ConfigError(f"{path or self.kind} must be a section with a name, got {section!r}")
        fields = dict(section)
        name = fields.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(
                f"{path or self.kind}.name is missing: write which {self.kind} this is; known: {self.names()}"
            )
        try:
            factory = self.get(name)
        except ConfigError as error:
            raise ConfigError(f"{path}.name: {error}" if path else str(error)) from error
        schema = getattr(factory, "Config", None)
        if schema is None:
            _bind(factory, fields, runtime, path or self.kind)
            return factory, fields
        if not (isinstance(schema, type) and dataclasses.is_dataclass(schema)):
            raise ConfigError(f"{path or self.kind}: {_path(factory)}.Config must be a dataclass, it is {schema!r}")
        return factory, typed(schema, fields, path=path)

    def part(self, section: Mapping[str, Any] | Part, *, path: str = "") -> Part:
        """The checked `Part` that a section describes."""
        if isinstance(section, Part):
            return section
        _, config = self.resolve(section, path=path)
        return Part(self, str(section["name"]), config)

    def part_of(self, config: Any) -> Part:
        """The `Part` of the class that declares this configuration; ``ValueError`` unless exactly one does.

        Subclasses that inherit it, such as plug-ins may register, are named in a section instead.
        """
        known = {name: vars(self.get(name)).get("Config") for name in self.names()}
        found = [name for name, schema in known.items() if schema is type(config)]
        if len(found) != 1:
            raise ValueError(f"a {type(config).__name__} belongs to {len(found)} of the {self.kind}s {self.names()}")
        return Part(self, found[0], config)

    def _checked(self, target: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`target`, if it is what this registry holds."""
        if self.base:
            module, _, attribute = self.base.partition(":")
            base = getattr(import_module(module), attribute)
            if not (isinstance(target, type) and issubclass(target, base)):
                raise ConfigError(f"{name!r} is not a {self.kind}: expected a class derived from {attribute}")
        missing = [method for method in self.methods if not hasattr(target, method)]
        if missing:
            raise ConfigError(
                f"{name!r} ({_path(target)}) is not a {self.kind}: it has no {', '.join(missing)}; "
                "docs/extending.md describes "
                "the interface"
            )
        return target

    def __deepcopy__(self, memo: Any) -> Registry:
        return self


class Part:
    """A part that was chosen by `name`, with its checked `config`; `build` makes it."""

    def __init__(self, registry: Registry, name: str, config: Any):
        self.registry, self.name, self.config = registry, name, config

    def build(self, **runtime: Any) -> Any:
        """Make the part; `runtime` objects are passed on by keyword."""
        return make(self.registry.get(self.name), self.config, **runtime)

    def plain(self) -> dict[str, Any]:
        """As a section of a configuration."""
        return {"name": self.name, **plain(self.config)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.plain() == other.plain()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Part({self.plain()})"


def part(registry: Registry, default: str | None = None) -> Any:
    """A dataclass field for a `Part` of `registry`; `default`: the name it has unless written, None: no part.

    `typed` turns the section of such a field into a `Part`.
    """

    def make_default() -> Part | None:
        return None if default is None else registry.part({"name": default})

    return dataclasses.field(default_factory=make_default, metadata={"registry": registry})


def make(factory: Callable[..., Any], config: Any, **runtime: Any) -> Any:
    """Build `factory` from its resolved `config`; see `Registry.build`."""
    if not hasattr(factory, "Config"):
        return factory(**config, **runtime)
    return getattr(factory, "from_config", factory)(config, **runtime)


def _path(target: Callable[..., Any]) -> str:
    return f"{target.__module__}:{getattr(target, '__qualname__', type(target).__name__)}"


def _bind(factory: Callable[..., Any], fields: Mapping[str, Any], runtime: Collection[str], path: str) -> None:
    """Raise `ConfigError` unless `fields` and the `runtime` arguments fit the signature of `factory`."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # a builtin without a signature
        return
    try:
        signature.bind(**fields, **dict.fromkeys(runtime))
    except TypeError as error:
        known = ", ".join(name for name in signature.parameters if name not in runtime)
        raise ConfigError(f"{path}: {_path(factory)}: {error}; its arguments: {known or 'none'}") from error


def _import_target(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        target = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name!r} cannot be imported: {error}") from error
    if not callable(target):
        raise ConfigError(f"{name!r} is a {type(target).__name__}, expected a class or a function")
    return target  # type: ignore[no-any-return]


_REGISTRIES: list[Registry] = []


def withdraw(module: str) -> None:
    """Forget what a module and those below it registered: a plug-in that broke halfway."""
    for registry in _REGISTRIES:
        registry._targets = {
            name: target
            for name, target in registry._targets.items()
            if not f"{target.__module__}.".startswith(f"{module}.")
        }


_MODULE = "torch.nn:Module"

MODELS = Registry("model", builtin_names.MODELS, base=_MODULE)
TOKENIZERS = Registry("tokenizer", builtin_names.TOKENIZERS, base=_MODULE)
QUANTIZERS = Registry("quantizer", builtin_names.QUANTIZERS, base=_MODULE)
TRANSFORMERS = Registry("transformer", builtin_names.TRANSFORMERS, base=_MODULE)
TEXT_ENCODERS = Registry(
    "text encoder",
    builtin_names.TEXT_ENCODERS,
    base=_MODULE,
    methods=["Config", "count_tokens", "positions", "sha256", "save_artifact", "load", "free"],
)
REPRESENTATIONS = Registry(
    "representation", builtin_names.REPRESENTATIONS, base="hftrainer.motion.representation.base:Representation"
)
PIPELINES = Registry("pipeline", builtin_names.PIPELINES, methods=["from_pretrained"])
TASKS = Registry("task", builtin_names.TASKS, base="hftrainer.training.task:Task")
DATASETS = Registry("dataset", builtin_names.DATASETS, methods=["train", "val", "collate"])
EVALUATORS = Registry(
    "evaluator", builtin_names.EVALUATORS, methods=["from_pretrained", "encode_motions", "encode_texts"]
)
METRICS = Registry("metric", builtin_names.METRICS, methods=["Config", "__call__"])
CALLBACKS = Registry("callback", builtin_names.CALLBACKS, base="lightning.pytorch.callbacks:Callback")
LOGGERS = Registry("logger", builtin_names.LOGGERS, base="lightning.pytorch.loggers:Logger")
OPTIMIZERS = Registry("optimizer", builtin_names.OPTIMIZERS, methods=["from_config"])
SCHEDULES = Registry("schedule", builtin_names.SCHEDULES)
LOSSES = Registry("loss", builtin_names.LOSSES)
