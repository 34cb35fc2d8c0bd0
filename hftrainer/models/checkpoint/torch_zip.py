"""torch's zip files (torch.save since 1.6): a pickle of the structure, and one entry of raw bytes a storage.

Entries are stored, not compressed, so a tensor is a place in the file. Only the pickle is read; tensors are mapped when
they are asked for, so an optimizer beside the weights costs nothing.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from hftrainer.models.checkpoint.errors import CheckpointError
from hftrainer.models.checkpoint.pickle_keys import short
from hftrainer.models.checkpoint.safe_pickle import MAX_PICKLE, Unpickled, load_pickle, storage_dtype
from hftrainer.models.checkpoint.tensors import MAX_SIZE, StorageRef

MAX_ENTRIES = 50_000
_SMALL = 64 << 20  # bytes
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# what zipfile says of damage: bad records and checksums, unknown compression, "encrypted" flags
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)


def read_torch_zip(path: Path) -> Unpickled:
    """The structure of a torch zip file, its tensors as `TensorRef`."""
    with open_zip(path) as archive:
        root = _root(archive, path)
        _check_byte_order(archive, root, path)
        pickle_entry = archive.getinfo(f"{root}/data.pkl")
        if pickle_entry.file_size > MAX_PICKLE:
            raise CheckpointError(
                f"{path}: its data.pkl of {pickle_entry.file_size} bytes is too large to be a structure"
            )
        places = _Places(path, archive, root)
        return load_pickle(io.BytesIO(_read(archive, pickle_entry.filename, path)), path, places)


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file whose entries have plain names and lie inside the file."""
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise CheckpointError(
            f"{path} is not a complete zip file ({error}); it holds {path.stat().st_size} bytes: "
            "was its download or copy cut short?"
        ) from error
    if len(archive.infolist()) > MAX_ENTRIES:
        archive.close()
        raise CheckpointError(f"{path} has {len(archive.filelist)} entries; no checkpoint has more than {MAX_ENTRIES}")
    for entry in archive.infolist():
        pure = PurePosixPath(entry.filename)
        if pure.is_absolute() or ".." in pure.parts or "\\" in entry.filename:
            archive.close()
            raise CheckpointError(f"{path} has an entry named {entry.filename!r}, which leads out of the archive")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # zipfile unpacks what it reads of these at once, to whatever size that is
            archive.close()
            raise CheckpointError(f"{path}: the entry {entry.filename!r} is packed by method {entry.compress_type}")
    names = [entry.filename for entry in archive.infolist()]
    if len(set(names)) != len(names):
        archive.close()
        raise CheckpointError(f"{path} has two entries of one name")
    return archive


def is_torch_zip(path: Path) -> bool:
    """Whether a zip file has a data.pkl at its top."""
    with open_zip(path) as archive:
        return any(_is_data_pkl(name) for name in archive.namelist())


def copy_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, out: Path, path: Path) -> None:
    """Unpack one entry to a file, no more of it than it says it is."""
    written = 0
    try:
        with archive.open(entry) as source, open(out, "wb") as target:
            while piece := source.read(1 << 22):
                written += len(piece)
                if written > entry.file_size:
                    raise CheckpointError(f"{path}: the entry {entry.filename!r} is larger than it says")
                target.write(piece)
    except _ZIP_ERRORS as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: the entry {entry.filename!r} is damaged: {error}") from error


def verify_zip(path: Path) -> None:
    """Compare every entry with its checksum; raises `CheckpointError` naming the first that is damaged."""
    with open_zip(path) as archive:
        whole, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
        if whole > _SMALL + 2 * size:  # torch does not compress
            raise CheckpointError(f"{path} would grow from {size} to {whole} bytes; torch does not pack what it writes")
        try:
            bad = archive.testzip()
        except _ZIP_ERRORS as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
    if bad is not None:
        raise CheckpointError(f"{path}: the entry {bad!r} does not have its checksum; the file is damaged")


class _Places:
    """Finds where a storage's bytes are, from its persistent id."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str):
        self.path, self.root = path, root
        self.entries = {entry.filename: entry for entry in archive.infolist()}
        self.known: dict[str, StorageRef] = {}
        self.size = path.stat().st_size

    def __call__(self, pid: Any) -> StorageRef:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[2], str)):
            raise CheckpointError(f"{self.path}: a storage is described by {short(pid)}")
        _, kind, key, _, numel = pid
        if type(numel) is not int or not 0 <= numel < MAX_SIZE:
            raise CheckpointError(f"{self.path}: the storage {key!r} has {short(numel)} items")
        if key not in self.known:
            self.known[key] = self._find(key, storage_dtype(kind), numel)
        return self.known[key]

    def _find(self, key: str, dtype: Any, numel: int) -> StorageRef:
        entry = self.entries.get(f"{self.root}/data/{key}")
        if entry is None:
            raise CheckpointError(f"{self.path}: the storage {key!r} is not in the file")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{self.path}: the storage {key!r} is compressed, which torch does not write")
        if entry.file_size < numel * dtype.itemsize:
            raise CheckpointError(
                f"{self.path}: the storage {key!r} holds {entry.file_size} bytes and should hold "
                f"{numel * dtype.itemsize}"
            )
        start = self._data_start(entry)
        if start + entry.file_size > self.size:
            raise CheckpointError(f"{self.path}: the storage {key!r} reaches past the end of the file")
        return StorageRef(self.path, start, dtype, numel)

    def _data_start(self, entry: zipfile.ZipInfo) -> int:
        """Where an entry's bytes begin: its local header repeats the name and has extra fields of its own."""
        with open(self.path, "rb") as stream:
            stream.seek(entry.header_offset)
            header = stream.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size:
            raise CheckpointError(f"{self.path}: the entry {entry.filename!r} lies outside the file")
        magic, name_size, extra_size = _LOCAL_HEADER.unpack(header)  # type: bytes, int, int
        if magic != b"PK\x03\x04":
            raise CheckpointError(f"{self.path}: the entry {entry.filename!r} has no header where it should be")
        return entry.header_offset + _LOCAL_HEADER.size + name_size + extra_size


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        return archive.read(name)
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{path}: the entry {name!r} is damaged: {error}") from error


def _root(archive: zipfile.ZipFile, path: Path) -> str:
    roots = [name.partition("/")[0] for name in archive.namelist() if _is_data_pkl(name)]
    if len(roots) != 1:
        raise CheckpointError(f"{path} is a zip file, but not torch's: it has {len(roots)} data.pkl")
    return roots[0]


def _is_data_pkl(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _check_byte_order(archive: zipfile.ZipFile, root: str, path: Path) -> None:
    name = f"{root}/byteorder"
    if name not in archive.namelist():
        return
    if archive.getinfo(name).file_size > 64 or _read(archive, name, path).strip() != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine; convert it there")
