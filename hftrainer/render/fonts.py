"""A font that has the letters of a text, among those that are installed; pictures without one leave the text out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from hftrainer.extras import need

_FOLDERS = {
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (os.path.join(os.environ.get("WINDIR", "C:\\Windows"), "Fonts"),),
}
# Looked at first: broad fonts, then those of scripts; any of a family's regular faces will do.
_FAMILIES = ("NotoSans-Regular", "DejaVuSans", "Arial Unicode", "NotoSansCJK-Regular", "NotoSans", "Hiragino", "msyh",
             "malgun", "YuGoth", "Segoe UI", "segoeui", "Arial")  # fmt: skip
_MISSING = "\uffff"  # no font has it: what is drawn for it is the box


def font_for(text: str, size: int) -> Any | None:
    """A PIL font of `size` pixels with every letter of `text`, or None."""
    fonts = need("PIL.ImageFont", "drawing text")
    basic = fonts.load_default(size=size)
    if _has(basic, text):
        return basic
    for path in _installed():
        try:
            font = fonts.truetype(path, size)
        except OSError:
            continue
        if _has(font, text):
            return font
    return None


def _has(font: Any, text: str) -> bool:
    box = _drawn(font, _MISSING)
    return all(letter.isspace() or _drawn(font, letter) != box for letter in set(text))


def _drawn(font: Any, letter: str) -> tuple[Any, bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    platform = "linux" if sys.platform not in _FOLDERS else sys.platform
    found = [path for folder in _FOLDERS[platform] for path in _fonts_in(Path(os.path.expanduser(folder)))]

    def rank(path: Path) -> tuple[int, str]:
        place = next((i for i, family in enumerate(_FAMILIES) if path.stem.startswith(family)), len(_FAMILIES))
        plain = not any(word in path.stem for word in ("Bold", "Italic", "Light", "Thin", "Black", "Mono", "Condensed"))
        return place + (0 if plain else len(_FAMILIES) + 1), path.name

    return tuple(str(path) for path in sorted(found, key=rank)[:200])


def _fonts_in(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if name.lower().endswith((".ttf", ".otf", ".ttc")))
