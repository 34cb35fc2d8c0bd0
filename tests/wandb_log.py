"""Reads what an offline W&B run wrote. The file is a log in LevelDB's format, of protobuf records.

wandb 0.31 has no public reader. A file starts with 7 bytes (":W&B", a magic number, a version), then come blocks of
32 KiB. A piece has 7 bytes of header: crc32 (4, little endian, masked), length (2), type (1): 1 a whole record, 2 its
first, 3 a middle, 4 its last piece; what is left of a block below 7 bytes is padding.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


def records(path: Path) -> Iterator[Any]:
    """Every whole record; a piece cut off at the end of the file (a killed run) ends the reading."""
    from wandb.proto import wandb_internal_pb2

    for content in pieces(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        yield record


def pieces(data: bytes) -> Iterator[bytes]:
    """Records as bytes."""
    if not data:
        return
    assert data[:4] == b":W&B", data[:7]
    at, parts = HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        if kind == 0:  # preallocated, not written
            return
        content = data[at + HEADER : at + HEADER + length]
        if len(content) < length:
            return
        parts += content
        at += HEADER + length
        if kind in (1, 4):
            yield parts
            parts = b""


def read_run(folder: Path) -> dict[str, Any]:
    """What a run folder (offline-run-...) holds: run, config, history, files, artifacts, system metrics, exit code."""
    (path,) = folder.glob("*.wandb")
    found: dict[str, Any] = {"config": {}, "history": [], "files": [], "artifacts": [], "system": [], "exit": None}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name}
            found["config"] |= nested(record.run.config.update)
        elif kind == "config":
            found["config"] |= nested(record.config.update)
        elif kind == "history":
            found["history"].append(nested(record.history.item))
        elif kind == "files":
            found["files"] += [item.path for item in record.files.files]
        elif kind == "artifact":
            found["artifacts"].append(record.artifact)
        elif kind == "stats":
            found["system"].append({item.key: json.loads(item.value_json) for item in record.stats.item})
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def finished_run(folder: Path, seconds: float = 60) -> dict[str, Any]:
    """`read_run`, once its last record is on disk: W&B's own process writes, a moment after a run was closed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if list(folder.glob("*.wandb")) and (run := read_run(folder))["exit"] is not None:
            return run
        time.sleep(0.1)
    raise AssertionError(f"{folder} was not closed")


def nested(items: Any) -> dict[str, Any]:
    """Keys with their values; what has several names lies in dictionaries."""
    found: dict[str, Any] = {}
    for item in items:
        *path, last = item.nested_key or [item.key]
        place = found
        for name in path:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)
    return found
