"""Embeddings by the content that they were made from, in memory and, if asked for, on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import Wanted, read_npz
from hftrainer.files import atomic_path
from hftrainer.readers import FileError

Float32 = NDArray[np.float32]
BUDGET = 512 << 20  # bytes that one cache may take: half a million embeddings of 256 numbers
_KEY_BYTES = 16
_OVERHEAD = 250  # bytes that Python takes for a key and a row
_ARRAYS = {
    "identity": Wanted("text", ()),
    "keys": Wanted("int", (None, _KEY_BYTES)),
    "rows": Wanted(shape=(None, None), finite=True),
}


def content_key(content: NDArray[np.generic] | str) -> bytes:
    """A key of a text, or of an array's type, shape and values."""
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    if isinstance(content, str):
        digest.update(content.encode())
    else:
        digest.update(f"{content.dtype.str} {content.shape}".encode())
        digest.update(np.ascontiguousarray(content).data)
    return digest.digest()


class EmbeddingCache:
    """One evaluator's embeddings of one kind of thing, at most `budget` bytes: the least recently used ones go first.

    With a `path`, an .npz file that is read at first use and rewritten, atomically, when there is something new; it
    records the `identity` of the evaluator and refuses to serve another one.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, identity: str = "", budget: int = BUDGET):
        self.path, self.identity, self.budget = (None if path is None else Path(path)), identity, budget
        self._rows: dict[bytes, Float32] = {} if self.path is None else self._read(self.path)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, keys: Sequence[bytes], encode: Callable[[list[int]], Float32]) -> Float32:
        """The embedding of each key (n, d); `encode` is given places of `keys` that are new, each content once."""
        new = {key: place for place, key in enumerate(keys) if key not in self._rows}
        for key, row in zip(new, encode(list(new.values())) if new else (), strict=True):
            self._rows[key] = row.copy()  # a view would keep its whole batch
        out = np.stack([self._rows[key] for key in keys])
        for key in dict.fromkeys(keys):
            self._rows[key] = self._rows.pop(key)  # the order is that of the last use
        if new:
            if self.path is not None:
                added = self._read(self.path).items()  # by another process, perhaps; what is here was used later
                self._rows = {**{key: row for key, row in added if key not in self._rows}, **self._rows}
            self._forget()
            self._save()
        return out

    def _read(self, path: Path) -> dict[bytes, Float32]:
        if not path.is_file():
            return {}
        try:
            content = read_npz(path, _ARRAYS)
        except (OSError, ValueError) as error:
            raise FileError(f"{path} is not a cache of embeddings ({error}); delete it") from error
        identity, keys, rows = str(content["identity"]), content["keys"], content["rows"]
        if keys.dtype != np.uint8 or len(keys) != len(rows):
            raise FileError(f"{path} is not a cache of embeddings ({keys.dtype} keys {keys.shape}); delete it")
        if identity != self.identity:
            raise FileError(f"{path} holds embeddings of another evaluator ({identity}); delete it")
        return {key.tobytes(): row.copy() for key, row in zip(keys, rows, strict=True)}

    def _forget(self) -> None:
        row = next(iter(self._rows.values()))
        for key in list(self._rows)[: -max(1, self.budget // (row.nbytes + _OVERHEAD))]:
            del self._rows[key]

    def _save(self) -> None:
        if self.path is None:
            return
        keys = np.frombuffer(b"".join(self._rows), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        rows = np.stack(list(self._rows.values()))
        with atomic_path(self.path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, identity=np.array(self.identity), keys=keys, rows=rows)
