"""English sentences as plain strings: one spelling of a prompt, its words, and the base forms that a word may have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# words that say nothing about what is done
FUNCTION_WORDS = frozenset(
    """a an the and or then of to in on at by with from into for as it its his her their him them he she they we i you
    my your our is are was were be been being do does did has have had while is that this these those one some someone
    somebody person persons man men woman women human figure guy girl boy lady character people individual up down out
    off over around who which where after before so very too also not no if but than when there here s t""".split()
)
_WORD = re.compile(r"[^\W\d_]+")
_OTHER = re.compile(r"[^\w\s,.'-]|_")
_ENDINGS = (
    ("ies", "y"), ("es", ""), ("es", "e"), ("s", ""), ("ied", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"),
    ("er", ""), ("er", "e"), ("ly", ""), ("ily", "y"),
)  # fmt: skip
_IRREGULAR = {
    "ran": "run", "sat": "sit", "stood": "stand", "went": "go", "gone": "go", "took": "take", "threw": "throw",
    "thrown": "throw", "fell": "fall", "fallen": "fall", "swam": "swim", "swung": "swing", "bent": "bend",
    "held": "hold", "caught": "catch", "drank": "drink", "ate": "eat", "eaten": "eat", "got": "get", "spun": "spin",
    "crept": "creep", "leapt": "leap", "knelt": "kneel", "hung": "hang", "shook": "shake", "drove": "drive",
    "driven": "drive", "rode": "ride", "rose": "rise", "lay": "lie", "lying": "lie", "made": "make", "gave": "give",
    "feet": "foot", "men": "man", "women": "woman", "children": "child", "people": "person", "knives": "knife",
}  # fmt: skip


def normalized(text: str) -> str:
    """A sentence in one spelling: NFKC, lower case, straight apostrophes, letters, digits and ``, . ' -``, and no
    punctuation at its ends. "A PERSON  Walks!!" is "a person walks"."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").lower()
    text = re.sub(r"([,.'-])(?:\s*[,.'-])+", r"\1 ", _OTHER.sub(" ", text))
    return re.sub(r"\s+", " ", text).strip(" ,.'-")


def words(text: str) -> list[str]:
    """The words of a sentence in any script, lower case, without digits and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def content_words(text: str) -> list[str]:
    """The words that say what is done, how, and with what."""
    return [word for word in words(text) if word not in FUNCTION_WORDS]


def lemmas(word: str) -> Iterator[str]:
    """`word`, then what it may be a form of: "stepping" is one of "stepping", "stepp", "step", "steppe"."""
    yield word
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            stem = word[: len(word) - len(ending)]
            yield stem + instead
            if not instead and len(stem) > 3 and stem[-1] == stem[-2]:
                yield stem[:-1]


def is_latin(letter: str) -> bool:
    """Whether a letter is one of the Latin script, with or without accents."""
    return unicodedata.name(letter, "").startswith("LATIN")
