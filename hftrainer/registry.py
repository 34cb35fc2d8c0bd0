"""Short names for what the zoo offers.

A registry holds a table of the modules that define its built-ins. A module is imported when its name is first
looked up, and its ``@REGISTRY.register("name")`` decorator fills the table; so nothing heavy is imported before it is
wanted and nothing can be forgotten (a test resolves every row). Installed packages add names through the entry-point
group ``hftrainer.plugins``: each entry point names a module that registers what it has. A name with a colon,
``package.module:Class``, is itself the target and needs no registration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from hftrainer.config import ConfigError, typed

T = TypeVar("T", bound=Callable[..., Any])

PLUGIN_GROUP = "hftrainer.plugins"


class Registry:
    """A table from names to classes (or factories) of one kind."""

    def __init__(self, kind: str, builtins: Mapping[str, str]):
        self.kind = kind
        self._modules = dict(builtins)
        self._targets: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: make the class known as `name`."""

        def add(target: T) -> T:
            known = self._targets.get(name)
            same = known is not None and (known.__module__, known.__qualname__) == (
                target.__module__,
                target.__qualname__,
            )
            if known is not None and not same:
                raise ValueError(
                    f"the {self.kind} {name!r} is already {known.__module__}:{known.__qualname__}; "
                    "choose another name for the new one"
                )
            self._targets[name] = target
            return target

        return add

    def names(self) -> list[str]:
        """Every known short name, built-in and from plugins, sorted."""
        _load_plugins()
        return sorted({*self._modules, *self._targets})

    def get(self, name: str) -> Callable[..., Any]:
        """The class called `name`, or at ``package.module:Class``; an unknown name lists the near ones."""
        if ":" in name:
            return _import_target(name)
        if name not in self._targets and name in self._modules:
            import_module(self._modules[name])
        if name not in self._targets:
            _load_plugins()
        if name not in self._targets:
            near = get_close_matches(name, self.names(), n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ConfigError(f"there is no {self.kind} called {name!r}.{hint} Known: {', '.join(self.names())}")
        return self._targets[name]

    def build(self, section: Mapping[str, Any], *, path: str = "", **runtime: Any) -> Any:
        """Make the object that a config section describes: its ``name`` is looked up, the rest is its configuration.

        A class with a ``Config`` dataclass gets one, checked field by field (errors carry `path`), through its
        ``from_config`` if it has that; another gets the fields as keyword arguments. `runtime` objects are passed on
        by keyword.
        """
        factory, config = self.resolve(section, path=path)
        if not hasattr(factory, "Config"):
            return factory(**config, **runtime)
        return getattr(factory, "from_config", factory)(config, **runtime)

    def resolve(self, section: Mapping[str, Any], *, path: str = "") -> tuple[Callable[..., Any], Any]:
        """What `build` would call: the class, and its checked ``Config`` (or the plain fields without one)."""
        fields = dict(section)
        name = fields.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(
                f"{path or self.kind}.name is missing: write which {self.kind} this is; known: {self.names()}"
            )
        factory = self.get(name)
        schema = getattr(factory, "Config", None)
        return factory, typed(schema, fields, path=path) if schema else fields


def _import_target(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        target = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name!r} cannot be imported: {error}") from error
    if not callable(target):
        raise ConfigError(f"{name!r} is a {type(target).__name__}, expected a class or a function")
    return target  # type: ignore[no-any-return]


_plugins_loaded = False


def _load_plugins() -> None:
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True  # before loading: a plugin may itself look names up
    for point in entry_points(group=PLUGIN_GROUP):
        point.load()


_MILLION = "hftrainer.models.motion.motionmillion.bundle"

MODELS = Registry(
    "model",
    {
        "motionmillion": _MILLION,
        "text_encoder": "hftrainer.models.text_encoder",
        "action_classifier": "hftrainer.models.action_classifier",
        "motionstreamer272": "hftrainer.models.motion.motionstreamer.evaluator",
    },
)
PIPELINES = Registry("pipeline", {"motionmillion": "hftrainer.pipelines.motionmillion"})
TASKS = Registry(
    "task",
    {
        "motionmillion_tokenizer": "hftrainer.training.tokenizer",
        "motionmillion_ar": "hftrainer.training.autoregressive",
        "text_distillation": "hftrainer.training.text_distillation",
        "action_classifier": "hftrainer.training.action_classifier",
        "motionstreamer272": "hftrainer.training.motionstreamer",
    },
)
DATASETS = Registry(
    "dataset",
    {
        "motion_windows": "hftrainer.data.motion.windows",
        "text_tokens": "hftrainer.data.tokens.captioned",
        "packed_tokens": "hftrainer.data.tokens.packed",
        "packed_windows": "hftrainer.data.motion.packed",
        "sentences": "hftrainer.data.text_motion.sentences",
        "labelled_clips": "hftrainer.data.text_motion.labelled",
        "text_motion": "hftrainer.data.text_motion.pairs",
        "synthetic_text_motion": "hftrainer.data.synthetic.datasets",
        "synthetic_windows": "hftrainer.data.synthetic.datasets",
        "synthetic_tokens": "hftrainer.data.synthetic.datasets",
    },
)
EVALUATORS = Registry(
    "evaluator",
    {
        "motionstreamer272": "hftrainer.models.motion.motionstreamer.evaluator",
        "humanml263": "hftrainer.models.motion.humanml263.evaluator",
        "motionclip135": "hftrainer.models.motion.motionclip.evaluator",
    },
)
CALLBACKS = Registry(
    "callback",
    {
        "artifact": "hftrainer.training.callbacks.artifact",
        "ema": "hftrainer.training.callbacks.ema",
        "reconstruction": "hftrainer.training.callbacks.reconstruction",
        "t2m_inference": "hftrainer.training.callbacks.t2m_inference",
        "t2m_evaluation": "hftrainer.training.callbacks.t2m_evaluation",
    },
)
