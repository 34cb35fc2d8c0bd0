"""The container of glTF 2.0: accessors over one binary buffer, and the .glb file that holds both."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.files import atomic_path

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_COMPONENTS = {"float32": 5126, "uint8": 5121, "uint16": 5123, "uint32": 5125}
ARRAY_BUFFER, INDEX_BUFFER = 34962, 34963


class Buffer:
    """Collects arrays as buffer views and accessors."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.data = bytearray()

    def add(self, values: NDArray[Any], *, target: int | None = None, bounds: bool = False) -> int:
        """The number of the accessor over `values` (N,) or (N, width)."""
        values = np.ascontiguousarray(values)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        if target is not None:
            view["target"] = target
        self.data += values.tobytes()
        self.data += b"\0" * (-len(self.data) % 4)
        self.views.append(view)
        width = 1 if values.ndim == 1 else values.shape[1]
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1,
            "componentType": _COMPONENTS[str(values.dtype)],
            "count": len(values),
            "type": _TYPES[width],
        }
        if bounds:
            table = values.reshape(len(values), width)
            accessor["min"], accessor["max"] = table.min(axis=0).tolist(), table.max(axis=0).tolist()
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def write_glb(path: str | os.PathLike[str], document: dict[str, Any], buffer: Buffer) -> None:
    """Write `document`, completed by the buffer's parts, as one binary file, atomically."""
    document = {
        **document,
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 4)
    binary = bytes(buffer.data)
    length = 12 + 8 + len(text) + 8 + len(binary)
    with atomic_path(path) as temporary:
        temporary.write_bytes(
            struct.pack("<III", _MAGIC, 2, length)
            + struct.pack("<II", len(text), _JSON) + text
            + struct.pack("<II", len(binary), _BIN) + binary
        )  # fmt: skip
