"""Sentences to distil a small text encoder on: captions, and English verbs, adverbs and adjectives in such sentences.

The words come from WordNet's files (Debian package wordnet-base, or any folder with data.verb, data.adj, data.adv),
so that the encoder has met "trudge" and "weary" even where no caption has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hftrainer.data.prepare.caption_table import CaptionTable
from hftrainer.data.prepare.captions import CaptionTemplates, gerund, make_captions, third_person

_PEOPLE = (
    "a person",
    "someone",
    "a man",
    "a woman",
    "the person",
    "a human",
    "he",
    "she",
    "the character",
    "a guy",
)

_JOINTS = (", then ", " and then ", ", after that ", " before ")

# WordNet's lexicographer files: what bodies do, and who does it. Of other words only common ones are taken.
_BODILY = {29, 33, 35, 38}  # verbs of body, competition, contact, motion
_PERSON = 18


def caption_sentences(templates: CaptionTemplates, count: int, seed: int) -> Iterator[str]:
    """Captions of one or two random contents and styles."""
    rng = np.random.default_rng([seed, 1])
    contents, styles = sorted(templates.contents), sorted(templates.styles)
    for _ in range(count):
        parts = [
            {"content": str(rng.choice(contents)), "style": str(rng.choice(styles))}
            for _ in range(1 if rng.random() < 0.5 else 2)
        ]
        if len(parts) == 2 and rng.random() < 0.6:
            parts[1]["style"] = parts[0]["style"]
        yield make_captions(list(parts), templates, 1, rng)[0]


def template_actions(templates: CaptionTemplates) -> list[str]:
    """The phrases of all contents ("walk forward"), as `wordnet_sentences` takes them."""
    return [phrase.replace("*", "") for phrases in templates.contents.values() for phrase in phrases]


def table_actions(tables: list[CaptionTable]) -> list[str]:
    """The contents and steps of a caption table's labels ("pick up the box")."""
    lines = [line for table in tables for line in table.labels.values()]
    phrases = [phrase for line in lines for phrase in [line.get("content", ""), *line.get("steps", [])]]
    return list(dict.fromkeys(phrase for phrase in phrases if re.match(r"[a-z]{2}", phrase)))


def table_sentences(tables: list[CaptionTable], count: int, seed: int) -> Iterator[str]:
    """Every caption of training clips, then `count` pairs of them in one sentence; none of other splits."""
    texts = [caption.text for table in tables for name in _trained(table) for caption in table.captions(name)]
    texts = list(dict.fromkeys(text.strip().rstrip(".") for text in texts))
    yield from texts
    rng = np.random.default_rng([seed, 3])
    for _ in range(count):
        first, second = (texts[int(rng.integers(len(texts)))] for _ in range(2))
        yield first + _JOINTS[int(rng.integers(len(_JOINTS)))] + second


def _trained(table: CaptionTable) -> list[str]:
    kept = {line.get("label") for line in table.clips.values() if line.get("split") in ("val", "test")}
    return [
        name for name, line in table.clips.items() if line.get("split") == "train" and line.get("label") not in kept
    ]


def wordnet_sentences(folder: str | os.PathLike[str], actions: list[str], count: int, seed: int) -> Iterator[str]:
    """`count` made sentences about people doing things, then every usable gloss and example.

    `actions`: phrases of the captions, which a third of the sentences use ("walk forward").
    """
    moving, verbs = words_of(folder, "verb", files=_BODILY, rare=True), words_of(folder, "verb")
    adverbs, adjectives = words_of(folder, "adv"), words_of(folder, "adj")
    people = words_of(folder, "noun", files={_PERSON})
    rng = np.random.default_rng([seed, 2])

    def pick(words: list[str] | tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    for _ in range(count):
        verb = pick(pick_pool(rng, (moving, 0.4), (actions, 0.4), (verbs, 0.2)))
        how = rng.random()
        who = pick(_PEOPLE)
        if rng.random() < 0.2:
            who = f"{pick(('a', 'the', 'a', 'this'))} {pick(people)}"
        if 0.3 < how < 0.55:
            adjective = pick(adjectives)
            who = f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {pick(('person', 'man', 'woman', 'human'))}"
        text = f"{who} {_inflect(verb, pick(('s', 's', 's', 'ing')))}"
        if how < 0.3:
            text += f" {pick(adverbs)}"
        elif 0.55 < how < 0.7:
            text += f", {pick(('looking', 'feeling', 'very', 'utterly'))} {pick(adjectives)}"
        elif how > 0.85:
            other = pick(moving) if rng.random() < 0.4 else pick(actions)
            text += f"{pick((', then', ' and then', ' and', ' before', ', after that'))} {_inflect(other, 's')}"
        yield text
    yield from glosses(folder)


def pick_pool(rng: np.random.Generator, *pools: tuple[list[str], float]) -> list[str]:
    """One of the pools, by its share."""
    at = rng.random()
    for pool, share in pools[:-1]:
        if at < share:
            return pool
        at -= share
    return pools[-1][0]


def words_of(
    folder: str | os.PathLike[str], kind: str, *, files: set[int] | None = None, rare: bool = False
) -> list[str]:
    """Words and short phrases of one WordNet file, in plain lower-case English.

    `files` keeps those lexicographer files; without `rare`, only words that occur in WordNet's tagged texts.
    """
    common = _common_words(folder)
    found: dict[str, None] = {}
    for line in _lines(folder, kind):
        fields = line.split(" ")
        if files is not None and int(fields[1]) not in files:
            continue
        for i in range(int(fields[3], 16)):
            word = fields[4 + 2 * i].split("(")[0]
            if (rare or word in common) and re.fullmatch(r"[a-z][a-z'_-]{1,24}", word) and word.count("_") < 3:
                found[word.replace("_", " ")] = None
    return list(found)


def _common_words(folder: str | os.PathLike[str]) -> set[str]:
    path = Path(folder) / "cntlist.rev"
    if not path.is_file():
        raise ValueError(f"there is no {path}; install WordNet (Debian: apt-get install wordnet-base)")
    with open(path, encoding="utf-8", errors="replace") as stream:
        return {line.partition("%")[0] for line in stream}


def glosses(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Definitions of verbs as sentences about someone, and short usage examples of all kinds."""
    for kind in ("verb", "adv", "adj"):
        for line in _lines(folder, kind):
            gloss = line.partition("| ")[2].strip()
            yield from re.findall(r'"([^"]{8,90})"', gloss)
            definition = re.sub(r"\(.*?\)", "", gloss.split(";")[0]).strip()
            if kind == "verb" and 2 <= len(definition.split()) <= 16 and '"' not in definition:
                yield f"someone {_inflect(definition, 's')}"
            elif kind == "adv" and 2 <= len(definition.split()) <= 12 and '"' not in definition:
                yield f"someone moves {definition}"


def _inflect(phrase: str, form: str) -> str:
    verb, space, rest = phrase.partition(" ")
    ing = gerund(verb)
    return f"{third_person(verb) if form == 's' else f'is {ing}'}{space}{rest}"


def _lines(folder: str | os.PathLike[str], kind: str) -> Iterator[str]:
    path = Path(folder) / f"data.{kind}"
    if not path.is_file():
        raise ValueError(
            f"there is no {path}; install WordNet (Debian: apt-get install wordnet-base) or give its folder"
        )
    with open(path, encoding="utf-8", errors="replace") as stream:
        yield from (line for line in stream if line[0] != " ")
