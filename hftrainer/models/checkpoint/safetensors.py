"""safetensors files: reading by place, and writing tensor by tensor so that no more than one is in memory."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hftrainer.files import atomic_path
from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.tensors import MAX_DIMENSIONS, MAX_SIZE, TensorRef, contiguous_ref
from hftrainer.readers import parse_json

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 32 << 20  # bytes; a hundred for each of 300,000 tensors
_SIZE = struct.Struct("<Q")
ALIGNMENT = 64  # bytes; where torch's allocator for CPUs puts tensors


def read_safetensors(path: Path) -> dict[str, TensorRef]:
    """Tensors by name. The complete header is checked: types, sizes, and that the data are all there and do not
    overlap."""
    size = path.stat().st_size
    header, start = _read_header(path, size)
    refs: dict[str, TensorRef] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, (begin, end) = _entry(path, name, entry)
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(f"{path}: {name} of shape {shape} and type {dtype} has {end - begin} bytes")
        if start + end > size:
            raise CheckpointError(
                f"{path} is not a complete safetensors file: it holds {size} bytes, {name} ends at {start + end}: "
                "was its download or copy cut short?"
            )
        refs[name] = contiguous_ref(path, start + begin, dtype, shape)
        if begin != end:
            spans.append((begin, end, name))
    if not refs:
        raise CheckpointError(f"{path} holds no tensors")
    spans.sort()
    last, name = 0, "the header"
    for begin, end, other in spans:
        if begin != last:
            what = "overlap" if begin < last else f"have {begin - last} bytes between them that belong to nothing"
            raise CheckpointError(f"{path}: {name} and {other} {what}")
        last, name = end, other
    if start + last != size:
        raise CheckpointError(f"{path}: {size - start - last} bytes behind its last tensor belong to nothing")
    return refs


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words beside the tensors of a file."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {str(path)!r}")
    found = _read_header(path, path.stat().st_size)[0].get("__metadata__")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    load: Callable[[str], Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file atomically. `tensors` says each one's type and shape; `load` brings them, one after the other.

    Tensors start at multiples of 64 bytes of the file, as torch's own do in memory, so that a mapped tensor takes the
    same kernels as one that was never saved. The format allows no gaps: tensors whose size is no multiple of 64 come
    last, and only those behind the first of them can start elsewhere.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    order = sorted(tensors.items(), key=lambda item: -_alignment(*item[1]))
    at = 0
    for name, (dtype, shape) in order:
        nbytes = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + _SIZE.size) % ALIGNMENT)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(_SIZE.pack(len(text)) + text)
        for name, (dtype, shape) in order:
            # nothing here holds a tensor while the next one is loaded: it would keep its source mapped, and its pages
            # would stay resident until the end
            _append(stream, name, load(name), dtype, shape)


def _alignment(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """The largest power of two, up to `ALIGNMENT`, that divides a tensor's size."""
    return math.gcd(math.prod(shape) * dtype.itemsize, ALIGNMENT)


def _append(stream: Any, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
        raise CheckpointError(f"{name}: expected {dtype} of shape {shape}, got {tensor.dtype} of {tuple(tensor.shape)}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    stream.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")


def shards(sizes: Iterable[tuple[str, int]], limit: int) -> list[list[str]]:
    """Names in groups of at most `limit` bytes, in order; a larger tensor is a group of its own."""
    groups: list[list[str]] = []
    room = 0
    for name, nbytes in sizes:
        if not groups or nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= nbytes
    return groups


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with open(path, "rb") as stream:
        prefix = stream.read(_SIZE.size)
        length = _SIZE.unpack(prefix)[0] if len(prefix) == _SIZE.size else -1
        if not 2 <= length <= min(_MAX_HEADER, size - _SIZE.size):
            raise CheckpointError(
                f"{path} is not a complete safetensors file: it holds {size} bytes and no complete header"
            )
        text = stream.read(length)
    header: dict[str, Any] = parse_json(text, f"{path}: its header", error=CheckpointError)
    return header, _SIZE.size + length


def _entry(path: Path, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], tuple[int, int]]:
    try:
        dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the description of {name} is damaged ({error!r})"[:400]) from error
    whole = all(type(n) is int and 0 <= n < MAX_SIZE for n in (*shape[:MAX_DIMENSIONS], begin, end))
    if len(shape) > MAX_DIMENSIONS or not whole or begin > end:
        raise CheckpointError(f"{path}: {name} has shape {shape[:8]} and lies at {begin}..{end}"[:400])
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= MAX_SIZE:
        raise CheckpointError(f"{path}: no tensor of shape {shape} can be had, as {name} says to be")
    return dtype, shape, (begin, end)
