"""What is generated for an evaluation: names, captions and exact lengths, from an annotation file or an official split.

Names are the clips' own ("000021", "M000021"), so that predictions are found by them. Nothing is replaced silently: an
entry whose caption file is missing is an error, not an entry with another caption, because the first raw captions of
HumanML3D are known to be wrong for several clips, which is why corrected ones exist.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hftrainer.data.folder import Caption, DatasetFolder, parse_caption
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.plain_text import read_lines
from hftrainer.readers import FileError, inside, read_json

_SHOWN = 5
_MOST_FRAMES = 1_000_000  # more than nine hours


class Pair(NamedTuple):
    """A clip's name, the caption that is asked for, and how many frames it must have."""

    name: str
    caption: str
    frames: int


class UnusablePairs(FileError):
    """Entries without a caption or a length; the message names the first."""


def captions_hash(pairs: Sequence[Pair]) -> str:
    """SHA-256 over names, captions and lengths, in their order: what a generation was asked for."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(list(pair)).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def annotation_pairs(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str] = ".", skip_unusable: bool = False
) -> list[Pair]:
    """The entries of an annotation file, in its order.

    The file holds ``{"meta": ..., "data_list": {name: entry}}``, a list of entries, or a bare ``{name: entry}``. An
    entry's name is its ``motion_id``, else its key (``id`` in a list). Its caption is the first of its
    ``hierarchical_caption_path`` (a JSON file, relative to `root`), or where it names none its own ``caption`` or
    ``text``. Its length is ``num_frames``, or ``duration`` times ``fps`` (motion272's, if it has none).
    `skip_unusable` leaves out entries that have no caption or no length, which are an error otherwise.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"there is no annotation file {str(path)!r}. It comes with the corrected captions, one per clip; give "
            "its path (ANNO=..., --anno). The raw captions of a dataset are different, and several of them "
            "do not describe their clip: they are used only on request (--pair-source official_split)"
        )
    pairs, unusable = [], []
    for name, entry in _entries(_json(path), path):
        try:
            caption, frames = _caption_of(entry, Path(root), name), _frames_of(entry)
        except UnusablePairs as error:
            raise UnusablePairs(f"{path}: {error}") from error
        if caption is None or frames < 1:
            unusable.append(f"{name} ({'no caption' if caption is None else f'a length of {frames} frames'})")
        else:
            pairs.append(Pair(name, caption, frames))
    return _checked(pairs, unusable, str(path), skip_unusable)


def official_pairs(
    root: str | os.PathLike[str],
    split: str = "test",
    *,
    texts: str | os.PathLike[str] | None = None,
    skip_unusable: bool = False,
) -> list[Pair]:
    """The clips of a split of a data set folder, in its order, with the lengths of their motion files.

    Captions are the first of the full clip in the folder's own ``texts/``; or the only one in another folder `texts`,
    of corrected captions, where more than one is an error.
    """
    folder = DatasetFolder(root)
    pairs, unusable = [], []
    for name in folder.names(split):
        if texts is None:
            full = [caption for caption in folder.captions(name) if caption.start == 0 and caption.end == 0]
        else:
            full = _only_caption(Path(texts) / f"{name}.txt")
        if not full or not folder.motion_path(name).is_file():
            unusable.append(f"{name} ({'no motion file' if full else 'no caption of the full clip'})")
        else:
            pairs.append(Pair(name, full[0].text, folder.frames(name)))
    return _checked(pairs, unusable, f"split {split!r} of {folder.root}", skip_unusable)


def _checked(pairs: list[Pair], unusable: list[str], where: str, skip: bool) -> list[Pair]:
    if unusable and not skip:
        more = " ..." if len(unusable) > _SHOWN else ""
        raise UnusablePairs(
            f"{where}: {len(unusable)} of {len(pairs) + len(unusable)} entries cannot be generated: "
            f"{', '.join(unusable[:_SHOWN])}{more}. Fix them, or skip them with --skip-unusable"
        )
    if not pairs:
        raise UnusablePairs(f"{where} has no usable entries")
    names = [pair.name for pair in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UnusablePairs(f"{where}: {twice!r} occurs more than once; each name is one file")
    check_names(names, where)
    return pairs


def check_names(names: Sequence[str], where: str) -> None:
    """Raise `UnusablePairs` for a clip's name that would lead out of the folder that its motion is written to.

    Whatever makes files named after clips goes through here: split files, annotation files, keys of protocols.
    """
    for name in names:
        inside("the output folder", name, suffix=".npy", what=where, error=UnusablePairs)


def _only_caption(path: Path) -> list[Caption]:
    if not path.is_file():
        return []
    lines = [line for line in read_lines(path) if line.strip()]
    if len(lines) > 1:
        raise UnusablePairs(f"{path} has {len(lines)} captions; a folder of corrected captions has one per clip")
    return [parse_caption(line) for line in lines]


# --- annotation files -------------------------------------------------------------------------------------------------


def _json(path: Path) -> Any:
    try:
        return read_json(path, (dict, list), max_bytes=1 << 30, error=UnusablePairs)
    except OSError as error:
        raise UnusablePairs(f"{path} cannot be read: {error.strerror}") from error


def _entries(content: Any, path: Path) -> list[tuple[str, dict[str, Any]]]:
    listed = content.get("data_list", content) if isinstance(content, dict) else content
    if isinstance(listed, dict):
        found = [(str(key), entry) for key, entry in listed.items()]
    elif isinstance(listed, list):
        found = [
            (str(entry.get("id", number)) if isinstance(entry, dict) else str(number), entry)
            for number, entry in enumerate(listed)
        ]
    else:
        raise UnusablePairs(f"{path}: expected an object or a list of entries, got {type(listed).__name__}")
    for name, entry in found:
        if not isinstance(entry, dict):
            raise UnusablePairs(f"{path}: entry {name!r} is {type(entry).__name__}, not an object")
    return [(str(entry.get("motion_id", name)), entry) for name, entry in found]


def _frames_of(entry: dict[str, Any]) -> int:
    if entry.get("num_frames") is not None:
        frames = _number(entry, "num_frames")
    else:
        frames = _number(entry, "duration") * (_number(entry, "fps") or get_representation(DEFAULT).fps)
    if not 0 <= frames <= _MOST_FRAMES:
        raise UnusablePairs(f"an entry has {frames:g} frames; expected 0 to {_MOST_FRAMES}")
    return round(frames)


def _number(entry: dict[str, Any], key: str) -> float:
    value = entry.get(key)
    try:
        return float(value or 0)
    except (TypeError, ValueError) as error:
        raise UnusablePairs(f"an entry has {str(value)[:40]!r} as its {key}; a number was expected") from error


def _caption_of(entry: dict[str, Any], root: Path, name: str) -> str | None:
    """The entry's caption; None if it has none. A caption file that is named but cannot be read is an error."""
    place = entry.get("hierarchical_caption_path")
    if not place:
        return _text(entry.get("caption")) or _text(entry.get("text"))
    path = inside(
        root, str(place).removeprefix("./"), what=f"entry {name!r}, hierarchical_caption_path", error=UnusablePairs
    )
    if not path.is_file():
        raise UnusablePairs(
            f"entry {name!r} has its caption in {str(path)!r}, which does not exist; give "
            "the folder that it is relative "
            "to (--anno-data-dir). No other caption is used instead"
        )
    return first_caption(_json(path))


def first_caption(content: Any) -> str | None:
    """The first caption of a caption file of any of the three known forms; None if there is none.

    ``{"macro": [...], "meso": [...], "micro": [...]}``; ``{"result": [{"short_caption_rewritten": [...]}, ...]}``, with
    ``short_caption``, ``caption`` or ``text`` where nothing was rewritten; or the flat keys themselves.
    """
    if not isinstance(content, dict):
        return None
    found = [text for level in ("macro", "meso", "micro") for text in _texts(content.get(level))]
    rows = content.get("result")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            rewritten = _texts(row.get("short_caption_rewritten")) + _texts(row.get("short caption_rewritten"))
            found += rewritten or [
                text for key in ("short_caption", "short caption", "caption", "text") for text in _texts(row.get(key))
            ]
    found += [text for key in ("caption", "text", "short_caption") for text in _texts(content.get(key))]
    return found[0] if found else None


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in map(_text, values) if text]


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None
