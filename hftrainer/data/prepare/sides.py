"""Left and right in sentences, exchanged where they are sides."""

from __future__ import annotations

import re

_PAIRS = {"left": "right", "clockwise": "counterclockwise"}
_OTHER = {**_PAIRS, **{b: a for a, b in _PAIRS.items()}, "anticlockwise": "clockwise"}
_WORD = re.compile(
    r"\b(left|right)(?=\b|ward|wards|most|hand|handed|side|foot|ward's)|\b((?:counter|anti)[ -]?clockwise|clockwise)\b",
    re.IGNORECASE,
)
# where the words are no sides: right away, left the room, what is left over
_NO_SIDE = re.compile(
    r"\b(right (?:away|now|after|before|there|here|then|behind|beside|next to|in front|in the middle|angles?|back up)"
    r"|(?:all|just|that's|is that|the) right(?= (?:way|time|amount|answer|distance|place)\b)|all right|upright"
    r"|(?:has|have|had|having|who|and|he|she|they|person|man|woman|figure) left"
    r" (?:the|a|his|her|their|its) (?:room|place|area|scene|stage)"
    r"|left (?:over|behind|off|alone)|(?:is|are|was|were) left with)\b",
    re.IGNORECASE,
)  # fmt: skip


def exchange_sides(text: str) -> str:
    """The sentence about the mirror image: left for right, clockwise for counterclockwise, in the same case."""
    kept = [match.span() for match in _NO_SIDE.finditer(text)]

    def exchange(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in kept):
            return match[0]
        other = _OTHER[re.sub("[ -]", "", match[0].lower())]
        if match[0].isupper():
            return other.upper()
        return other.capitalize() if match[0][0].isupper() else other

    return _WORD.sub(exchange, text)
