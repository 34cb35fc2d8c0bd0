"""Seconds that a prompt asks for: "walks for five seconds", "a 10 s walk", "waves, 2.5 sec"."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
NUMBER_WORDS = {word: float(n) for n, word in enumerate(_UNITS)} | {word: float(n) for word, n in _TENS.items()}
_WORD = "|".join([*NUMBER_WORDS, "a couple of", "a", "an"])
_NUMBER = rf"(?:\d+(?:[.,]\d+)?|(?:{'|'.join(_TENS)})[ -](?:{'|'.join(_UNITS[1:10])})|{_WORD})"
_AMOUNT = rf"(?P<amount>{_NUMBER}(?: and a half)?|half an?)"
_UNIT = r"(?P<unit>seconds?|secs?|minutes?|mins?|s)"
_LEAD = (
    r"(?P<lead>\b(?:for|lasting|during|over|in|after|every|within|at)\s+(?:about |around |exactly |roughly |only )?)?"
)
_DURATION = re.compile(rf"{_LEAD}(?<![\w.])(?P<article>an?\s+)?{_AMOUNT}(?:[ -]?){_UNIT}(?:[ -]long| of)?(?!\w)", re.I)
_NOT_LENGTHS = ("in", "after", "every", "within", "at")
_PARTS = re.compile(r"\b(?:then|before|afterwards|after that|and)\b|;|\.\s", re.I)


@dataclass(frozen=True)
class Length:
    """A prompt without its `seconds`; None where it names none that are the motion's. `ignored`: what is not read."""

    text: str
    seconds: float | None
    ignored: tuple[str, ...] = ()


def read_length(text: str) -> Length:
    """Take the length of the motion out of a prompt.

    One length at the end is that of the motion, and so is the sum where every part ("... then ...") has one. A length
    of a part among others, and "after two seconds", are no length of the motion; they are named and stay in the text.
    """
    found = [match for match in _DURATION.finditer(text) if _is_length(match)]
    if not found:
        return Length(text, None)
    lengths = [match for match in found if (match["lead"] or "").split(" ")[0].lower() not in _NOT_LENGTHS]
    others = tuple(match[0].strip() for match in found if match not in lengths)
    parts = [text[: match.start()] for match in _PARTS.finditer(text)]
    last = len(lengths) == 1 and not _PARTS.search(text, lengths[0].end())
    if not lengths or others or not (last or len(lengths) == len(parts) + 1):
        return Length(text, None, tuple(match[0].strip() for match in found))
    total, rest = sum(_seconds(match) for match in lengths), text
    for match in reversed(lengths):
        rest = f"{rest[: match.start()]}{match['article'] or ''}{rest[match.end() :]}"
    rest = re.sub(r"\s+([,.;!?])", r"\1", re.sub(r"\s+", " ", rest)).strip(" ,;")
    says_something = re.search(r"[^\W\d_]", rest) is not None and total > 0
    return Length(rest, total) if says_something else Length(text, None)


def _is_length(match: re.Match[str]) -> bool:
    """Whether this is a duration: "a second chair" and "takes a second" are none, "for a second" is."""
    vague = match["amount"].lower() in ("a", "an")
    return not vague or (match["lead"] or "").lower().startswith(("for", "lasting"))


def _seconds(match: re.Match[str]) -> float:
    amount, half = match["amount"].lower(), 0.0
    if amount.startswith("half"):
        value = 0.5
    else:
        if amount.endswith(" and a half"):
            amount, half = amount.removesuffix(" and a half"), 0.5
        value = _number(amount) + half
    return value * (60.0 if match["unit"].lower().startswith("m") else 1.0)


def _number(text: str) -> float:
    if text[0].isdigit():
        return float(text.replace(",", "."))
    if text in ("a", "an"):
        return 1.0
    if text == "a couple of":
        return 2.0
    return sum(NUMBER_WORDS[part] for part in re.split(r"[ -]", text))
