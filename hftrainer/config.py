"""Run configurations: YAML files and dotted overrides, checked against dataclasses.

A YAML file says what differs from the defaults; a dataclass says what exists. There is no inheritance between files
and no code in them. Every mistake (a wrong key, type or name) is a `ConfigError` with the path of the field.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hftrainer.files import write_text

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the field, what it has and what it may have."""


@dataclass
class TrainerConfig:
    """What Lightning's ``Trainer`` is given; see its documentation for the meaning of each field.

    `strategy`: auto, single, ddp, zero1, zero2, zero3 (DeepSpeed) or fsdp2; docs/training.md says which when. `offload`
    (ZeRO alone): "optimizer" keeps its state in the CPU's memory, "all" the parameters too (zero3).
    `activation_checkpointing`: compute a block's activations again on the way back instead of keeping them. `compile`:
    `torch.compile` of the parts that train.
    """

    max_steps: int = 1000
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    offload: str = "none"
    activation_checkpointing: bool = False
    compile: bool = False
    precision: str = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    val_every_n_steps: int | None = None
    limit_val_batches: int | None = None
    log_every_n_steps: int = 50
    checkpoint_every_n_steps: int = 1000
    keep_last_checkpoints: int = 2
    deterministic: bool = False
    progress_bar: bool = True
    on_nan: str = "stop"  # a loss or gradient that is not finite: "stop", or "skip" the step
    max_skipped_in_a_row: int = 10

    def __post_init__(self) -> None:
        if self.on_nan not in ("stop", "skip"):
            raise ValueError(f"trainer.on_nan must be 'stop' or 'skip', got {self.on_nan!r}")


@dataclass
class LoggerConfig:
    """Where scalars go: CSV always; `tensorboard` and `wandb` too where they are switched on.

    `offline`: None is offline unless a key is known or WANDB_MODE says otherwise. `models`: when best/ and last/ become
    W&B artifacts: "end" of training, "always" (each time they are written), "never". `system_metrics_seconds`: how
    often load and memory are looked at; None: never.
    """

    tensorboard: bool = False
    wandb: bool = False
    project: str = "hftrainer"
    entity: str | None = None
    run_name: str | None = None
    offline: bool | None = None
    models: str = "end"
    system_metrics_seconds: float | None = 15.0

    def __post_init__(self) -> None:
        if self.models not in ("end", "always", "never"):
            raise ValueError(f"logger.models must be 'end', 'always' or 'never', got {self.models!r}")


@dataclass
class Experiment:
    """One run. `model`, `task`, `data` and each of `callbacks` have a ``name`` that is looked up in a registry."""

    model: dict[str, Any]
    task: dict[str, Any]
    data: dict[str, Any]
    seed: int = 123
    output_dir: str = "runs/experiment"
    num_workers: int = 0  # processes that load data
    max_bad_samples: int = 0  # unreadable samples that are named and replaced by others; one more stops the run
    resume: str = "auto"  # "auto": from the newest checkpoint in output_dir; "never"; or a path
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


def load_experiment(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Experiment:
    """Read a YAML file, apply ``a.b=value`` overrides, and check the result against `Experiment`."""
    return typed(Experiment, read_yaml(path, overrides))


def read_yaml(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML mapping with ``a.b=value`` overrides applied; values are parsed as YAML."""
    if not Path(path).is_file():
        raise ConfigError(f"there is no config file {str(path)!r}")
    for item in overrides:
        if "=" not in item or item.startswith(("-", "=")):
            raise ConfigError(f"an override must look like trainer.max_steps=20, got {item!r}")
    try:
        base = OmegaConf.load(Path(path))
        if not isinstance(base, DictConfig):
            raise ConfigError(f"{path}: expected a mapping at the top level, got a {type(base).__name__}")
        merged = OmegaConf.merge(base, OmegaConf.from_dotlist(list(overrides)))
        plain = OmegaConf.to_container(merged, resolve=True)
    except ConfigError:
        raise
    except YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def typed(schema: type[T], fields: Mapping[str, Any], *, path: str = "") -> T:
    """Fill the dataclass `schema` from plain data; unknown keys, wrong types and missing fields are errors.

    `path` is put before field names in messages ("model" gives "model.ar.n_layer"). A schema with a class method
    ``upgrade(fields, path)`` gets to translate what an earlier release wrote. Fields made by `hftrainer.registry.part`
    become the parts that their sections name.
    """
    upgrade = getattr(schema, "upgrade", None)
    fields = upgrade(dict(fields), path) if upgrade is not None else fields
    _check_keys(schema, fields, path)
    fields = {**fields, **_parts(schema, fields, path)}
    try:
        defaults = OmegaConf.structured(schema, flags={"allow_objects": True})
        merged = OmegaConf.merge(defaults, OmegaConf.create(dict(fields), flags={"allow_objects": True}))
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise ConfigError(f"{_join(path, missing[0])} is required by {schema.__name__} and missing")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        where = _join(path, error.full_key or "")
        raise ConfigError(f"{where or schema.__name__}: {_first_line(error)}") from error
    except ConfigError:
        raise
    except ValueError as error:  # a __post_init__ check
        raise ConfigError(f"{path or schema.__name__}: {error}") from error


def _parts(schema: type, fields: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The parts that are written for the fields that hold one; None stays None."""
    found = {}
    for field_ in dataclasses.fields(schema):
        registry, value = field_.metadata.get("registry"), fields.get(field_.name)
        if registry is not None and value is not None:
            found[field_.name] = registry.part(value, path=_join(path, field_.name))
    return found


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
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(plain(config))))


def _check_keys(schema: type, fields: Mapping[str, Any], path: str) -> None:
    hints = get_type_hints(schema)
    known = [f.name for f in dataclasses.fields(schema)]
    for key, value in fields.items():
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown key {_join(path, str(key))!r}; {hint}")
        nested = _nested_schema(hints[key])
        if nested is not None and isinstance(value, Mapping):
            _check_keys(nested, value, _join(path, str(key)))


def _nested_schema(hint: Any) -> type | None:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
