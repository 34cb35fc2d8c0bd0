"""Numpy files that grow while they are written, so that an array need not fit into memory."""

from __future__ import annotations

import io
import os
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from hftrainer.arrays import read_npy

_FLUSH = 1 << 22  # bytes that are gathered before they are written


class NpyWriter:
    """Writes an ordinary .npy file (n, *tail) piece by piece; n is put into the header at the end.

    Use it as a context manager on a temporary path: after an error the file has no valid header.
    """

    def __init__(self, path: str | os.PathLike[str], dtype: DTypeLike, tail: tuple[int, ...] = ()):
        self.dtype, self.tail, self.rows = np.dtype(dtype), tail, 0
        self._stream = open(path, "wb")  # closed by __exit__
        self._header = len(_header(self.dtype, 0, tail))
        self._stream.write(b"\0" * self._header)
        self._waiting = bytearray()

    def append(self, rows: ArrayLike) -> None:
        """Add rows (m, *tail)."""
        array = np.ascontiguousarray(rows, dtype=self.dtype)
        if array.shape[1:] != self.tail:
            raise ValueError(f"expected rows of shape {self.tail}, got {array.shape[1:]}")
        self.append_bytes(array.tobytes(), len(array))

    def append_bytes(self, data: bytes, rows: int) -> None:
        """Add `rows` rows as they lie in memory."""
        self.rows += rows
        self._waiting += data
        if len(self._waiting) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        self._stream.write(self._waiting)
        self._waiting = bytearray()

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
                header = _header(self.dtype, self.rows, self.tail)
                assert len(header) == self._header, "numpy reserves space for the first axis to grow"
                self._stream.seek(0)
                self._stream.write(header)
        finally:
            self._stream.close()


def _header(dtype: np.dtype[Any], rows: int, tail: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *tail)}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def map_array(path: str | os.PathLike[str]) -> np.ndarray[Any, np.dtype[Any]]:
    """An array mapped from its .npy file, read-only, as a plain ndarray (slicing a ``np.memmap`` is far slower)."""
    return read_npy(path, kind="any", mapped=True)
