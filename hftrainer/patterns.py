"""Regular expressions that come from files, matched in a process that can be ended.

Python's matcher backtracks: ``(a+)+$`` takes longer than anybody waits on forty letters, and nothing in the same
process can stop it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from hftrainer.readers import FileError, parse_json

MAX_PATTERN = 1000  # letters
SECONDS = 10.0  # for all texts, and a millisecond more for each
_CODE = """import json, re, sys
pattern, texts = json.load(sys.stdin)
found = [re.fullmatch(pattern, text) for text in texts]
json.dump([match and match.groupdict() for match in found], sys.stdout)"""


def check_pattern(pattern: object, where: str) -> str:
    """`pattern` if it is a regular expression of at most 1,000 letters; ``ValueError`` otherwise."""
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
        raise FileError(f"{where}: expected a regular expression of at most {MAX_PATTERN} letters")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        raise FileError(f"{where}: {pattern[:80]!r} is not a regular expression ({error})") from error
    return pattern


def match_all(pattern: str, texts: Sequence[str], *, where: str) -> list[dict[str, str | None] | None]:
    """The named groups of each text that `pattern` matches as a whole, and None for the others.

    Raises ``ValueError``, which begins with `where` (what the pattern is, and of which file), if it takes longer than
    `SECONDS`.
    """
    if not texts:
        return []
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CODE], input=json.dumps([pattern, list(texts)]), check=True,
            stdout=subprocess.PIPE, encoding="ascii", timeout=SECONDS + len(texts) / 1000,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FileError(
            f"{where}: the pattern {pattern[:80]!r} needs more than {SECONDS:g} s; it backtracks too much, as "
            "(a+)+ does. Write it without repeats inside of repeats"
        ) from error
    found: list[dict[str, str | None] | None] = parse_json(done.stdout, where, list)
    return found
