"""What a model card says, as dataclasses; a YAML file is checked against them field by field."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError, read_yaml, typed

TASKS = ("text-to-motion", "motion-to-text", "motion-editing", "tokenizer", "evaluator", "text-encoder", "classifier")
ORIGINS = ("published", "measured")
BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class Part:
    """A network of the model. `dtype`: the one it always computes in; null: the one that the model is loaded as."""

    name: str
    parameters: int
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.parameters < 1:
            raise ValueError(f"parameters must be at least 1, got {self.parameters}")
        if self.dtype is not None and self.dtype not in BYTES_PER_VALUE:
            raise ValueError(f"dtype must be one of {[*BYTES_PER_VALUE]} or null, got {self.dtype!r}")


@dataclass
class Hub:
    """A repository on the Hugging Face hub.

    `revision` is a full commit hash, so that everybody gets the same files; null has to be written out where it is not
    known, and loading then warns that the model is not pinned.
    """

    repository: str
    revision: str | None

    def __post_init__(self) -> None:
        if self.repository.count("/") != 1:
            raise ValueError(f"hub.repository must be owner/repository, got {self.repository!r}")
        if self.revision is not None and not _COMMIT.fullmatch(self.revision):
            raise ValueError(
                f"hub.revision must be a full commit hash (40 hexadecimal digits, in quotes) or null, "
                f"got {self.revision!r}"
            )


@dataclass
class Licence:
    """What the weights may be used for. `commercial` and `redistribution`: null where the authors do not say."""

    name: str
    commercial: bool | None
    redistribution: bool | None
    attribution: str
    url: str = ""
    notes: str = ""


@dataclass
class Result:
    """Figures of one protocol.

    `protocol`: a name that `hftrainer evaluate run` knows, or "physical" for the published physical metrics in their
    table's units. `origin`: "published" by others, or "measured" by whoever wrote the card. `source`: where the figures
    can be looked up. `values` and `real` (the same metrics of real clips) have the names that reports give them.
    """

    protocol: str
    origin: str
    source: str
    values: dict[str, float]
    real: dict[str, float] = field(default_factory=dict)
    clips: int | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(f"origin must be one of {list(ORIGINS)}, got {self.origin!r}")
        if not self.source.strip() or not self.values:
            raise ValueError("source and values must not be empty")


@dataclass
class Leaderboard:
    """Whether the model may stand in a test-set leaderboard, and why."""

    eligible: bool
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("leaderboard.reason is empty: say why the model is eligible or not")


@dataclass
class ModelCard:
    """One model.

    A model that generates names its `pipeline`, an evaluator its `evaluator` (names in the registries). `folders`
    are looked for in order below the working directory, the card's own folder and the repository, then on the `hub`.
    `files`: SHA-256 by path inside the model's folder. `cache_values`: numbers that are kept while one motion of full
    length is generated (keys and values of a transformer). `guide`: a documentation page about the family of models.
    """

    name: str
    task: str
    summary: str
    parts: list[Part]
    licence: Licence
    leaderboard: Leaderboard
    representation: str | None = None
    pipeline: str | None = None
    evaluator: str | None = None
    folders: list[str] = field(default_factory=list)
    hub: Hub | None = None
    files: dict[str, str] = field(default_factory=dict)
    cache_values: int = 0
    results: list[Result] = field(default_factory=list)
    citation: str = ""
    guide: str = ""
    aliases: list[str] = field(default_factory=list)
    notes: str = ""

    def __post_init__(self) -> None:
        self.file: Path | None = None  # the YAML file that this was read from
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ValueError(f"name and aliases must be lower-case letters, digits and '.', '_', '-', got {name!r}")
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {list(TASKS)}, got {self.task!r}")
        needed = {"text-to-motion": "pipeline", "evaluator": "evaluator"}.get(self.task)
        if needed is not None and not getattr(self, needed):
            raise ValueError(f"{needed} is missing: a card with the task {self.task} names its {needed}")
        if not self.parts:
            raise ValueError("parts is empty: name the model's networks and their numbers of parameters")
        if not self.folders and self.hub is None:
            raise ValueError("neither folders nor hub is given: say where the model's files are")
        for path, digest in self.files.items():
            if not _SHA256.fullmatch(digest):
                raise ValueError(f"files: {path} must have a SHA-256 of 64 hexadecimal digits, got {digest!r}")
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise ValueError(f"files: {path!r} must be a path inside the model's folder")

    @property
    def parameters(self) -> int:
        """Of all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def names(self) -> list[str]:
        """The name and its aliases."""
        return [self.name, *self.aliases]


def memory(card: ModelCard, dtype: str, *, motions: int = 0) -> int:
    """Bytes of the weights if loaded as `dtype`, and of the cache of `motions` that are generated together.

    What a part always computes in counts for that part. Activations, copies that an engine prepares and the libraries
    themselves come on top.
    """
    if dtype not in BYTES_PER_VALUE:
        raise ValueError(f"dtype must be one of {[*BYTES_PER_VALUE]}, got {dtype!r}")
    weights = sum(part.parameters * BYTES_PER_VALUE[part.dtype or dtype] for part in card.parts)
    return weights + motions * card.cache_values * BYTES_PER_VALUE[dtype]


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """The card in a YAML file, whose name without suffix is the card's; `ConfigError` names the file and the field."""
    path = Path(path)
    fields = read_yaml(path)
    try:
        if fields.setdefault("name", path.stem) != path.stem:
            raise ConfigError(f"name is {fields['name']!r}, but the file is called {path.name}; rename one of them")
        card = _checked(fields)
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix('ModelCard: ')}") from error
    card.file = path
    return card


def _checked(fields: Mapping[str, Any]) -> ModelCard:
    try:
        return typed(ModelCard, fields)
    except ConfigError:
        for key, schema in (("parts", Part), ("results", Result)):
            items = fields.get(key)
            for i, item in enumerate(items if isinstance(items, list) else []):
                typed(schema, item, path=f"{key}[{i}]")  # an error of the list does not say which item has it
        raise
