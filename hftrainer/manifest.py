"""A list of a folder's files with their hashes, written with a model and compared on demand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hftrainer.files import sha256, write_json
from hftrainer.hashes import file_hash
from hftrainer.readers import FileError, check_type, inside, json_field, read_json

MANIFEST = "manifest.json"
_DECIDES = (".safetensors", ".npy", ".pt", ".pth", ".bin", ".json", ".model", ".txt")


class ManifestError(FileError):
    """Files that are not those of their manifest; the message names them."""


def write_manifest(folder: str | os.PathLike[str], needed: Iterable[str] = ()) -> None:
    """Write manifest.json over every file below `folder`. ``FileNotFoundError`` if a `needed` one was deleted."""
    folder = Path(folder)
    for name in needed:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} was deleted while other files of its folder were written")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    entries = [
        {"path": p.relative_to(folder).as_posix(), "bytes": p.stat().st_size, "sha256": sha256(p)} for p in files
    ]
    write_json(folder / MANIFEST, {"format_version": 1, "files": entries})


def verify_manifest(folder: str | os.PathLike[str]) -> int:
    """Compare every file with manifest.json; how many there are. Raises `ManifestError` naming what differs."""
    folder = Path(folder)
    problems = []
    listed = entries(folder)
    for entry in listed:
        path = folder / entry["path"]
        if not path.is_file():
            problems.append(f"{entry['path']} is missing")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{entry['path']} has {path.stat().st_size} bytes, {entry['bytes']} expected")
        elif sha256(path) != entry["sha256"]:
            problems.append(f"{entry['path']} does not match its hash")
    if problems:
        raise ManifestError(f"{folder} does not match its manifest: {'; '.join(problems)}; copy or download it again")
    return len(listed)


def given_hash(value: object) -> str:
    """Identity of what a user gave for a file, a folder or a name: "sha256:..." of the bytes, else the name itself."""
    path = Path(value) if isinstance(value, (str, os.PathLike)) else None
    if path is not None and path.is_dir():
        return fingerprint(path)
    return f"sha256:{sha256(path)}" if path is not None and path.is_file() else str(value)


def fingerprint(folder: str | os.PathLike[str]) -> str:
    """A model folder's identity: "sha256:..." over the bytes of every weight, statistic, vocabulary and configuration.

    manifest.json is not asked, for it says what the files were. Hashes of files of 64 MB and more are remembered in the
    user's cache, for as long as the file's number, size and times of change stay what they were.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and _counts(p.relative_to(folder))):
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        digest.update(f"{name} {size} {file_hash(path)}".encode())
    return f"sha256:{digest.hexdigest()}"


def _counts(path: Path) -> bool:
    """Whether a file decides what the model does."""
    hidden = any(part.startswith(".") for part in path.parts)  # temporary names, and the hub's notes
    return path.suffix in _DECIDES and path.name != MANIFEST and not hidden


def entries(folder: Path) -> list[dict[str, Any]]:
    """What manifest.json says of each file: path, bytes, sha256. Raises `ManifestError` for one that cannot be used."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ManifestError(f"{folder} has no {MANIFEST} to compare with")
    listed: list[dict[str, Any]] = json_field(
        read_json(path, error=ManifestError), "files", list, path, error=ManifestError
    )
    for number, entry in enumerate(listed):
        where = f"{path}, file {number}"
        check_type(entry, dict, where, error=ManifestError)
        inside(folder, json_field(entry, "path", str, where, error=ManifestError), what=where, error=ManifestError)
        json_field(entry, "bytes", int, where, error=ManifestError)
        json_field(entry, "sha256", str, where, error=ManifestError)
    return listed
