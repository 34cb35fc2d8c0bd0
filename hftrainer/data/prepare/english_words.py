"""General English out of WordNet's files: how often words occur in its definitions, its verbs, its animals."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hftrainer.english import words

WORDNET = "/usr/share/wordnet"  # where Debian's package wordnet-base has it
_KINDS = ("noun", "verb", "adj", "adv")
_ANIMAL = 5  # of WordNet's lexicographer files
_FEWEST = 2  # times that a word occurs: once may be a slip, or a rare name


@dataclass(frozen=True)
class EnglishWords:
    """`levels`: log2 of how often a word occurs; `verbs` and `animals`: those whose first sense is one."""

    levels: dict[str, int]
    verbs: set[str]
    animals: set[str]


def read_wordnet(folder: str | os.PathLike[str] = WORDNET) -> EnglishWords:
    """Words of the definitions and examples in ``data.*``, and of ``index.verb`` and ``index.noun``.

    Raises ``ValueError`` that says how to install WordNet where the files are not there.
    """
    counts: Counter[str] = Counter()
    for kind in _KINDS:
        for line in _lines(folder, f"data.{kind}"):
            counts.update(words(line.partition("| ")[2]))
    animals = {line.split(" ", 2)[0] for line in _lines(folder, "data.noun") if int(line.split(" ", 2)[1]) == _ANIMAL}
    firsts = {word: offset for word, offset in _first_senses(folder, "noun")}
    return EnglishWords(
        {word: int(math.log2(n)) for word, n in counts.items() if n >= _FEWEST},
        {word for word, _ in _first_senses(folder, "verb") if word in counts},
        {word for word, offset in firsts.items() if offset in animals and word in counts},
    )


def _first_senses(folder: str | os.PathLike[str], kind: str) -> Iterator[tuple[str, str]]:
    """Single words of an index with the offset of their most frequent sense."""
    for line in _lines(folder, f"index.{kind}"):
        word, _, senses, pointers, *rest = line.split()
        if re.fullmatch(r"[a-z]{2,20}", word):
            yield word, rest[int(pointers) + 2]
            assert len(rest) == int(pointers) + 2 + int(senses), line


def _lines(folder: str | os.PathLike[str], name: str) -> Iterator[str]:
    path = Path(folder) / name
    if not path.is_file():
        raise ValueError(
            f"there is no {path}; install WordNet (Debian: apt-get install wordnet-base), or give its folder"
        )
    with open(path, encoding="utf-8", errors="replace") as stream:
        yield from (line for line in stream if line[0] != " ")
