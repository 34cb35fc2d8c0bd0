"""Typing errors: a word that is no English is read as the known word that it is one or two slips away from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from hftrainer.english import FUNCTION_WORDS
from hftrainer.pipelines.knowledge.wordlist import WordList

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LONG = 7  # letters from which on two slips are looked for
_SEEN = 2  # times that captions have a word before others are read as it


class Speller:
    """Corrects against the words of a `WordList`."""

    def __init__(self, known: WordList):
        self.known = known
        self._word = lru_cache(maxsize=4096)(self._best)

    def corrected(self, text: str) -> tuple[str, list[tuple[str, str]]]:
        """The text with slips put right, and what was changed, as (written, read as).

        Text that is mostly foreign stays as it is: its words would only happen to be near English ones.
        """
        found = re.findall(r"[^\W\d_]+", text)
        strange = [word for word in found if not self._is_word(word)]
        if not strange or 2 * len(strange) > len(found) + (len(found) == 1):
            return text, []
        changed = {word: better for word in strange if (better := self._word(word)) is not None}
        text = re.sub(r"[^\W\d_]+", lambda match: changed.get(match[0], match[0]), text)
        return text, [(word, changed[word]) for word in dict.fromkeys(strange) if word in changed]

    def _is_word(self, word: str) -> bool:
        return word in FUNCTION_WORDS or self.known.is_english(word)

    def _best(self, word: str) -> str | None:
        if len(word) < 3 or not word.isascii():
            return None
        near = self._among(_slips(word))
        if not near and len(word) >= _LONG:
            near = self._among(further for slip in _slips(word) for further in _slips(slip))
        return max(sorted(near), key=lambda found: self.known.counts[found]) if near else None

    def _among(self, candidates: Iterator[str]) -> set[str]:
        counts = self.known.counts
        return {found for found in candidates if len(found) > 2 and counts.get(found, 0) >= _SEEN}


def _slips(word: str) -> Iterator[str]:
    """Words at one letter more, less, changed, or two neighbours exchanged; three letters only by exchange."""
    halves = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    yield from (a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1)
    if len(word) > 3:
        yield from (a + b[1:] for a, b in halves if b)
        yield from (a + letter + b[1:] for a, b in halves if b for letter in _LETTERS)
        yield from (a + letter + b for a, b in halves for letter in _LETTERS)
