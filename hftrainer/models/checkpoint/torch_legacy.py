"""torch's older files (torch.save before 1.6): pickles one after the other, then every storage's bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.pickle_keys import short
from hftrainer.models.checkpoint.safe_pickle import Unpickled, load_pickle, storage_dtype
from hftrainer.models.checkpoint.tensors import MAX_SIZE, StorageRef, TensorRef

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT = struct.Struct("<q")


def read_torch_legacy(path: Path) -> Unpickled:
    """The structure of a legacy torch file, its tensors as `TensorRef`.

    The order of a file is: magic number, protocol, the writer's sizes, the structure, the keys of storages, and for
    each key its number of items and its bytes.
    """
    pending: dict[str, StorageRef] = {}  # places are known only after the pickles: a negative start is a number

    def storage(pid: Any) -> StorageRef:
        if not (isinstance(pid, tuple) and len(pid) == 6 and pid[0] == "storage" and isinstance(pid[2], str)):
            raise CheckpointError(f"{path}: a storage is described by {short(pid)}")
        _, kind, key, _, numel, view = pid
        if view is not None or type(numel) is not int or not 0 <= numel < MAX_SIZE:
            raise CheckpointError(f"{path}: the storage {key!r} is a view or has no size, which is not read")
        if key not in pending:
            pending[key] = StorageRef(path, -1 - len(pending), storage_dtype(kind), numel)
        return pending[key]

    with open(path, "rb") as stream:
        magic = load_pickle(stream, path, storage).value
        if type(magic) is not int or magic != _MAGIC:
            raise CheckpointError(f"{path} is not a torch weight file: it starts with a pickle of {short(magic)}")
        protocol = load_pickle(stream, path, storage).value
        sizes = load_pickle(stream, path, storage).value
        if protocol != _PROTOCOL or not isinstance(sizes, dict) or sizes.get("little_endian") is not True:
            raise CheckpointError(f"{path} was written by an unknown version of torch or a big-endian machine")
        found = load_pickle(stream, path, storage)
        keys = load_pickle(stream, path, storage).value
        places = _places(stream, path, keys, pending)
    return Unpickled(_resolve(found.value, places), found.placeholders)


def _places(stream: Any, path: Path, keys: Any, pending: dict[str, StorageRef]) -> dict[int, StorageRef]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(pending):
        raise CheckpointError(f"{path}: the list of storages does not fit the tensors")
    size, places = path.stat().st_size, {}
    for key in keys:
        count = stream.read(_COUNT.size)
        here = pending[key]
        if len(count) != _COUNT.size or _COUNT.unpack(count)[0] != here.numel:
            raise CheckpointError(
                f"{path}: the storage {key!r} should hold {here.numel} items, the file ends or differs"
            )
        start = stream.tell()
        if start + here.nbytes > size:
            raise CheckpointError(f"{path}: ends inside the storage {key!r}; was its download cut short?")
        places[here.start] = StorageRef(path, start, here.dtype, here.numel)
        stream.seek(here.nbytes, 1)
    return places


def _resolve(value: Any, places: dict[int, StorageRef]) -> Any:
    """Put real places into every tensor of a structure; what is shared is put right once."""
    done: dict[int, Any] = {}

    def resolve(held: Any) -> Any:
        if id(held) not in done:
            done[id(held)] = _resolved(held, resolve, places)
        return done[id(held)]

    return resolve(value)


def _resolved(value: Any, resolve: Callable[[Any], Any], places: dict[int, StorageRef]) -> Any:
    if isinstance(value, TensorRef):
        return TensorRef(places[value.storage.start], value.shape, value.stride, value.offset)
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(item) for item in value)
    return value
