"""Which registered class a model's folder is for: a JSON file in it names the class.

A folder names its class in model_index.json (``"pipeline": "motionmillion"``, ``"evaluator": ...``, or diffusers'
``"_class_name"``) or in config.json (transformers' ``"model_type"`` and ``"architectures"``). A registered class
answers to its name in the registry, to its class name, and to what its ``artifact_names`` lists (names that other
libraries write). A folder that names none is recognized by the class whose ``artifact_files`` are all in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError
from hftrainer.hub import ModelNotFound
from hftrainer.readers import read_json
from hftrainer.registry import Registry

INDEX, CONFIG = "model_index.json", "config.json"


def registered_name(registry: Registry, folder: Path) -> str | None:
    """The name in `registry` of the class that `folder` is for; None if none of its classes is meant.

    Raises `ConfigError` if two of them answer to the name.
    """
    declared = set(declared_names(folder))
    known = registry.names()
    for name in known:
        if name in declared:
            return name  # nothing needs to be imported
    found = [name for name in known if _answers(registry.get(name), declared, folder)]
    if len(found) > 1:
        raise ConfigError(
            f"{folder} is for one of the {registry.kind}s {' and '.join(found)}, which match the same name; "
            f'write "{registry.kind}": "{found[0]}" (or the other) into its {INDEX}'
        )
    return found[0] if found else None


def declared_names(folder: Path) -> Iterator[str]:
    """Every name by which the folder's JSON files call the class that loads it."""
    index, config = _read(folder / INDEX), _read(folder / CONFIG)
    for entry in (index.get("pipeline"), index.get("evaluator")):
        if isinstance(entry, dict):
            entry = entry.get("name") or entry.get("class_name")
        if isinstance(entry, str):
            yield entry
    for entry in (index.get("_class_name"), config.get("model_type")):
        if isinstance(entry, str):
            yield entry
    architectures = config.get("architectures")
    yield from (name for name in (architectures if isinstance(architectures, list) else []) if isinstance(name, str))


def declared_representation(folder: Path) -> str | None:
    """What the folder's model_index.json says that its motions are; None if it does not say."""
    name = _read(folder / INDEX).get("representation")
    return name if isinstance(name, str) else None


def not_recognized(registry: Registry, folder: Path) -> ModelNotFound:
    """The error for a folder that no class of the registry is for: what it asks for, what is known, what to install."""
    declared = list(dict.fromkeys(declared_names(folder)))
    known = ", ".join(f"{name} ({registry.get(name).__name__})" for name in registry.names())
    kind = registry.kind
    if not declared:
        return ModelNotFound(
            f"{folder} does not say which {kind} it is for: it has no {INDEX} that names one; "
            f'write {{"{kind}": NAME}} into it. Known {kind}s: {known}'
        )
    wanted = " or ".join(map(repr, declared))
    return ModelNotFound(
        f"{folder} is for the {kind} {wanted}, which is not installed; pip install the plug-in that "
        f"provides it (`hftrainer zoo list` names plug-ins that cannot be loaded). Known {kind}s: {known}"
    )


def _answers(target: Any, declared: set[str], folder: Path) -> bool:
    names = {getattr(target, "__name__", ""), *getattr(target, "artifact_names", ())}
    if declared:
        return bool(names & declared)
    files = getattr(target, "artifact_files", ())
    return bool(files) and all((folder / name).is_file() for name in files)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, error=ModelNotFound) if path.is_file() else {}
