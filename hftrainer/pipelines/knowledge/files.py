"""vocabulary.json, known.json and known.safetensors of a model folder; the package's docstring says what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftrainer.config import typed
from hftrainer.files import write_json
from hftrainer.models.checkpoint.reader import open_checkpoint
from hftrainer.models.checkpoint.safetensors import write_safetensors
from hftrainer.pipelines.knowledge.examples import SIMILARITIES, Examples
from hftrainer.pipelines.knowledge.wordlist import WORD_FEATURES, WordList
from hftrainer.readers import FileError, json_field, read_json

VOCABULARY, KNOWN, EXAMPLES = "vocabulary.json", "known.json", "known.safetensors"
FEATURES = (*SIMILARITIES, *WORD_FEATURES)
_STEPS = 127.0  # of an int8


@dataclass
class Reading:
    """How prompts are read: in one spelling, then with typing errors put right, and with the seconds they ask for.

    All of it is off unless a model was trained for it: what other models are shown stays what was typed.
    """

    normalize: bool = False
    spelling: bool = False
    seconds: bool = False


@dataclass
class Judgement:
    """A weighted sum of `FEATURES` and a bias; above 0 a prompt is known."""

    weights: dict[str, float] = field(default_factory=dict)
    bias: float = 0.0

    def score(self, features: Sequence[float]) -> float:
        """The sum for the numbers of one prompt."""
        return self.bias + sum(self.weights[name] * value for name, value in zip(FEATURES, features, strict=True))


@dataclass
class Known:
    """What known.json and vocabulary.json say. `calibration`: figures of how good the judgement is."""

    words: WordList
    judgement: Judgement
    reading: Reading = field(default_factory=Reading)
    groups: dict[str, dict[str, int]] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)


def write_known(folder: Path, known: Known, examples: Examples) -> None:
    """Write the three files into a model's folder, each atomically; its manifest is for the caller to renew."""
    write_json(folder / VOCABULARY, {**known.groups, "words": dict(sorted(known.words.counts.items()))})
    content = {
        "format_version": 1,
        "reading": dataclasses.asdict(known.reading),
        "judgement": dataclasses.asdict(known.judgement),
        "calibration": known.calibration,
        "actions": examples.names,
        **known.words.plain(),
    }
    write_json(folder / KNOWN, content)
    tensors = {
        "vectors": torch.from_numpy(np.round(examples.vectors * _STEPS).astype(np.int8)),
        "center": torch.from_numpy(examples.center.astype(np.float32)),
        "action": torch.from_numpy(examples.action.astype(np.int16)),
    }
    sizes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_safetensors(folder / EXAMPLES, sizes, lambda name: tensors[name])


def read_known(folder: Path) -> tuple[Known, Examples] | None:
    """What `write_known` wrote; None for a model without known.json."""
    path = folder / KNOWN
    if not path.is_file():
        return None
    content = read_json(path)
    if content.get("format_version") != 1:
        raise FileError(f"{path}: format_version is {content.get('format_version')!r}, this version reads 1")
    groups = _groups(read_json(folder / VOCABULARY), folder / VOCABULARY)
    words = WordList.from_plain(content, groups.pop("words", {}), str(path))
    judgement = typed(Judgement, json_field(content, "judgement", dict, path), path=str(path))
    if set(judgement.weights) != set(FEATURES):
        raise FileError(f"{path}: judgement.weights must be those of {', '.join(FEATURES)}")
    reading = typed(Reading, json_field(content, "reading", dict, path), path=str(path))
    known = Known(words, judgement, reading, groups, json_field(content, "calibration", dict, path))
    return known, _read_examples(folder, [str(n) for n in json_field(content, "actions", list, path)], groups)


def _read_examples(folder: Path, names: list[str], groups: Mapping[str, Mapping[str, int]]) -> Examples:
    path = folder / EXAMPLES
    stored = open_checkpoint(path)
    missing = {"vectors", "center", "action"} - set(stored)
    if missing:
        raise FileError(f"{path} has no {', '.join(sorted(missing))}; make it again with: hftrainer data vocabulary")
    vectors = stored["vectors"].to(torch.float32).numpy()
    center, action = stored["center"].to(torch.float32).numpy(), stored["action"].to(torch.int64).numpy()
    if vectors.ndim != 2 or not len(vectors) or center.shape != vectors.shape[1:] or action.shape != vectors.shape[:1]:
        raise FileError(f"{path}: vectors {vectors.shape}, center {center.shape} and action {action.shape} do not fit")
    if action.min() < -1 or action.max() >= len(names):
        raise FileError(f"{path}: action has {int(action.max())}, but {KNOWN} names {len(names)} actions")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.asarray(vectors / np.maximum(length, 1e-9), dtype=np.float32)
    return Examples(vectors, center, action, names, dict(groups.get("actions", {})))


def _groups(content: Mapping[str, Any], path: Path) -> dict[str, dict[str, int]]:
    try:
        return {str(group): {str(w): int(n) for w, n in words.items()} for group, words in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise FileError(f'{path} must be {{"verbs": {{"walk": 12, ...}}, ...}}: {error}') from error
