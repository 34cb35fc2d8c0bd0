"""Captions from a table: sentences by label, and the label of each clip, as JSON lines.

The first line says what the table is (`about`, `sources`, `licence`; `use: evaluation` where nothing may be trained on
it). A line with ``label`` has that label's `captions` and what else is known of it (`content`, `style`, ...); a line
with ``clip`` has the clip's `label` or `captions` of its own, and perhaps `split`, `recorded_fps` and `same_as`, the
names under which the same motion was published again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.prepare.splits import is_original
from hftrainer.readers import FileError, check_type, inside, read_jsonl

SHIPPED = Path(__file__).parent / "caption_tables"
_NO_LABELS = ("clip", "captions", "split", "recorded_fps", "same_as")
_CAPTION = {"text": str, "start": float, "end": float}
_KINDS = {"clip": str, "label": str, "captions": list, "split": str, "recorded_fps": float, "same_as": list,
          "content": str, "style": str}  # fmt: skip


@dataclass
class CaptionTable:
    """`labels` by name and `clips` by name, each the fields of its line; `about` is the first line."""

    name: str
    about: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)

    def captions(self, clip: str) -> list[Caption]:
        """Sentences for a clip; none if the table says nothing of it."""
        line = self.clips.get(clip, {})
        found = line.get("captions") or self.labels.get(line.get("label", ""), {}).get("captions", [])
        return [Caption(**c) if isinstance(c, Mapping) else Caption(c) for c in found]

    def label(self, clip: str) -> dict[str, Any]:
        """What labels.json gets for a clip."""
        line = self.clips.get(clip, {})
        both = {**self.labels.get(line.get("label", ""), {}), **line}
        return {"content": "", "style": "", **{k: v for k, v in both.items() if k not in _NO_LABELS}}

    def recorded_fps(self) -> dict[str, float]:
        """Rates of the clips whose files are known to say another one."""
        return {name: float(line["recorded_fps"]) for name, line in self.clips.items() if "recorded_fps" in line}


def shipped_tables() -> list[str]:
    """Names that `load_table` knows."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def load_table(name_or_path: str | os.PathLike[str]) -> CaptionTable:
    """A shipped table by name, or one's own by the path of its .jsonl file."""
    path = Path(name_or_path)
    if path.suffix != ".jsonl":
        path = SHIPPED / f"{name_or_path}.jsonl"
    if not path.is_file():
        known = ", ".join(shipped_tables())
        raise ValueError(f"no caption table {str(name_or_path)!r}; included: {known}; or give a .jsonl file's path")
    table = CaptionTable(path.stem)
    for number, line in read_jsonl(path):
        _check(line, f"{path}, line {number}")
        for key, entries in (("clip", table.clips), ("label", table.labels)):
            if key in line:
                if line[key] in entries:
                    raise FileError(f"{path}, line {number}: {key} {line[key]!r} is duplicated")
                entries[line[key]] = line
                break
        else:
            table.about.update(line)
    unknown = sorted({c["label"] for c in table.clips.values() if "label" in c} - table.labels.keys())
    if unknown:
        raise FileError(f"{path}: no sentences for {len(unknown)} labels of clips, e.g. {unknown[0]!r}")
    return table


def write_table_captions(dataset: DatasetFolder, tables: list[CaptionTable]) -> tuple[int, list[str]]:
    """Write texts/ and labels.json from the first table that has sentences for each clip; clips written, and left."""
    labels, left = dataset.labels(), []
    written = 0
    for name in dataset.names():
        table = next((t for t in tables if t.captions(name)), None)
        if table is None:
            left.append(name)
            continue
        dataset.write_captions(name, table.captions(name))
        labels[name] = {**labels.get(name, {}), **table.label(name)}
        written += 1
    dataset.write_labels(labels)
    return written, left


def split_from_tables(names: list[str], tables: list[CaptionTable]) -> dict[str, list[str]]:
    """The splits that the tables name, of the clips that are there, disjoint; with "motions" and "all".

    A clip that no table gives a split is "unlabelled". Of clips that are the same motion, one is in a split. "motions"
    is train and unlabelled, for what needs no captions; "all" is everything that is in a split.
    """
    lines = {name: line for table in reversed(tables) for name, line in table.clips.items()}
    names = [name for name in names if is_original(name)]
    there, parts = set(names), dict[str, list[str]]()
    taken: set[str] = set()
    for name in sorted(names, key=lambda n: (n not in lines, n)):  # listed ones first: the others may repeat them
        if name in taken:
            continue
        parts.setdefault(lines.get(name, {}).get("split", "unlabelled"), []).append(name)
        taken |= {name, *lines.get(name, {}).get("same_as", [])} & there
    parts = {part: sorted(members) for part, members in sorted(parts.items())}
    parts["motions"] = sorted(parts.get("train", []) + parts.get("unlabelled", []))
    return {**parts, "all": sorted(n for part, members in parts.items() if part != "motions" for n in members)}


def _check(line: dict[str, Any], where: str) -> None:
    """Types of what is known, split names that stay in their folder, captions of one line each."""
    for key, kind in _KINDS.items():
        if key in line:
            check_type(line[key], kind, f"{where}, {key}")
    if "split" in line:
        inside("split", line["split"], suffix=".txt", what=f"{where}, split")
    if not 0 <= line.get("recorded_fps", 1) < 10_000:
        raise FileError(f"{where}: recorded_fps is {line['recorded_fps']}, expected frames a second")
    for name in line.get("same_as", []):
        check_type(name, str, f"{where}, same_as")
    for caption in line.get("captions", []):
        check_type(caption, (str, dict), f"{where}, captions")
        parts = {"text": caption} if isinstance(caption, str) else caption
        if "text" not in parts or not parts.keys() <= _CAPTION.keys():
            raise FileError(f"{where}: a caption is a sentence, or has text, start and end; got {parts!r:.80}")
        for key, value in parts.items():
            check_type(value, _CAPTION[key], f"{where}, a caption's {key}")
        if not parts["text"].strip() or len(parts["text"].splitlines()) > 1:
            raise FileError(f"{where}: a caption must be one line, got {parts['text']!r:.80}")
