"""Tokenized motion: all clips' codes in one array, with a record of the tokenizer and the motions they came from.

    codes.npy      uint16 or uint32, all clips one after the other (memory-mapped when read)
    offsets.npy    int64 (entries + 1,)      where each entry starts
    names.txt      the clip of each entry, one a line
    made_from.json tokenizer hash, codebook size, frames a code, dataset
A set that was made with another tokenizer is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import read_npy
from hftrainer.data.appending import NpyWriter
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.tokens.table import check_made_by
from hftrainer.files import atomic_folder, write_json, write_text
from hftrainer.readers import FileError, json_field, read_json, read_text

_STRETCH = 64  # batches that are in memory at once while clips are tokenized
Encode = Callable[[Sequence[NDArray[np.float32]]], Sequence[NDArray[np.int64]]]


class TokenSet:
    """Codes by entry. An entry is a clip, or a clip from its second frame on (the other phase of two frames a code)."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        if not (self.folder / "made_from.json").is_file():
            raise FileError(f"{str(folder)!r} has no tokens; make them with: hftrainer data tokenize")
        self.made_from: dict[str, Any] = read_json(self.folder / "made_from.json")
        for key, kind in (("tokenizer_sha256", str), ("codebook_size", int)):
            json_field(self.made_from, key, kind, self.folder / "made_from.json")
        self.offsets: NDArray[np.int64] = read_npy(self.folder / "offsets.npy", kind="int", shape=(None,))
        self.codes = read_npy(self.folder / "codes.npy", kind="int", shape=(None,), mapped=True)
        self.names = read_text(self.folder / "names.txt", 1 << 30).splitlines()
        fits = len(self.names) + 1 == len(self.offsets) and self.offsets[-1] == len(self.codes)
        if not fits or self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
            raise FileError(f"{self.folder}: names, offsets and codes are inconsistent; tokenize again")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, entry: int) -> NDArray[np.int64]:
        return np.asarray(self.codes[self.offsets[entry] : self.offsets[entry + 1]], dtype=np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Codes of each entry."""
        return np.diff(self.offsets)

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return int(self.made_from["codebook_size"])

    def check_tokenizer(self, fingerprint: str) -> None:
        """Raise ``ValueError`` unless these codes were made by the tokenizer with this hash."""
        check_made_by(self.folder, self.made_from["tokenizer_sha256"], fingerprint)


def tokenize(
    dataset: DatasetFolder,
    names: Sequence[str],
    out: str | os.PathLike[str],
    encode: Encode,
    *,
    tokenizer_sha256: str,
    codebook_size: int,
    frames_per_code: int,
    both_phases: bool = True,
    batch_size: int = 16,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> int:
    """Encode clips into a `TokenSet` at `out`; entries written.

    `both_phases` adds each clip from its second frame on, so that the same motion is seen with other codes. Clips
    shorter than one code are an error that names them. Clips are read and encoded a stretch of them at a time.
    """
    short = [n for n in names if dataset.frames(n) < frames_per_code + both_phases]
    if short:
        raise ValueError(f"{len(short)} clips are shorter than one code ({frames_per_code} frames): {short[:3]}")
    phases = (0, 1) if both_phases else (0,)

    def rows() -> Iterator[tuple[str, NDArray[np.int64]]]:
        stretch = _STRETCH * batch_size
        for first in progress(range(0, len(names), stretch)):
            motions = {name: dataset.motion(name) for name in names[first : first + stretch]}
            order = sorted(motions, key=lambda name: len(motions[name]))  # like lengths need little padding
            codes: dict[tuple[str, int], NDArray[np.int64]] = {}
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                for phase in phases:
                    found = encode([motions[name][phase:] for name in batch])
                    codes |= {(name, phase): row for name, row in zip(batch, found, strict=True)}
            for name in names[first : first + stretch]:
                yield from ((name, codes[name, phase]) for phase in phases)

    about = {
        "tokenizer_sha256": tokenizer_sha256, "codebook_size": codebook_size, "frames_per_code": frames_per_code,
        "dataset": dataset.root.name, "representation": dataset.representation,
        "clips": len(names), "both_phases": both_phases,
    }  # fmt: skip
    return write_token_set(out, rows(), about)


def write_token_set(
    out: str | os.PathLike[str], rows: Iterable[tuple[str, NDArray[np.int64]]], about: dict[str, Any]
) -> int:
    """Write names with their codes as a `TokenSet`, as they come; entries written. `about` becomes made_from.json.

    The folder takes its place when it is complete: codes of one tokenizer never stand under the name of another.
    """
    dtype = code_dtype(int(about["codebook_size"]))
    names, offsets = [], [0]
    with atomic_folder(out) as folder:
        with NpyWriter(folder / "codes.npy", dtype) as writer:
            for name, codes in rows:
                writer.append(codes)
                names.append(name)
                offsets.append(writer.rows)
        np.save(folder / "offsets.npy", np.array(offsets, dtype=np.int64))
        write_text(folder / "names.txt", "".join(f"{name}\n" for name in names))
        write_json(folder / "made_from.json", {**about, "entries": len(names)})
    return len(names)


def code_dtype(codebook_size: int) -> Any:
    """The smallest type that a code is stored as."""
    return np.uint16 if codebook_size <= 1 << 16 else np.uint32


def code_files(root: Path) -> Path:
    """The folder with one file of codes a clip, as the official code writes it (VQVAE_codebook_65536_FSQ_all)."""
    folders = [path for path in root.glob("VQVAE_codebook_*") if path.is_dir()]
    if len(folders) != 1:
        raise FileError(f"{root} has no tokens/, and {len(folders)} VQVAE_codebook_* folders instead of one")
    return folders[0]


def load_codes(path: Path, codebook_size: int) -> NDArray[np.int64]:
    """The codes (l,) of such a file, which holds (1, l) integers; checked."""
    try:
        codes = read_npy(path, kind="number")
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    if codes.dtype.kind not in "iu" or codes.ndim not in (1, 2) or codes.size != codes.shape[-1]:
        raise FileError(f"{path}: expected integer codes (1, l) or (l,), got {codes.dtype} {codes.shape}")
    flat: NDArray[np.int64] = codes.reshape(-1).astype(np.int64)
    if flat.size and not 0 <= flat.min() <= flat.max() < codebook_size:
        raise FileError(f"{path}: codes {flat.min()}..{flat.max()}, the model has {codebook_size}")
    return flat


def codes_of(
    dataset: DatasetFolder, names: Sequence[str], codebook_size: int, tokenizer_sha256: str | None
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Codes of clips by name, from a `TokenSet` in tokens/, or from one file a clip as the official code writes them
    (VQVAE_codebook_65536_FSQ_all/<name>.npy, shape (1, l))."""
    if (dataset.root / "tokens").is_dir():
        tokens = TokenSet(dataset.root / "tokens")
        if tokenizer_sha256 is not None:
            tokens.check_tokenizer(tokenizer_sha256)
        first = {name: entry for entry, name in reversed(list(enumerate(tokens.names)))}
        for name in names:
            if name not in first:
                raise FileError(f"{name} is not in {tokens.folder}; tokenize again")
            yield name, tokens[first[name]]
        return
    folder = code_files(dataset.root)
    for name in names:
        yield name, load_codes(folder / f"{name}.npy", codebook_size)
