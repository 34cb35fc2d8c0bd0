"""What words say about a prompt: those of the training captions, and those of English at large."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hftrainer.english import FUNCTION_WORDS, content_words, lemmas, words
from hftrainer.readers import FileError, json_field

_START, _END = "<", ">"
_CLIP = 6.0  # natural logarithms; one odd word must not decide alone
_LISTS = ("verbs", "animals")
WORD_FEATURES = ("known words", "unknown words", "seen words", "familiarity", "oddest word", "word pairs", "length")


@dataclass
class WordList:
    """`counts` of words in captions, and their `pairs`; `english`: how often words occur in general text (log2).

    `verbs` and `animals` are English words of these kinds.
    """

    counts: dict[str, int]
    pairs: set[tuple[str, str]]
    english: dict[str, int]
    verbs: set[str] = field(default_factory=set)
    animals: set[str] = field(default_factory=set)

    @classmethod
    def of_captions(cls, captions: Iterable[str], english: WordList | None = None) -> WordList:
        """Counts and pairs of captions, with the English of another list."""
        counts: Counter[str] = Counter()
        pairs: set[tuple[str, str]] = set()
        for caption in captions:
            found = words(caption)
            counts.update(found)
            pairs.update(_pairs(found))
        rest = english or cls({}, set(), {})
        return cls(dict(counts), pairs, rest.english, rest.verbs, rest.animals)

    @cached_property
    def lemmas(self) -> set[str]:
        """Every form that a caption's word may be one of."""
        return {lemma for word in self.counts for lemma in lemmas(word)}

    @cached_property
    def _totals(self) -> tuple[int, float]:
        return max(1, sum(self.counts.values())), max(1.0, sum(2.0**n for n in self.english.values()))

    def knows(self, word: str) -> bool:
        """Whether the captions have the word, or another form of it."""
        return word in self.counts or any(lemma in self.lemmas for lemma in lemmas(word))

    def is_english(self, word: str) -> bool:
        """Whether the word, or a form of it, is in the captions or in general text."""
        return self.knows(word) or any(lemma in self.english for lemma in lemmas(word))

    def unknown(self, text: str) -> list[str]:
        """Content words that no caption has, in their order."""
        return [word for word in dict.fromkeys(content_words(text)) if not self.knows(word)]

    def unknown_verbs(self, text: str) -> list[str]:
        """Those that are verbs, and stand where verbs stand: first, or after the subject."""
        heads = set(head_words(text))
        return [w for w in self.unknown(text) if w in heads and any(lemma in self.verbs for lemma in lemmas(w))]

    def features(self, text: str) -> list[float]:
        """Numbers for `WORD_FEATURES`; higher is more familiar but for "unknown words" and "length"."""
        found, content = words(text), content_words(text)
        known = [self.knows(word) for word in content]
        odds = np.clip([self._odds(word) for word in found], -_CLIP, _CLIP) if found else np.array([-_CLIP])
        pairs = _pairs(found)
        return [
            _share(known),
            float(min(3, len(known) - sum(known))),
            _share([word in self.counts for word in content]),
            float(odds.mean()),
            float(odds.min()),
            _share([pair in self.pairs for pair in pairs]) if found else 0.0,
            min(len(content), 6) / 6,
        ]

    def _odds(self, word: str) -> float:
        """How much likelier a word is in a caption than in general text, as a logarithm."""
        total, everything = self._totals
        here = (self.counts.get(word, 0) + 0.05) / total
        there = (2.0 ** self.english[word] if word in self.english else 0.5) / everything
        return math.log(here / there)

    # --- as JSON ----------------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """Everything but the counts, as strings of words."""
        followers: dict[str, list[str]] = {}
        for first, second in sorted(self.pairs):
            followers.setdefault(first, []).append(second)
        levels: dict[int, list[str]] = {}
        for word, level in sorted(self.english.items()):
            levels.setdefault(level, []).append(word)
        return {
            "pairs": {first: " ".join(seconds) for first, seconds in followers.items()},
            "english": {str(level): " ".join(found) for level, found in sorted(levels.items())},
            "verbs": " ".join(sorted(self.verbs)),
            "animals": " ".join(sorted(self.animals)),
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any], counts: Mapping[str, int], where: str) -> WordList:
        """What `plain` wrote. Raises ``ValueError`` that names `where` for anything else."""
        tables = {name: json_field(content, name, dict, where) for name in ("pairs", "english")}
        lists = {name: set(json_field(content, name, str, where).split()) for name in _LISTS}
        try:
            english = {word: int(level) for level, found in tables["english"].items() for word in found.split()}
            pairs = {(first, second) for first, seconds in tables["pairs"].items() for second in seconds.split()}
        except (AttributeError, ValueError) as error:
            raise FileError(f"{where}: pairs and english must be strings of words by word or level: {error}") from error
        return cls(dict(counts), pairs, english, **lists)


def head_words(text: str) -> list[str]:
    """The first content word of every clause: where an English sentence about a person has its verb."""
    heads, waiting = [], True
    for word in words(text):
        if word in ("then", "and", "before", "while"):
            waiting = True
        elif waiting and word not in FUNCTION_WORDS and not word.endswith("ly"):
            heads.append(word)
            waiting = False
    return heads


def _pairs(found: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip([_START, *found], [*found, _END], strict=True))


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0
