"""Prompts: checks, seeds, and how messages show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hftrainer.plain_text import is_text
from hftrainer.requests import check_seed


class PromptWarning(UserWarning):
    """A prompt that a model does not know, as far as it can tell."""


class PromptTooLong(ValueError):
    """A prompt of more tokens than the model is shown; the message gives both numbers."""


def seeded_rows(captions: Sequence[str], seed: int | None) -> list[tuple[str, int | None]]:
    """Each caption with its seed: `seed` the first time that it occurs, one more each time after.

    Raises ``TypeError`` or ``ValueError`` for what is no seed.
    """
    check_seed(seed)
    seen: dict[str, int] = {}
    rows: list[tuple[str, int | None]] = []
    for caption in captions:
        rows.append((caption, None if seed is None else seed + seen.get(caption, 0)))
        seen[caption] = seen.get(caption, 0) + 1
    check_seed(max((s for _, s in rows if s is not None), default=None))
    return rows


def check_captions(captions: Sequence[str]) -> list[str]:
    """The captions as a list; no captions, and one that is empty or no text, with its place, are errors."""
    if isinstance(captions, (str, bytes)) or not isinstance(captions, Iterable):
        raise TypeError(f"captions must be a list of strings, got {type(captions).__name__} {captions!r}")
    captions = list(captions)
    if not captions:
        raise ValueError("the list of prompts is empty; give at least one sentence")
    for i, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise TypeError(f"prompt {i + 1} of {len(captions)} must be a string, got {caption!r}")
        if not caption.strip():
            raise ValueError(f"prompt {i + 1} of {len(captions)} is empty; describe what the person does")
        if not is_text(caption):
            raise ValueError(
                f"prompt {i + 1} of {len(captions)} is not text in the encoding of this system: {caption!a}"
            )
    return captions


def shorten_text(text: str, width: int = 60) -> str:
    """The start of a text, for messages."""
    return text if len(text) <= width else text[: width - 3] + "..."
