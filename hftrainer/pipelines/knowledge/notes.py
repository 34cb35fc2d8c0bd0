"""What a prompt says that a model of one person's motion does not follow, or does not understand."""

from __future__ import annotations

import re

from hftrainer.english import FUNCTION_WORDS, is_latin, words
from hftrainer.pipelines.knowledge.length import NUMBER_WORDS
from hftrainer.pipelines.knowledge.wordlist import WordList

_NUMBERS = "|".join(word for word in NUMBER_WORDS if word not in ("zero", "one"))
_MANY = rf"(?:[2-9]|\d\d+|{_NUMBERS}|several|many|some|both|few|multiple)"
_PEOPLE = re.compile(
    rf"\b{_MANY} (?:[a-z]+ )?"
    r"(?:people|persons?|men|women|humans|figures|friends|guys|girls|boys|dancers|children|kids)\b"
    r"|\b(?:a|the) (?:couple|crowd|group|team|family|audience)\b(?! of (?:times|steps|seconds))|\beach other\b"
    r"|\b(?:man|woman|person|boy|girl|guy) and (?:a|the|another|his|her) (?:man|woman|person|boy|girl|guy|friend)\b",
    re.I,
)
_TIMES = re.compile(
    rf"\b(?:\d+|{_NUMBERS}|several|many|a few)(?: or (?:\d+|{_NUMBERS}))?[ -]?(?:times|x|reps?|repetitions?|steps|laps|"
    r"jumps|kicks|punches|hops|turns|circles|squats)\b|\b(?:twice|thrice)\b",
    re.I,
)
_NEGATION = re.compile(r"\b(?:without|not|never|no longer|doesn't|don't|isn't|stops? \w+ing)\b", re.I)
_PRETENDS = re.compile(r"\b(?:like|as if|as though|imitat\w*|pretend\w*|mimic\w*|acts?|acting|mim\w+|as an?)\b", re.I)
_MARKUP = re.compile(r"</?\w|&\w+;|https?:|\w\([^ ]*\)|\{.*\}|^\s*[$>#]\s|\\\w")
_SYMBOLS = re.compile(r"[<>{}\\|=;`$#@^~\[\]]")


def script_problem(text: str) -> str | None:
    """Why a text cannot be English at all; None if it may be."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return "it has no words"
    if sum(map(is_latin, letters)) < len(letters) / 2:
        return "it is not written in Latin letters, and the model reads English only"
    if _MARKUP.search(text) or len(_SYMBOLS.findall(text)) > 1:
        return "it looks like code or markup"
    return None


def doubts(text: str, known: WordList) -> list[str]:
    """What is strange about a text that the model does not know: words for after a colon."""
    found = []
    verbs, unknown = known.unknown_verbs(text), known.unknown(text)
    animal = subject_animal(text, known)
    if animal:
        found.append(f"an animal ({animal}) instead of a person")
    if verbs:
        found.append(f"unknown action: {', '.join(verbs[:3])}")
    others = [word for word in unknown if word not in verbs and word != animal]
    if others:
        found.append(f"unknown words: {', '.join(others[:5])}")
    if people(text):
        found.append("several people")
    return found or ["its words are known, but not together"]


def remarks(text: str) -> list[str]:
    """What is said of a text that the model may know: what it asks for and will not get."""
    found = []
    several, times, negated = people(text), _TIMES.search(text), _NEGATION.search(text)
    if several:
        found.append(f"only one person is made ({several!r})")
    if times:
        found.append(f"counts are not followed ({times[0]!r})")
    if negated:
        found.append(f"negations are not understood ({negated[0]!r})")
    return found


def people(text: str) -> str | None:
    """The words by which a text asks for more than one person; None if it does not."""
    match = _PEOPLE.search(text)
    return match[0] if match else None


def subject_animal(text: str, known: WordList) -> str | None:
    """The animal that does something, as in "a small dog runs", and not "walks like a dog"."""
    for word in words(text)[:4]:
        if word in known.animals and word not in FUNCTION_WORDS:
            return None if _PRETENDS.search(text) else word
    return None
