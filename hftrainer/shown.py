"""Text from files as it is shown: it cannot steer a terminal, fill a page, or be HTML."""

from __future__ import annotations

import html
import unicodedata

MAX_MESSAGE = 2000  # letters
_JOINERS = "\u200c\u200d"  # which scripts and emoji need


def visible(text: str) -> str:
    """`text` with control and direction characters spelt out (\\x1b), so that a name cannot steer a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        or letter in _JOINERS else letter.encode("unicode_escape").decode() for letter in text
    )  # fmt: skip


def sentence(text: str) -> str:
    """A message that holds names from files: one line of at most some 2,000 letters, of which the middle is left out.
    A name of a million letters, or one with line ends, would hide what the message says, or say something else."""
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"
    return visible(text).replace("\n", "\\n")


def as_markdown(text: str) -> str:
    """`text` from a file as Markdown that shows it as it is: no HTML, no link, no table cell or line of its own."""
    words = html.escape(" ".join(visible(text).split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*[]|!" else letter for letter in words)
