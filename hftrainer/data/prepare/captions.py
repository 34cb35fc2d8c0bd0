"""Captions from labels, by templates: several paraphrases of each clip, the same ones for the same seed.

A template file (the shipped one is caption_templates/bandai-namco.yaml) has a pattern that takes labels out of clip
names, phrases for every content, and words for every style. A clip joined from several has one part for each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from hftrainer.config import typed
from hftrainer.data.folder import DatasetFolder, parts_of
from hftrainer.patterns import check_pattern, match_all
from hftrainer.readers import FileError, read_yaml

SHIPPED = Path(__file__).parent / "caption_templates"


@dataclass
class Style:
    """Words for one way of doing things; `plain` styles may also go without any."""

    adverbs: list[str] = field(default_factory=list)
    adjectives: list[str] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    plain: bool = False


@dataclass
class CaptionTemplates:
    """The words of a data set; see the module's docstring."""

    clip: str
    contents: dict[str, list[str]]
    styles: dict[str, Style]
    subjects: list[str]
    mirrored: dict[str, str] = field(default_factory=dict)
    croppable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_pattern(self.clip, "clip")
        for content, phrases in self.contents.items():
            _check_phrases(phrases, f"contents.{content}")
        for style, words in self.styles.items():
            for key in ("adverbs", "adjectives", "endings", "subjects"):
                _check_phrases(getattr(words, key), f"styles.{style}.{key}", may_be_empty=True)
        _check_phrases(self.subjects, "subjects")

    def labels_of(self, names: Sequence[str]) -> list[dict[str, str] | None]:
        """The labels in the names of clips, and None for a name that does not have the pattern."""
        found = match_all(self.clip, [name.rpartition("/")[2] for name in names], where="clip")
        return [None if groups is None else {k: v for k, v in groups.items() if v is not None} for groups in found]


def load_templates(name_or_path: str | os.PathLike[str]) -> CaptionTemplates:
    """A shipped template file by name, or one's own by path."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ValueError(f"no caption templates {str(name_or_path)!r}; included: {known}; or give a YAML file's path")
    fields = read_yaml(path)
    styles = fields.get("styles")
    if isinstance(styles, dict):  # a style without words is written as nothing
        fields["styles"] = {name: {} if words is None else words for name, words in styles.items()}
    return typed(CaptionTemplates, fields, path=str(path))


def _check_phrases(phrases: Iterable[str], where: str, *, may_be_empty: bool = False) -> None:
    phrases = list(phrases)
    if not phrases and not may_be_empty:
        raise FileError(f"{where} must have at least one phrase")
    for phrase in phrases:
        words = phrase.split(" ") if isinstance(phrase, str) else [""]
        if any(not word.lstrip("*") for word in words) or not phrase.isprintable() or "#" in phrase:
            raise FileError(f"{where}: expected words with single spaces between them and no #, got {phrase!r:.80}")


def make_captions(
    parts: list[Mapping[str, str]], templates: CaptionTemplates, count: int, rng: np.random.Generator
) -> list[str]:
    """`count` sentences about one clip, different where the templates allow it.

    `parts` are the labels ("content", perhaps "style") of what happens one after the other.
    """
    out: list[str] = []
    for _ in range(20 * count):
        sentence = _sentence(parts, templates, rng)
        if sentence not in out:
            out.append(sentence)
        if len(out) == count:
            break
    return out


def write_captions(dataset: DatasetFolder, templates: CaptionTemplates, *, count: int, seed: int) -> dict[str, str]:
    """Write texts/<name>.txt for every clip, and its labels into labels.json; what went wrong, by clip name."""
    labels, names, failed = dataset.labels(), dataset.names(), {}
    unlabelled = [name for name in names if not labels.get(name)]
    in_names = dict(zip(unlabelled, templates.labels_of(unlabelled), strict=True))
    for name in names:
        found: Mapping[str, Any] | None = labels.get(name) or in_names.get(name)
        if not found:
            failed[name] = f"no labels: the name does not match the pattern {templates.clip!r}"
            continue
        try:
            captions = make_captions(parts_of(found), templates, count, np.random.default_rng([seed, *name.encode()]))
        except ValueError as error:
            failed[name] = str(error)
            continue
        labels[name] = dict(found)
        dataset.write_captions(name, captions)
    dataset.write_labels(labels)
    return failed


def mirrored_parts(parts: list[Mapping[str, str]], templates: CaptionTemplates) -> list[dict[str, str]] | None:
    """Labels of the mirror image, or None if a part is one-sided and its mirror image would be something new."""
    if any(part["content"] not in templates.mirrored for part in parts):
        return None
    return [{**part, "content": templates.mirrored[part["content"]]} for part in parts]


# --- sentences --------------------------------------------------------------------------------------------------------


def _sentence(parts: list[Mapping[str, str]], templates: CaptionTemplates, rng: np.random.Generator) -> str:
    actions = [_pick(rng, _look_up(templates.contents, part.get("content", ""), "content")) for part in parts]
    styles = [
        _look_up(templates.styles, part["style"], "style") if part.get("style") else Style(plain=True) for part in parts
    ]
    same = all(part.get("style") == parts[0].get("style") for part in parts)
    said = _say_one(actions, styles[0], templates, rng) if same else _say_each(actions, styles, templates, rng)
    return _polish(said, rng)


def _say_one(actions: list[str], style: Style, templates: CaptionTemplates, rng: np.random.Generator) -> str:
    """One style for everything: in the subject, an adverb, or at the end."""
    ways = [way for way in ("adjectives", "subjects", "endings") if getattr(style, way)]
    ways += ["adverbs"] * 3 if style.adverbs else []
    ways += ["plain"] * 6 if style.plain or not ways else []
    way = _pick(rng, ways)
    subject = _pick(rng, templates.subjects)
    if way == "subjects":
        return _clauses(_pick(rng, style.subjects), actions, [""] * len(actions), rng)
    if way == "adjectives":
        return _clauses(_article(f"{_pick(rng, style.adjectives)} person"), actions, [""] * len(actions), rng)
    if way == "endings":
        return f"{_clauses(subject, actions, [''] * len(actions), rng)}, {_pick(rng, style.endings)}"
    adverbs = [""] * len(actions)
    if way == "adverbs":
        adverbs[int(rng.integers(len(actions)))] = _pick(rng, style.adverbs)
    return _clauses(subject, actions, adverbs, rng)


def _say_each(actions: list[str], styles: list[Style], templates: CaptionTemplates, rng: np.random.Generator) -> str:
    adverbs = ["" if style.plain or not style.adverbs else _pick(rng, style.adverbs) for style in styles]
    return _clauses(_pick(rng, templates.subjects), actions, adverbs, rng)


def _clauses(subject: str, actions: list[str], adverbs: list[str], rng: np.random.Generator) -> str:
    """Who does what and how, one action after the other."""
    form = _pick(rng, ["third"] * 6 + ["ing", "ing"] + (["base", "bare ing"] if "person" in subject else []))
    said = [_with_adverb(action, adverb, form, rng) for action, adverb in zip(actions, adverbs, strict=True)]
    if len(said) == 1:
        text = said[0]
    else:
        link = _pick(rng, [", then ", " and then ", ", and then ", " then ", ", after that "])
        text = link.join(said)
        if form == "third" and len(said) == 2 and rng.random() < 0.15:
            text = f"{said[0]} before {_with_adverb(actions[1], adverbs[1], 'ing', rng)}"
    if form == "base" or form == "bare ing":
        # a bare phrase has no subject to carry an adjective; keep the style by naming who it is
        return text if subject in ("a person", "the person", "this person") else f"{subject}: {text}"
    first = "first " if len(said) > 1 and rng.random() < 0.1 else ""
    return f"{first}{subject} {'is ' if form == 'ing' else ''}{text}"


def _with_adverb(action: str, adverb: str, form: str, rng: np.random.Generator) -> str:
    forms: dict[str, Callable[[str], str]] = {"third": third_person, "ing": gerund, "bare ing": gerund, "base": str}
    inflect = forms[form]
    words = [inflect(w.lstrip("*")) if i == 0 or w[0] == "*" else w for i, w in enumerate(action.split(" "))]
    phrase = " ".join(words)
    if not adverb:
        return phrase
    if adverb.endswith("ly") and " " not in adverb and rng.random() < 0.4:
        return f"{adverb} {phrase}"
    return f"{phrase} {adverb}"


def third_person(verb: str) -> str:
    """walk, walks; dash, dashes; carry, carries."""
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


_DOUBLED = {
    "run",
    "jog",
    "step",
    "nod",
    "stop",
    "swim",
    "sit",
    "hop",
    "sidestep",
    "side-step",
    "put",
    "trot",
    "cut",
}


def gerund(verb: str) -> str:
    """walk, walking; wave, waving; run, running."""
    if verb in _DOUBLED:
        return f"{verb}{verb[-1]}ing"
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        return verb[:-1] + "ing"
    return verb + "ing"


def _polish(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.5 else text


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _look_up(table: Mapping[str, Any], key: str, kind: str) -> Any:
    if key not in table:
        near = get_close_matches(key, table, n=1)
        raise ValueError(f"the templates have no {kind} {key!r}{f'; near: {near[0]!r}' if near else ''}")
    return table[key]
