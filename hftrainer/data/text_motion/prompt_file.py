"""A file of prompts, one a line."""

from __future__ import annotations

import os
from pathlib import Path

from hftrainer.plain_text import read_lines
from hftrainer.readers import FileError


def read_prompt_file(path: str | os.PathLike[str]) -> list[str]:
    """Its prompts without surrounding space, blank lines left out.

    UTF-8 with or without a BOM, UTF-16 and Windows-1252. ``ValueError`` for a file that is missing, is no text or holds
    no prompt.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no prompt file {str(path)!r}")
    prompts = [line.strip() for line in read_lines(path) if line.strip()]
    if not prompts:
        raise FileError(f"{path} has no prompts; write one per line")
    return prompts
