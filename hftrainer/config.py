"""Run configurations: YAML files and dotted overrides, checked against dataclasses.

A YAML file says what differs from the defaults; a dataclass says what exists. There is no inheritance between files
and no code in them. Every mistake (a wrong key, type or name) is a `ConfigError` with the path of the field.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hftrainer.environment import environment_for, without_secrets
from hftrainer.expressions import why_not_replaced
from hftrainer.fields import choice, number, problems
from hftrainer.files import write_text
from hftrainer.readers import FileError, check_plain, read_text, yaml_reason

T = TypeVar("T")
_MAX_CONFIG = 256 << 10  # bytes
_LONG_NUMBER = re.compile(r"[\d:_]{1000}")  # 1:1:1:... counts by sixties, in time that grows with its square


class ConfigError(FileError):
    """A configuration that cannot be used; the message names the field, what it has and what it may have."""


@dataclass
class TrainerConfig:
    """What Lightning's ``Trainer`` is given; see its documentation for the meaning of each field.

    Training ends after `max_steps`, or after `max_epochs` of the data where that is given. `strategy`: auto, single,
    ddp, zero1, zero2, zero3 (DeepSpeed) or fsdp2; docs/training.md says which when. `offload` (only ZeRO): "optimizer"
    keeps its state in the CPU's memory, "all" the parameters too (zero3). `activation_checkpointing`: compute a block's
    activations again on the way back instead of keeping them. `compile`: `torch.compile` of the parts that train.
    `limit_val_batches`: so many validation batches, or a share of them. `on_nan`: a loss or gradient that is not finite
    stops the run, or the step is skipped. `profiler`: "torch" writes a trace of the steps `profile_steps`.
    """

    max_steps: int | None = number(1000, at_least=1)
    max_epochs: float | None = number(None, above=0)
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = number(1, at_least=1)
    strategy: str = "auto"
    offload: str = "none"
    activation_checkpointing: bool = False
    compile: bool = False
    precision: str = "32-true"
    accumulate_grad_batches: int = number(1, at_least=1)
    gradient_clip_val: float | None = number(None, above=0)
    val_every_n_steps: int | None = number(None, at_least=1)
    limit_val_batches: float | None = number(None, above=0)
    log_every_n_steps: int = number(50, at_least=1)
    checkpoint_every_n_steps: int = number(1000, at_least=1)
    keep_last_checkpoints: int = number(2, at_least=1)
    deterministic: bool = False
    progress_bar: bool = True
    on_nan: str = choice("stop", ["stop", "skip"])
    max_skipped_in_a_row: int = number(10, at_least=1)
    profiler: str = choice("none", ["none", "torch"])
    profile_steps: list[int] = number([10, 13], at_least=0)

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_epochs is None:
            raise ConfigError("max_steps and max_epochs are both null, so the run would never end; set one of them")
        if len(self.profile_steps) != 2 or self.profile_steps[0] > self.profile_steps[1]:
            raise ConfigError(f"profile_steps are a first and a last step, got {list(self.profile_steps)}")


@dataclass
class ResumeConfig:
    """`checkpoint`: "auto", from the newest in output_dir; "never"; or a path.

    `allow`: fields that may differ from those of the run that is continued (``task.optimizer.lr``, or a section), which
    are then applied; ``early_stop`` trains a run on that a callback had stopped.
    """

    checkpoint: str = "auto"
    allow: list[str] = field(default_factory=list)


@dataclass
class Experiment:
    """One run. `model`, `task`, `data`, each of `callbacks` and of `loggers` have a ``name`` in a registry.

    `output_dir` may hold ``{run_id}``, which is W&B's id of the run (that of a sweep's trial, where there is one).
    `num_workers`: processes that load data, `prefetch` batches ahead each. `max_bad_samples`: unreadable samples that
    are named and replaced by others; one more stops the run. Scalars always go to CSV; `loggers` says where else.
    `allow_env`: environment variables that the file may ask for by ``${oc.env:NAME}``; what they hold is written
    nowhere and reaches no logger.
    """

    model: dict[str, Any]
    task: dict[str, Any]
    data: dict[str, Any]
    seed: int = number(123, at_least=0, below=2**32)
    output_dir: str = "runs/experiment"
    num_workers: int = number(0, at_least=0)
    prefetch: int = number(2, at_least=1)
    max_bad_samples: int = number(0, at_least=0)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    loggers: list[dict[str, Any]] = field(default_factory=list)
    allow_env: list[str] = field(default_factory=list)

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """``resume: auto`` is short for ``resume: {checkpoint: auto}``; a section `logger` is an old spelling."""
        if isinstance(fields.get("resume"), str):
            fields["resume"] = {"checkpoint": fields["resume"]}
        if "logger" in fields:
            fields["loggers"] = [*fields.get("loggers", []), *_upgraded_logger(dict(fields.pop("logger") or {}))]
        return fields


def _upgraded_logger(old: dict[str, Any]) -> list[dict[str, Any]]:
    """The loggers that a section `logger` of an earlier release switched on."""
    tensorboard, wandb = old.pop("tensorboard", False), old.pop("wandb", False)
    loggers = [{"name": "tensorboard"}] if tensorboard else []
    if wandb:
        loggers.append({"name": "wandb", **old})
    written = ", ".join("{" + ", ".join(f"{k}: {v}" for k, v in logger.items()) + "}" for logger in loggers)
    warn_old("logger", f"loggers: [{written}]")
    return loggers


class OldSpelling(FutureWarning):
    """A configuration is written as an earlier release had it; the message says what to write."""


def warn_old(path: str, write: str) -> None:
    """Say that the field `path` is written in an old way, and what to `write`."""
    message = f"{path} is deprecated and will be removed in the next release; write {write}"
    warnings.warn(message, OldSpelling, stacklevel=3)


def renamed(fields: dict[str, Any], path: str, names: Mapping[str, str]) -> dict[str, Any]:
    """`fields` with the old `names` of some replaced by the new ones, which is said."""
    for old, new in names.items():
        if old in fields:
            warn_old(_join(path, old), _join(path, new))
            fields.setdefault(new, fields.pop(old))
    return fields


def load_experiment(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Experiment:
    """Read a YAML file, apply ``a.b=value`` overrides, and check the result against `Experiment`."""
    fields = read_yaml(path, overrides)
    try:
        return typed(Experiment, fields)
    except ConfigError as error:
        raise ConfigError(f"{error}; read from {path}") from error


def read_yaml(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML mapping with ``a.b=value`` overrides applied; values are parsed as YAML."""
    if not Path(path).is_file():
        raise ConfigError(f"there is no config file {str(path)!r}")
    for item in overrides:
        if "=" not in item or item.startswith(("-", "=")):
            raise ConfigError(f"an override must look like trainer.max_steps=20, got {item!r}")
    try:
        text = read_text(path, _MAX_CONFIG, error=ConfigError)
        if _LONG_NUMBER.search(text):
            raise ConfigError(f"{path} is not a configuration: it has a number of more than 1000 digits")
        base = OmegaConf.load(io.StringIO(text))
        if not isinstance(base, DictConfig):
            raise ConfigError(f"{path}: expected a mapping at the top level, got a {type(base).__name__}")
        merged = OmegaConf.merge(base, OmegaConf.from_dotlist(list(overrides)))
        raw = OmegaConf.to_container(merged, resolve=False)
        check_plain(raw, str(path), error=ConfigError)
        reason = why_not_replaced(raw)
        if reason is not None:
            raise ConfigError(f"{path}: {reason}")
        with environment_for(_allowed_names(raw, path)):
            plain = OmegaConf.to_container(merged, resolve=True)
        check_plain(plain, str(path), error=ConfigError)
    except ConfigError:
        raise
    except YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {yaml_reason(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} nests too deeply, or a value refers to itself") from error
    except (
        OmegaConfBaseException,
        ValueError,
        TypeError,
        OSError,
        AttributeError,
        LookupError,
        ArithmeticError,
    ) as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _allowed_names(raw: Any, path: str | os.PathLike[str]) -> list[str]:
    """What `allow_env` lists: variables of the environment that this configuration may read."""
    names = raw.get("allow_env") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: allow_env must be a list of names of environment variables, got {names!r}")
    return names


def typed(schema: type[T], fields: Mapping[str, Any], *, path: str = "") -> T:
    """Fill the dataclass `schema` from plain data; unknown keys, wrong types and missing fields are errors.

    `path` is put before field names in messages ("model" gives "model.ar.n_layer"). A schema with a class method
    ``upgrade(fields, path)`` gets to translate what an earlier release wrote. Fields made by `hftrainer.registry.part`
    become the parts that their sections name.
    """
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{path or schema.__name__}: expected a section with keys, got {fields!r:.80}")
    fields = _prepared(schema, fields, path)
    try:
        merged = OmegaConf.merge(_defaults(schema), OmegaConf.create(dict(fields), flags={"allow_objects": True}))  # type: ignore[arg-type]
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise ConfigError(f"{_join(path, missing[0])} is required by {schema.__name__} and missing")
        config: T = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        where = _join(path, error.full_key or "")
        raise ConfigError(f"{where or schema.__name__}: {_first_line(error)}") from error
    except ConfigError as error:  # said by a __post_init__, which does not know where it is, or by a part
        raise ConfigError(error if str(error).startswith(path) else f"{path}: {error}") from error
    except (ValueError, TypeError) as error:  # OmegaConf's word for a list in the place of a section is a TypeError
        raise ConfigError(f"{path or schema.__name__}: {_first_line(error)}") from error
    for problem in problems(config, path):
        raise ConfigError(problem)
    return config


@lru_cache(maxsize=256)
def _defaults(schema: type) -> Any:
    """A schema's fields as OmegaConf has them. Making them takes a third of `typed`; merging copies them, so that they
    stay as they are."""
    return OmegaConf.structured(schema, flags={"allow_objects": True})


@lru_cache(maxsize=256)
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _prepared(schema: type, fields: Mapping[str, Any], path: str) -> dict[str, Any]:
    """`fields` with their keys checked, old spellings translated and named parts resolved, at every level."""
    upgrade = getattr(schema, "upgrade", None)
    fields = upgrade(dict(fields), path) if upgrade is not None else dict(fields)
    _check_keys(schema, fields, path)
    hints = _hints(schema)
    for field_ in dataclasses.fields(schema):
        registry, value, where = field_.metadata.get("registry"), fields.get(field_.name), _join(path, field_.name)
        nested = _nested_schema(hints[field_.name])
        if registry is not None and value is not None:
            fields[field_.name] = registry.part(value, path=where)
        elif nested is not None and isinstance(value, Mapping):
            fields[field_.name] = _prepared(nested, value, where)
    return fields


def plain(config: Any) -> Any:
    """The inverse of `typed`: dataclasses and parts to dictionaries, all the way down."""
    if hasattr(config, "plain"):
        return config.plain()
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    return config


def save_yaml(config: Any, path: str | os.PathLike[str]) -> None:
    """Write a configuration so that `read_yaml` gives it back, atomically."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(without_secrets(plain(config)))))


def _check_keys(schema: type, fields: Mapping[str, Any], path: str) -> None:
    hints = _hints(schema)
    known = [f.name for f in dataclasses.fields(schema)]
    for key, value in fields.items():
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown key {_join(path, str(key))!r}; {hint}")
        _check_container(hints[key], value, _join(path, str(key)))


def _check_container(hint: Any, value: Any, where: str) -> None:
    """Raise `ConfigError` for a list where a section belongs, or the other way round; merging would not name it."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = {
        list: any(get_origin(option) is list for option in options),
        Mapping: any(get_origin(option) is dict or dataclasses.is_dataclass(option) for option in options),
    }
    for kind, other, expected in ((list, Mapping, "a section"), (Mapping, list, "a list")):
        if isinstance(value, kind) and kinds[other] and not kinds[kind]:
            raise ConfigError(f"{where} must be {expected}, got {value!r}")


def _nested_schema(hint: Any) -> type | None:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
