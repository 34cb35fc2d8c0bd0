"""Text files as people's programs write them: UTF-8 with or without a BOM, UTF-16, Windows-1252, any line ends."""

from __future__ import annotations

import codecs
import os

from hftrainer.readers import FileError, read_bytes

MAX_TEXT = 1 << 30  # bytes


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, line ends as ``\\n``. Bytes that are no text in any of the encodings are an error."""
    return decode(read_bytes(path, MAX_TEXT), path)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a file, without their ends; only line ends divide, not the other separators of Unicode."""
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: half of a character, as JSON may hold and Python has for bytes that it cannot decode,
    it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(data: bytes, path: str | os.PathLike[str]) -> str:
    """Bytes of the file `path` as text; see the module's docstring."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        # every UTF-8 text is also some Windows-1252 text, hardly any the other way round
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            continue
        if "\0" not in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
        line = text[: text.index("\0")].count("\n") + 1
    raise FileError(f"{path}: line {line} is not text; expected UTF-8 (or UTF-16 or Windows-1252)")
