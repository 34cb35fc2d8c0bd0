"""The readers of files that come from elsewhere: JSON, and names in files that become paths.

A file is a claim. What it says is compared with what it has, and with a budget, before anything is allocated; what does
not hold is one `FileError` that names the file, what came and what was expected. Arrays have the same in
`hftrainer.arrays`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from hftrainer.shown import sentence

MAX_JSON = 64 << 20  # bytes
MAX_DEPTH = 64
MAX_ITEMS = 10_000_000  # commas, which is what memory goes with
MAX_LINE = 1 << 20  # bytes of a line of JSONL
MAX_YAML = 1 << 20  # bytes; parsers take seconds for each million
MAX_YAML_ITEMS = 1_000_000
_MAX_INTEGER = 1 << 63
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
Kinds = type | tuple[type, ...]

_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "a boolean",
}


class FileError(ValueError):
    """A file that cannot be used; the message names the file, what it has and what was expected.

    What files call themselves and their parts is in messages, so that these are shown on one line, with `visible`, and
    no longer than can be read. A message of several lines is made of as many arguments.
    """

    def __str__(self) -> str:
        return "\n".join(sentence(str(line)) for line in self.args)


def read_json(
    path: str | os.PathLike[str],
    expected: Kinds = dict,
    *,
    max_bytes: int = MAX_JSON,
    error: type[ValueError] = FileError,
) -> Any:
    """The value in a JSON file, whose top is of the type `expected` (dict, list).

    Refused by an `error`: what is no file, is larger than `max_bytes`, is not UTF-8 or not JSON, nests deeper than 64,
    holds more than ten million items, a key twice in one object, NaN, an infinity or a number of more than 64 bits.
    A missing file is a `FileNotFoundError`.
    """
    return parse_json(read_bytes(path, max_bytes, error=error), path, expected, error=error)


def parse_json(
    data: bytes | str,
    source: str | os.PathLike[str],
    expected: Kinds = dict,
    *,
    error: type[ValueError] = FileError,
) -> Any:
    """`read_json` of text that is here already; `source` is what messages call it."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as reason:
        raise error(f"{_name(source)} is not UTF-8 text (byte {reason.start}); it should be JSON") from reason
    if text.count(",") > MAX_ITEMS:
        raise error(f"{_name(source)} holds more than {MAX_ITEMS} items; no supported file is that large")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_int=_integer,
            parse_constant=_constant,
        )
        if _HALF.search(text):  # else every character is whole, as it came from UTF-8
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as reason:
        raise error(f"{_name(source)} nests lists and objects deeper than {MAX_DEPTH}") from reason
    except UnicodeEncodeError as reason:
        raise error(f"{_name(source)} is not a JSON file: it holds half of a character (\\ud800)") from reason
    except ValueError as reason:
        raise error(f"{_name(source)} is not a JSON file: {str(reason) or type(reason).__name__}") from reason
    if _deeper_than(value, MAX_DEPTH, MAX_ITEMS * 3):
        raise error(f"{_name(source)} nests lists and objects deeper than {MAX_DEPTH}")
    check_type(value, expected, _name(source), error=error)
    return value


def read_jsonl(
    path: str | os.PathLike[str],
    expected: Kinds = dict,
    *,
    ignore_cut_end: bool = False,
    error: type[ValueError] = FileError,
) -> Iterator[tuple[int, Any]]:
    """Line number (from 1) and value of each line of a file of JSON lines that is not blank; checked as `read_json`.

    `ignore_cut_end` leaves out a last line without its newline, which is what an interrupted writer leaves.
    """
    path = Path(path)
    check_regular(path, error=error)
    with open(path, "rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise error(f"{_name(path)}, line {number} is longer than {MAX_LINE} bytes")
            if ignore_cut_end and not line.endswith(b"\n"):
                return
            if line.strip():
                yield number, parse_json(line, f"{path}, line {number}", expected, error=error)


def read_yaml(
    path: str | os.PathLike[str],
    expected: Kinds = dict,
    *,
    max_bytes: int = MAX_YAML,
    error: type[ValueError] = FileError,
) -> Any:
    """The value in a YAML file of plain data: no tags that make objects, no more than a million items after aliases are
    followed, nothing deeper than 64, no whole number of more than 61 bits. Raises `error`, and `FileNotFoundError`."""
    from hftrainer.plain_yaml import YAMLError, load

    text = read_text(path, max_bytes, error=error)
    try:
        value = load(text)
    except YAMLError as reason:
        raise error(f"{_name(path)} is not a YAML file: {yaml_reason(reason)}") from reason
    check_plain(value, _name(path), error=error)
    check_type(value, expected, _name(path), error=error)
    return value


def yaml_reason(reason: Exception) -> str:
    """What a YAML parser found, and where, on one line."""
    mark = getattr(reason, "problem_mark", None)
    problem = getattr(reason, "problem", None) or str(reason).split("\n")[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else str(problem)


def check_type(value: Any, expected: Kinds, what: str, *, error: type[ValueError] = FileError) -> None:
    """Raise `error` unless `value` is of one of the types; True and False are not numbers; an integer is."""
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if isinstance(value, bool):
        fits = bool in kinds
    else:
        fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
    if not fits:
        names = " or ".join(_NAMES.get(kind, kind.__name__) for kind in kinds)
        came = "null" if value is None else _NAMES.get(type(value), type(value).__name__)
        raise error(f"{what}: expected {names}, got {came}")


def json_field(
    value: Mapping[str, Any],
    key: str,
    expected: Kinds,
    source: str | os.PathLike[str],
    *,
    error: type[ValueError] = FileError,
) -> Any:
    """`value[key]`, which must be there and of the type `expected`."""
    if key not in value:
        raise error(f"{_name(source)} has no {key!r}; it holds {_some(value)}")
    check_type(value[key], expected, f"{_name(source)}, {key!r}", error=error)
    return value[key]


def json_fields(
    value: Any,
    source: str | os.PathLike[str],
    required: Mapping[str, Kinds] | None = None,
    optional: Mapping[str, Kinds] | None = None,
    *,
    error: type[ValueError] = FileError,
) -> None:
    """Raise `error` unless `value` is an object with the `required` fields, and its `optional` ones fit, too."""
    check_type(value, dict, _name(source), error=error)
    for key, expected in (required or {}).items():
        json_field(value, key, expected, source, error=error)
    for key, expected in (optional or {}).items():
        if key in value:
            check_type(value[key], expected, f"{_name(source)}, {key!r}", error=error)


def check_list(value: Any, expected: Kinds, what: str, *, error: type[ValueError] = FileError) -> list[Any]:
    """`value`, which must be a list of such items."""
    check_type(value, list, what, error=error)
    for number, item in enumerate(value):
        check_type(item, expected, f"{what}, item {number}", error=error)
    return list(value)


def read_bytes(path: str | os.PathLike[str], max_bytes: int, *, error: type[ValueError] = FileError) -> bytes:
    """The content of an ordinary file of at most `max_bytes`."""
    size = check_regular(path, error=error)
    if size > max_bytes:
        raise error(f"{_name(path)} holds {size} bytes; the limit is {max_bytes}")
    with open(path, "rb") as stream:
        data = stream.read(size + 1)  # as much as is asked for is allocated at once
    if len(data) > size:
        raise error(f"{_name(path)} grew while it was read")
    return data


def read_text(path: str | os.PathLike[str], max_bytes: int = MAX_JSON, *, error: type[ValueError] = FileError) -> str:
    """The UTF-8 text of an ordinary file of at most `max_bytes`, without a byte order mark."""
    try:
        return read_bytes(path, max_bytes, error=error).decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{_name(path)} is not UTF-8 text (byte {reason.start})") from reason


def check_regular(path: str | os.PathLike[str], *, error: type[ValueError] = FileError) -> int:
    """The size in bytes of an ordinary file. A device, pipe or folder, also behind a link, is an `error`: it may never
    end. A missing file is a `FileNotFoundError`."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, pipe or socket"
        raise error(f"{_name(path)} is {kind}; a file was expected")
    return found.st_size


def inside(
    root: str | os.PathLike[str],
    name: Any,
    *,
    suffix: str = "",
    what: str = "a name",
    error: type[ValueError] = FileError,
) -> Path:
    """The path `root/name` + `suffix`, for a `name` that came from a file and so must not lead out of `root`.

    It may have folders of its own ("a/b"). Refused by an `error`: an absolute path, "..", ".", an empty part, a
    backslash, a control character, and parts that no file system has room for.
    """
    if not isinstance(name, str):
        raise error(f"{what}: expected a file name, got {_NAMES.get(type(name), type(name).__name__)}")
    parts = name.split("/")
    bad = (
        PurePosixPath(name).is_absolute()
        or any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) + len(suffix) > 255 for part in parts)
        or any(letter == "\\" or unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
        or (_WINDOWS and _not_for_windows(parts))
    )
    if bad:
        shown = name if len(name) <= 80 else name[:80] + "..."
        raise error(f"{what}: {shown!r} is not a valid file name below {_name(root)}")
    return Path(root, *parts[:-1], parts[-1] + suffix)


_WINDOWS = os.name == "nt"
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def _not_for_windows(parts: list[str]) -> bool:
    """Whether Windows takes a part for a device, a drive or a stream, or drops its end."""
    return any(
        set(part) & set(':*?"<>|') or part[-1] in ". " or part.partition(".")[0].rstrip().lower() in _DEVICES
        for part in parts
    )


def check_plain(value: Any, what: str, *, error: type[ValueError] = FileError) -> None:
    """Raise `error` if data nest deeper than 64 or hold more than a million items, shared ones counted as often as
    they occur."""
    if _deeper_than(value, MAX_DEPTH, MAX_YAML_ITEMS):
        raise error(f"{what} nests deeper than {MAX_DEPTH} or holds more than {MAX_YAML_ITEMS} items")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is duplicated")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"the number {text[:40]} is not finite")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or not -_MAX_INTEGER <= (number := int(text)) < 2 * _MAX_INTEGER:
        raise ValueError(f"the number {text[:40]} has more than 64 bits")
    return number


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a valid JSON number")


def _deeper_than(value: Any, depth: int, items: int) -> bool:
    """Whether containers nest deeper than `depth` or hold more than `items`; level by level, so nothing recurses."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        items -= sum(map(len, level))
        if items < 0:
            return True
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)


def _name(path: str | os.PathLike[str]) -> str:
    return os.fspath(path)


def _some(value: Mapping[str, Any]) -> str:
    keys = [key[:40] for key in list(value)[:8]]
    return f"{keys}" if keys else "nothing"
