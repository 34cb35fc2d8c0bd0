"""A file of prompts, one a line."""

from __future__ import annotations

import os
from pathlib import Path


def read_prompt_file(path: str | os.PathLike[str]) -> list[str]:
    """Its prompts without surrounding space, blank lines left out.

    ``ValueError`` for a file that is missing, is not UTF-8 text or holds no prompt.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no prompt file {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt; write one a line")
    return prompts
