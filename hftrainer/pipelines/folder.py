"""A folder of generated motions: its manifest, the names of its files, and what of it still stands."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrainer.files import sha256
from hftrainer.pipelines.prompts import seeded_rows
from hftrainer.readers import FileError, inside, read_json

MANIFEST = "manifest.json"
PAGE = "index.html"
_LONGEST = 48  # characters of a prompt in a file's name
_MOST_BYTES = 120  # in a file's name; file systems allow 255 for all of it


@dataclass
class Item:
    """One motion that is asked for and where its files are, without suffix."""

    prompt: str
    seed: int | None
    stem: str
    key: str


def slug(prompt: str) -> str:
    """A prompt as a part of a file's name: letters and digits of any script, symbols by their names."""
    named = (
        f" {unicodedata.name(letter, '').lower()} " if unicodedata.category(letter) in ("So", "Sk") else letter
        for letter in unicodedata.normalize("NFC", prompt)
    )
    text = re.sub(r"[\W_]+", "-", "".join(named).lower()).strip("-")[:_LONGEST].rstrip("-")
    while len(text.encode("utf-8", "ignore")) > _MOST_BYTES:
        text = text[:-1]
    return text.rstrip("-") or "motion"


def existing(folder: Path) -> dict[str, Any]:
    """The manifest of earlier runs into `folder`, without items that failed or whose files are not as written."""
    path = folder / MANIFEST
    if not path.is_file():
        return {"items": [], "runs": [], "videos": {}}
    manifest: dict[str, Any] = read_json(path)
    items = manifest.get("items")
    items = items if isinstance(items, list) else [None]
    runs = manifest.setdefault("runs", [])
    fits = isinstance(runs, list) and all(isinstance(run, dict) for run in runs) and all(map(_is_record, items))
    if not fits:
        raise FileError(f"{path} is not a manifest of ours; choose another output folder")
    for item in items:
        inside(folder, item["stem"], suffix=".npy", what=f"{path}: stem")
    videos = manifest.get("videos")
    well_formed = isinstance(videos, dict) and all(isinstance(about, dict) for about in videos.values())
    manifest["videos"] = videos if well_formed else {}  # others are made again
    manifest["items"] = [item for item in items if "error" not in item and _is_there(folder, item)]
    return manifest


def _is_record(item: Any) -> bool:
    kinds = {"key": str, "stem": str, "prompt": str}
    return (
        isinstance(item, dict)
        and all(isinstance(item.get(key), kind) for key, kind in kinds.items())
        and "/" not in item["stem"]
        and type(item.get("seed")) in (int, type(None))
        and ("error" in item or isinstance(item.get("files"), list))
        and all(isinstance(name, str) for name in item.get("files", []))
    )


def _is_there(folder: Path, item: dict[str, Any]) -> bool:
    """Whether every file of a record is there with the hash that it was written with."""
    names, hashes = item.get("files"), item.get("sha256")
    if not isinstance(names, list) or not names or not isinstance(hashes, dict):
        return False
    paths = [inside(folder, name, what=str(folder / MANIFEST)) for name in names]
    return all(path.is_file() and sha256(path) == hashes.get(name) for name, path in zip(names, paths, strict=True))


def wanted(
    prompts: Sequence[str],
    num_motions: int,
    seed: int,
    settings: dict[str, Any],
    before: Sequence[dict[str, Any]],
) -> list[Item]:
    """The items of a run, each with the stem it has already or the next free one.

    A prompt that the folder knows keeps its number; others get the numbers after the highest.
    """
    stems = {str(record["key"]): str(record["stem"]) for record in before}
    numbers: dict[str, int] = {}
    for record in before:
        head = str(record["stem"]).partition("_")[0]
        if head.isdigit():
            numbers.setdefault(str(record["prompt"]), int(head))
    after = max(numbers.values(), default=-1) + 1
    digits = max(3, len(str(after + len(prompts) - 1)))
    taken = set(stems.values())
    rows = iter(seeded_rows([prompt for prompt in prompts for _ in range(num_motions)], seed))
    items = []
    for prompt in prompts:
        if prompt not in numbers:
            numbers[prompt], after = after, after + 1
        for _ in range(num_motions):
            _, drawn = next(rows)
            key = key_of(prompt, drawn, settings)
            stem = stems.get(key) or _free(f"{numbers[prompt]:0{digits}d}_{slug(prompt)}_s{drawn}", taken)
            taken.add(stem)
            items.append(Item(prompt, drawn, stem, key))
    return items


def key_of(prompt: str, seed: int | None, settings: dict[str, Any]) -> str:
    """What identifies a motion: its prompt, seed and settings."""
    return hashlib.sha256(json.dumps([prompt, seed, settings], sort_keys=True).encode()).hexdigest()[:16]


def _free(stem: str, taken: set[str]) -> str:
    """`stem`, or with a number behind it if the folder has a motion of that name made with other settings."""
    number, name = 2, stem
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name
