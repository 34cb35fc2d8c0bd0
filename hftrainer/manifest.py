"""A list of a folder's files with their hashes, written with a model and compared on demand."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from hftrainer.files import sha256, write_json
from hftrainer.readers import check_type, inside, json_field, read_json

MANIFEST = "manifest.json"
_HASH_WHOLE_BELOW = 2 << 30  # bytes; larger models without a manifest are identified by sizes and file headers


class ManifestError(ValueError):
    """Files that are not those of their manifest; the message names them."""


def write_manifest(folder: str | os.PathLike[str]) -> None:
    """Write manifest.json over every file below `folder`."""
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    entries = [
        {"path": p.relative_to(folder).as_posix(), "bytes": p.stat().st_size, "sha256": sha256(p)} for p in files
    ]
    write_json(folder / MANIFEST, {"format_version": 1, "files": entries})


def verify_manifest(folder: str | os.PathLike[str]) -> int:
    """Compare every file with manifest.json; how many there are. Raises `ManifestError` naming what differs."""
    folder = Path(folder)
    problems = []
    entries = _entries(folder)
    for entry in entries:
        path = folder / entry["path"]
        if not path.is_file():
            problems.append(f"{entry['path']} is missing")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{entry['path']} has {path.stat().st_size} bytes, {entry['bytes']} expected")
        elif sha256(path) != entry["sha256"]:
            problems.append(f"{entry['path']} does not have its hash")
    if problems:
        raise ManifestError(f"{folder} is not what its manifest says: {'; '.join(problems)}; copy or download it again")
    return len(entries)


def fingerprint(folder: str | os.PathLike[str]) -> str:
    """A model folder's identity.

    "sha256:..." over every weight, statistic and configuration, from the manifest where there is one (what that says is
    compared by `verify_manifest`, not here). "sha256-headers:..." for folders of several gigabytes without one:
    names, sizes and the first megabyte of each file.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    if (folder / MANIFEST).is_file():
        for entry in _entries(folder):
            if _counts(Path(entry["path"])):
                digest.update(f"{entry['path']} {entry['bytes']} {entry['sha256']}".encode())
        return f"sha256:{digest.hexdigest()}"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and _counts(p.relative_to(folder)))
    whole = sum(p.stat().st_size for p in files) < _HASH_WHOLE_BELOW
    for path in files:
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        if whole:
            digest.update(f"{name} {size} {sha256(path)}".encode())
        else:
            with open(path, "rb") as stream:
                digest.update(f"{name} {size} ".encode() + stream.read(1 << 20))
    return f"sha256{'' if whole else '-headers'}:{digest.hexdigest()}"


def _counts(path: Path) -> bool:
    """Whether a file decides what the model does."""
    return path.suffix in (".safetensors", ".npy", ".pt", ".json", ".model") and path.name != MANIFEST


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ManifestError(f"{folder} has no {MANIFEST} to compare with")
    entries: list[dict[str, Any]] = json_field(
        read_json(path, error=ManifestError), "files", list, path, error=ManifestError
    )
    for number, entry in enumerate(entries):
        where = f"{path}, file {number}"
        check_type(entry, dict, where, error=ManifestError)
        inside(folder, json_field(entry, "path", str, where, error=ManifestError), what=where, error=ManifestError)
        json_field(entry, "bytes", int, where, error=ManifestError)
        json_field(entry, "sha256", str, where, error=ManifestError)
    return entries
