"""The container of glTF 2.0: accessors over one binary buffer, and the .glb file that holds both."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.files import atomic_path
from hftrainer.readers import parse_json

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_COMPONENTS = {"float32": 5126, "uint8": 5121, "uint16": 5123, "uint32": 5125}
_NUMPY = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
ARRAY_BUFFER, INDEX_BUFFER = 34962, 34963


class GLTFError(ValueError):
    """A file that is not a usable glTF; the message names the file and what is wrong with it."""


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


def read_glb(path: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes]:
    """The JSON document and the binary chunk of a .glb; ``GLTFError`` for anything else."""
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        magic, version, length = struct.unpack_from("<III", content)
        if magic != _MAGIC or version != 2:
            raise GLTFError(f"{path}: not a binary glTF 2.0 file")
        if length > len(content):
            raise GLTFError(f"{path}: says it has {length} bytes but has {len(content)}: was its copy cut short?")
        size, kind = struct.unpack_from("<II", content, 12)
        document = parse_json(content[20 : 20 + size], f"{path}, its first part", error=GLTFError)
        binary = b""
        if 20 + size + 8 <= length:
            more, kind_of_binary = struct.unpack_from("<II", content, 20 + size)
            if kind_of_binary == _BIN:
                binary = content[28 + size : 28 + size + more]
        if kind != _JSON or not isinstance(document, dict):
            raise GLTFError(f"{path}: its first part is not a JSON object")
    except struct.error as error:
        raise GLTFError(f"{path}: not a binary glTF file ({error})") from error
    return document, binary


def accessor_values(document: dict[str, Any], binary: bytes, number: int) -> NDArray[Any]:
    """The values (N,) or (N, width) of an accessor; integers that are normalized become floats."""
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    width = next(width for width, name in _TYPES.items() if name == accessor["type"])
    dtype = np.dtype(_NUMPY[accessor["componentType"]])
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride = view.get("byteStride") or dtype.itemsize * width
    count = accessor["count"]
    raw = np.ndarray((count, width), dtype, binary, offset=start, strides=(stride, dtype.itemsize)).copy()
    values: NDArray[Any] = raw
    if accessor.get("normalized"):
        values = np.maximum(raw / np.iinfo(dtype).max, -1.0)
    return values[:, 0] if width == 1 else values
