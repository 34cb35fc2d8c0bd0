"""What a model knows: whether a prompt is like anything that it was trained on, and what it will be read as.

A model folder may have three files for it, which `hftrainer data vocabulary` makes:

    vocabulary.json     {"actions": {name: clips}, "verbs": {verb: clips}, "words": {word: captions}}
    known.json          how prompts are read, the words of general English, the calibrated judgement and its figures
    known.safetensors   embeddings of training captions by the model's own text encoder
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.english import normalized
from hftrainer.pipelines.knowledge.examples import Examples
from hftrainer.pipelines.knowledge.files import Known, read_known
from hftrainer.pipelines.knowledge.length import Length, read_length
from hftrainer.pipelines.knowledge.notes import doubts, remarks, script_problem
from hftrainer.pipelines.knowledge.spelling import Speller

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
_NEAREST = 3
_KEPT = 4096  # assessments


class UnknownPrompt(ValueError):
    """A prompt that the model was asked to refuse (`strict`), or cannot say anything about."""


@dataclass(frozen=True)
class Assessment:
    """What becomes of a `prompt`: the `text` that the model is shown and the `seconds` that the prompt asks for.

    `similarity`, from 0 to 1, is how like the training captions its words and its meaning are; `known`: at least 0.5.
    `nearest`: the known actions that it is closest to. `warnings`: one sentence each. A model without the files knows
    nothing of this: None for both, and no warnings.
    """

    prompt: str
    text: str
    seconds: float | None = None
    known: bool | None = None
    similarity: float | None = None
    nearest: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """What results and manifests have of it."""
        return {
            "known": self.known,
            "similarity": self.similarity,
            "nearest": self.nearest,
            "warnings": self.warnings,
            "prompt_seconds": self.seconds,
        }


def joined(parts: Sequence[Assessment]) -> dict[str, Any]:
    """`Assessment.fields` of a motion of several parts: it is known if all are, and as similar as the least of them."""
    similarities = [part.similarity for part in parts if part.similarity is not None]
    judged = [part.known for part in parts if part.known is not None]
    return {
        "known": all(judged) if judged else None,
        "similarity": min(similarities, default=None),
        "nearest": tuple(dict.fromkeys(name for part in parts for name in part.nearest)),
        "warnings": tuple(f"{part.prompt!r}: {said}" for part in parts for said in part.warnings),
    }


class Knowledge:
    """The judge of a model; `embed` gives unit vectors (n, c) of texts by the model's own text encoder."""

    def __init__(self, known: Known, examples: Examples, embed: Embed):
        self.known, self.examples, self.embed = known, examples, embed
        self.speller = Speller(known.words)
        self._assessed: OrderedDict[str, Assessment] = OrderedDict()

    def assess(self, prompt: str) -> Assessment:
        """What becomes of a prompt; the last few thousand are remembered."""
        found = self._assessed.get(prompt)
        if found is None:  # another thread may do the same, and may drop it at once
            found = self._assessed[prompt] = self._assess(prompt)
            if len(self._assessed) > _KEPT:
                self._assessed.popitem(last=False)
        return found

    def _assess(self, prompt: str) -> Assessment:
        reading = self.known.reading
        warnings: list[str] = []
        length = read_length(prompt) if reading.seconds else Length(prompt, None)
        if length.seconds is not None:
            warnings.append(f"the length of {length.seconds:g} s is read in the prompt (--seconds has precedence)")
        warnings += [f"durations of parts are not followed ({words!r})" for words in length.ignored]
        plain = normalized(length.text)
        plain, changed = self.speller.corrected(plain) if reading.normalize and reading.spelling else (plain, [])
        warnings += [f"{written!r} is read as {word!r}" for written, word in changed]
        problem = script_problem(prompt)
        shown = plain if reading.normalize and plain else length.text
        if problem is not None:
            said = f"the model does not know this prompt ({problem}); {self._knows(self.examples.largest(_NEAREST))}"
            return Assessment(prompt, shown, length.seconds, False, 0.0, (), (said, *warnings))
        vector = self.embed([plain])[0]
        similarity = self.similarity(plain, vector)
        nearest = self.examples.nearest(vector, _NEAREST)
        known = similarity >= 0.5
        if not known:
            why = "; ".join(doubts(plain, self.known.words))
            said = f"the model does not know this prompt (similarity {similarity:.2f}; {why}); {self._knows(nearest)}"
            warnings.insert(0, said)
        return Assessment(
            prompt, shown, length.seconds, known, round(similarity, 4), nearest, (*warnings, *remarks(plain))
        )

    def similarity(self, plain: str, vector: NDArray[np.float32]) -> float:
        """From 0 to 1, with 0.5 where the calibration draws the line."""
        score = self.known.judgement.score(features(plain, vector, self.known, self.examples))
        return 1.0 / (1.0 + math.exp(-min(max(score, -30.0), 30.0)))

    @staticmethod
    def _knows(actions: Sequence[str]) -> str:
        return f"the nearest actions that it knows: {', '.join(actions)}"


def features(plain: str, vector: NDArray[np.float32], known: Known, examples: Examples) -> list[float]:
    """The numbers that a judgement weighs, of a normalized text and its unit vector; names: `files.FEATURES`."""
    return [*examples.similarities(vector), *known.words.features(plain)]


def load_knowledge(folder: Path, embed: Embed) -> Knowledge | None:
    """The judge in a model's folder; None if it has none. Raises ``ValueError`` for files that do not fit."""
    found = read_known(folder)
    return None if found is None else Knowledge(*found, embed)
