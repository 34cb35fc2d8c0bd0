"""Tokenized motion: all clips' codes in one array, with a record of the tokenizer and the motions they came from.

    codes.npy      uint16 or uint32, all clips one after the other (memory-mapped when read)
    offsets.npy    int64 (entries + 1,)      where each entry starts
    names.txt      the clip of each entry, one a line
    made_from.json tokenizer hash, codebook size, frames a code, dataset
A set that was made with another tokenizer is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.data.folder import DatasetFolder
from hftrainer.files import atomic_path, write_json, write_text

Encode = Callable[[Sequence[NDArray[np.float32]]], Sequence[NDArray[np.int64]]]


class TokenSet:
    """Codes by entry. An entry is a clip, or a clip from its second frame on (the other phase of two frames a code)."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        if not (self.folder / "made_from.json").is_file():
            raise ValueError(f"{str(folder)!r} holds no tokens; make them with: hftrainer data tokenize")
        self.made_from: dict[str, Any] = json.loads((self.folder / "made_from.json").read_text(encoding="utf-8"))
        self.offsets: NDArray[np.int64] = np.load(self.folder / "offsets.npy", allow_pickle=False)
        self.codes = np.load(self.folder / "codes.npy", mmap_mode="r", allow_pickle=False)
        self.names = (self.folder / "names.txt").read_text(encoding="utf-8").splitlines()
        if len(self.names) + 1 != len(self.offsets) or self.offsets[-1] != len(self.codes):
            raise ValueError(f"{self.folder}: names, offsets and codes do not belong together; tokenize again")

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
        if self.made_from["tokenizer_sha256"] != fingerprint:
            raise ValueError(
                f"the tokens in {self.folder} were made by another tokenizer "
                f"({self.made_from['tokenizer_sha256'][:12]}, this one is {fingerprint[:12]}); tokenize again"
            )


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
    shorter than one code are an error that names them.
    """
    order = sorted(names, key=dataset.frames)
    short = [n for n in order if dataset.frames(n) < frames_per_code + both_phases]
    if short:
        raise ValueError(f"{len(short)} clips are shorter than one code ({frames_per_code} frames): {short[:3]}")
    codes: dict[tuple[str, int], NDArray[np.int64]] = {}
    for start in progress(range(0, len(order), batch_size)):
        batch = order[start : start + batch_size]
        motions = [dataset.motion(name) for name in batch]
        for phase in (0, 1) if both_phases else (0,):
            for name, row in zip(batch, encode([m[phase:] for m in motions]), strict=True):
                codes[name, phase] = row
    entries = [(name, phase) for name in names for phase in ((0, 1) if both_phases else (0,))]
    rows = [codes[entry] for entry in entries]
    dtype = np.uint16 if codebook_size <= 1 << 16 else np.uint32
    out = Path(out)
    arrays = {
        "codes.npy": np.concatenate(rows).astype(dtype),
        "offsets.npy": np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
    }
    for file, array in arrays.items():
        with atomic_path(out / file) as temporary, open(temporary, "wb") as stream:
            np.save(stream, array)
    write_text(out / "names.txt", "".join(f"{name}\n" for name, _ in entries))
    write_json(
        out / "made_from.json",
        {
            "tokenizer_sha256": tokenizer_sha256,
            "codebook_size": codebook_size,
            "frames_per_code": frames_per_code,
            "dataset": dataset.root.name,
            "clips": len(names),
            "entries": len(entries),
            "both_phases": both_phases,
        },
    )
    return len(entries)


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
                raise ValueError(f"{name} is not in {tokens.folder}; tokenize again")
            yield name, tokens[first[name]]
        return
    folders = [path for path in dataset.root.glob("VQVAE_codebook_*") if path.is_dir()]
    if len(folders) != 1:
        raise ValueError(f"{dataset.root} has neither tokens/ nor one VQVAE_codebook_* folder")
    for name in names:
        codes = np.load(folders[0] / f"{name}.npy", allow_pickle=False).reshape(-1).astype(np.int64)
        if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
            raise ValueError(
                f"{folders[0] / name}.npy: codes {codes.min()}..{codes.max()}, the model has {codebook_size}"
            )
        yield name, codes
