"""The reader of .npy and .npz files that come from elsewhere.

The header is read first and by this module, without pickle: type, shape and size are compared with what was asked for,
with the length of the file and with a budget before an array is allocated. What does not hold is one `FileError`.
"""

from __future__ import annotations

import ast
import io
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hftrainer.readers import FileError, check_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ARRAY = 4 << 30  # bytes of an array that is read into memory
_MAX_HEADER = 10_000  # bytes; numpy's own limit
_MAX_DIMENSIONS = 32
_MAX_UNPACKED, _MAX_RATIO = 64 << 20, 300  # bytes of a compressed array, and for each of its own
_MAGIC = b"\x93NUMPY"
_NUMBERS = re.compile(r"[<>|=]?([fiub])([1248])")
_TEXT = re.compile(r"[<>|=]?U([1-9][0-9]{0,4})")
_NO_LITERAL = re.compile(r"\\|(?<![\w<>|='\"])[0-9]\w*[A-Za-z_]")  # what Python warns of: '\d', 1if
_NO_TYPES = ("f1", "b2", "b4", "b8")
_KINDS = {"float": "f", "int": "iu", "bool": "b", "number": "fiu", "any": "fiub", "text": "U"}
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)

Shape = Sequence[int | None]


@dataclass(frozen=True)
class Header:
    """What a .npy file says of itself: type as numpy writes it ("<f4"), shape, order, and where its items begin."""

    descr: str
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def kind(self) -> str:
        """f, i, u, b, or U for text."""
        return self.descr.lstrip("<>|=")[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the items."""
        size = int(self.descr.lstrip("<>|=")[1:])
        return prod(self.shape) * (4 * size if self.kind == "U" else size)


@dataclass(frozen=True)
class Wanted:
    """What an array must be: `kind` (float, int, bool, number, any of those, text), `shape` (None for any size; no
    shape: any) and whether its values must be `finite`; `what` they are, for messages."""

    kind: str = "float"
    shape: Shape | None = None
    finite: bool = False
    what: str = ""


def npy_header(
    path: str | os.PathLike[str],
    *,
    kind: str = "any",
    shape: Shape | None = None,
    error: type[ValueError] = FileError,
) -> Header:
    """The checked header of a .npy file; no item is read. Raises `error`, and `FileNotFoundError`."""
    size = check_regular(path, error=error)
    with open(path, "rb") as stream:
        return _checked_header(stream, size, os.fspath(path), Wanted(kind, shape), error)


def read_npy(
    path: str | os.PathLike[str],
    *,
    kind: str = "float",
    shape: Shape | None = None,
    finite: bool = False,
    mapped: bool = False,
    what: str = "",
    max_bytes: int = MAX_ARRAY,
    error: type[ValueError] = FileError,
) -> NDArray[Any]:
    """The array of a .npy file, of the `kind` (float, int, bool, number, any) and `shape` ((None, 272): any number of
    rows of 272) asked for.

    `finite`: NaN and infinities are an error too. `mapped`: read-only and mapped from the file, which may then be
    larger than `max_bytes`. `what` says in messages whose numbers they should be. Raises `error`, which says what came
    and what was expected, and `FileNotFoundError`.
    """
    import numpy as np

    size, name = check_regular(path, error=error), os.fspath(path)
    with open(path, "rb") as stream:
        header = _checked_header(stream, size, name, Wanted(kind, shape, what=what), error)
        dtype = np.dtype(header.descr)
        if mapped and header.nbytes and dtype.isnative:
            order: Any = "F" if header.fortran else "C"
            array: NDArray[Any] = np.memmap(
                stream, dtype=dtype, mode="r", offset=header.start, shape=header.shape, order=order
            )
            array = np.asarray(array)  # slicing a np.memmap is far slower
        else:
            array = _items(stream, header, name, max_bytes, error)
    if finite:
        _check_finite(array, name, error)
    return array


def parse_npy(
    data: bytes,
    source: str,
    *,
    kind: str = "float",
    shape: Shape | None = None,
    finite: bool = False,
    error: type[ValueError] = FileError,
) -> NDArray[Any]:
    """`read_npy` of bytes that are here already; `source` is what messages call them."""
    stream = io.BytesIO(data)
    header = _checked_header(stream, len(data), source, Wanted(kind, shape), error)
    array = _items(stream, header, source, len(data), error)
    if finite:
        _check_finite(array, source, error)
    return array


def read_npz(
    path: str | os.PathLike[str],
    wanted: Mapping[str, Wanted],
    *,
    optional: Sequence[str] = (),
    max_bytes: int = MAX_ARRAY,
    error: type[ValueError] = FileError,
) -> dict[str, NDArray[Any]]:
    """The arrays `wanted` of a .npz file by name; others are not looked at. Those of `optional` may be missing.

    `max_bytes` bounds what they take together. Raises `error`, and `FileNotFoundError`.
    """
    check_regular(path, error=error)
    name, out, left = os.fspath(path), {}, max_bytes
    try:
        with zipfile.ZipFile(Path(path)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            for key, want in wanted.items():
                entry = entries.get(f"{key}.npy")
                if entry is None and key in optional:
                    continue
                if entry is None:
                    raise error(f"{name} has no array {key!r}; it holds {[n[:40] for n in list(entries)[:8]]}")
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # zipfile unpacks what it reads of these at once, to whatever size that is
                    raise error(f"{name}: {key!r} is packed by method {entry.compress_type}, which numpy does not use")
                if entry.file_size > left:
                    raise error(f"{name}: {key!r} takes {entry.file_size} bytes, but the limit leaves {left}")
                if entry.file_size > _MAX_UNPACKED + _MAX_RATIO * entry.compress_size:
                    raise error(
                        f"{name}: {key!r} would be unpacked from {entry.compress_size} to {entry.file_size} bytes; no "
                        "motion shrinks that much"
                    )
                with archive.open(entry) as stream:
                    source = f"{name}, {key!r}"
                    header = _checked_header(stream, entry.file_size, source, want, error)  # type: ignore[arg-type]
                    array = _items(stream, header, source, left, error)  # type: ignore[arg-type]
                    if want.finite:
                        _check_finite(array, source, error)
                left -= array.nbytes
                out[key] = array
    except _ZIP_ERRORS as reason:
        if isinstance(reason, (error, FileNotFoundError)):
            raise
        raise error(f"{name} is not a readable .npz file ({_first(reason)}); was it cut short?") from reason
    return out


def _checked_header(stream: BinaryIO, size: int, name: str, wanted: Wanted, error: type[ValueError]) -> Header:
    header = _parse_header(stream, size, name, error, words=wanted.kind == "text")
    letters = _KINDS[wanted.kind]
    if header.kind not in letters:
        raise error(f"{name}: expected {_numbers(wanted)}, got {header.shape} of type {header.descr!r}")
    if wanted.shape is not None:
        fits = len(wanted.shape) == len(header.shape) and all(
            want is None or want == have for want, have in zip(wanted.shape, header.shape, strict=True)
        )
        if not fits:
            raise error(f"{name}: expected {_numbers(wanted)}, got {header.shape} of type {header.descr!r}")
    if header.start + header.nbytes != size:
        cut = "was it cut short?" if header.start + header.nbytes > size else "it is damaged"
        raise error(
            f"{name}: an array of shape {header.shape} and type {header.descr!r} takes {header.nbytes} bytes, "
            f"{size - header.start} are there; {cut}"
        )
    return header


def _parse_header(stream: BinaryIO, size: int, name: str, error: type[ValueError], *, words: bool) -> Header:
    start = stream.read(8)
    if start[:6] != _MAGIC or len(start) < 8:
        came = {b"": "is empty", b"PK\x03\x04": "is a .npz archive"}.get(start[:4], f"starts with {start!r}")
        raise error(f"{name} cannot be read as a numpy array: it {came}")
    width = {1: 2, 2: 4, 3: 4}.get(start[6])
    if width is None:
        raise error(f"{name} cannot be read as a numpy array: unknown version {start[6]}.{start[7]}")
    length = int.from_bytes(stream.read(width), "little")
    if not 10 <= length <= _MAX_HEADER:
        raise error(f"{name}: its .npy header is {length} bytes long; the limit is {_MAX_HEADER}")
    line = stream.read(length)
    if len(line) != length:
        raise error(f"{name} ends inside its .npy header; was it cut short?")
    try:
        text = line.decode("latin-1" if start[6] < 3 else "utf-8").strip()
        if _NO_LITERAL.search(text):
            raise ValueError
        fields = ast.literal_eval(text)
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as reason:
        raise error(f"{name}: its .npy header is damaged ({type(reason).__name__})") from reason
    known = isinstance(descr, str) and (_NUMBERS.fullmatch(descr) or (words and _TEXT.fullmatch(descr)))
    if not known or descr[-2:] in _NO_TYPES:
        shown = descr if isinstance(descr, str) and len(descr) < 40 else "a structure"
        raise error(f"{name} cannot be read as a numpy array: its type {shown!r} is not a supported number type")
    if (
        not isinstance(fortran, bool)
        or not isinstance(shape, tuple)
        or len(shape) > _MAX_DIMENSIONS
        or any(type(n) is not int or n < 0 or n >= 1 << 62 for n in shape)
    ):
        raise error(f"{name}: its .npy header is damaged (its shape is not a list of at most {_MAX_DIMENSIONS} sizes)")
    if Header(descr, tuple(max(n, 1) for n in shape), fortran, 0).nbytes >= 1 << 62:  # also of an empty array
        raise error(f"{name}: its .npy header is damaged (no array can have the shape {shape})")
    return Header(descr, shape, fortran, 8 + width + length)


def _items(stream: BinaryIO, header: Header, name: str, max_bytes: int, error: type[ValueError]) -> NDArray[Any]:
    import numpy as np

    if header.nbytes > max_bytes:
        raise error(f"{name} takes {header.nbytes} bytes in memory; the limit is {max_bytes}")
    data = bytearray(header.nbytes)
    view, at = memoryview(data), 0
    while at < len(data) and (piece := stream.read(min(1 << 24, len(data) - at))):
        view[at : at + len(piece)] = piece
        at += len(piece)
    if at != len(data):
        raise error(f"{name} ends after {at} of {header.nbytes} bytes; was it cut short?")
    if header.kind == "U":
        letters = np.frombuffer(data, dtype=">u4" if header.descr[0] == ">" else "<u4")
        if np.any((letters > 0x10FFFF) | ((letters >= 0xD800) & (letters < 0xE000))):  # Python trips over them later
            raise error(f"{name} holds numbers that are no letters")
    flat: NDArray[Any] = np.frombuffer(data, dtype=np.dtype(header.descr))
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _numbers(wanted: Wanted) -> str:
    """What is expected, in words: "floats (frames, 272)"."""
    kinds = {"float": "floats", "int": "whole numbers", "bool": "booleans", "text": "text"}
    what = f" of {wanted.what}" if wanted.what else ""
    if wanted.shape is None:
        return kinds.get(wanted.kind, "numbers") + what
    sizes = ["any" if size is None else str(size) for size in wanted.shape]
    if len(sizes) > 1 and wanted.shape[0] is None:
        sizes[0] = "frames"
    return f"{kinds.get(wanted.kind, 'numbers')} ({', '.join(sizes)}{',' if len(sizes) == 1 else ''}){what}"


def _check_finite(array: NDArray[Any], name: str, error: type[ValueError]) -> None:
    import numpy as np

    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        where = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
        place = f"{name}: frame {int(where[0])}" if len(where) > 1 else name
        raise error(f"{place} holds a NaN or infinite value")


def _first(reason: BaseException) -> str:
    return str(reason).splitlines()[0] if str(reason) else type(reason).__name__
