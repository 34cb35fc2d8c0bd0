"""Packing a dataset's captions and codes into the files that `hftrainer.data.flat` describes, one clip at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import read_npy
from hftrainer.data.appending import NpyWriter
from hftrainer.data.flat import (
    TOKENS_FORMAT,
    check_replaceable,
    write_labels,
    write_packed_manifest,
    write_splits,
    write_statistics_of,
)
from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.tokens.folder import TokenSet, code_dtype, code_files, load_codes
from hftrainer.files import atomic_folder
from hftrainer.readers import FileError


@dataclass
class Packed:
    """What was packed, and the clips skipped for missing codes or captions."""

    entries: int = 0
    clips: int = 0
    captions: int = 0
    codes: int = 0
    without_codes: list[str] = field(default_factory=list)
    without_captions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tokenizer:
    """Who made codes that lie in one file a clip, which do not say so themselves."""

    sha256: str
    codebook_size: int
    frames_per_code: int


class TokenWriter:
    """Writes the columns of a packed set into a folder as clips come."""

    def __init__(self, folder: Path, codebook_size: int):
        self.folder, self.counts, self._stack = folder, Packed(), ExitStack()
        self.number: dict[str, int] = {}
        self._has_spans = False
        kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
            "codes": (code_dtype(codebook_size), ()), "offsets": (np.int64, ()), "clips": (np.int32, ()),
            "first_caption": (np.int64, ()), "text": (np.uint8, ()), "text_offsets": (np.int64, ()),
            "spans": (np.float64, (2,)), "names": (np.uint8, ()), "name_offsets": (np.int64, ()),
        }  # fmt: skip
        self._writers = {
            name: self._stack.enter_context(NpyWriter(folder / f"{name}.npy", dtype, tail))
            for name, (dtype, tail) in kinds.items()
        }
        for name in ("offsets", "first_caption", "text_offsets", "name_offsets"):
            self._writers[name].append([0])

    def add_clip(self, name: str, captions: Sequence[Caption]) -> None:
        """A new clip with its captions."""
        self.number[name] = len(self.number)
        self._text("names", "name_offsets", name)
        for caption in captions:
            self._text("text", "text_offsets", caption.text)
        spans = [(caption.start, caption.end) for caption in captions]
        self._has_spans = self._has_spans or any(start or end for start, end in spans)
        self._writers["spans"].append(np.array(spans).reshape(-1, 2))
        self.counts.captions += len(captions)
        self._writers["first_caption"].append([self.counts.captions])

    def add_entry(self, name: str, codes: NDArray[np.int64]) -> None:
        """Codes of a clip that has been added."""
        self._writers["codes"].append(codes)
        self._writers["offsets"].append([self._writers["codes"].rows])
        self._writers["clips"].append([self.number[name]])
        self.counts.entries += 1

    def close(self) -> None:
        """All columns are complete."""
        self._stack.close()
        self.counts.clips, self.counts.codes = len(self.number), self._writers["codes"].rows
        if not self._has_spans:
            (self.folder / "spans.npy").unlink()

    def abandon(self, error: BaseException) -> None:
        """Close the files as they are."""
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _text(self, column: str, offsets: str, text: str) -> None:
        utf8 = text.encode()
        self._writers[column].append_bytes(utf8, len(utf8))
        self._writers[offsets].append([self._writers[column].rows])


def pack_tokens(
    dataset: DatasetFolder,
    out: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    tokens: str = "tokens",
    tokenizer: Tokenizer | None = None,
    skip_incomplete: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Packed:
    """Write captions and codes of the clips of `splits` (default: every split) to the packed folder `out`.

    Codes come from the dataset's `tokens` folder, else from one file a clip in VQVAE_codebook_*, which needs to be told
    the `tokenizer`. A clip without codes or captions is an error, or left out with `skip_incomplete`. The folder
    appears complete or not at all; but for names, no more than one clip is in memory.
    """
    check_replaceable(out)
    members = {split: list(dict.fromkeys(dataset.names(split))) for split in splits or dataset.splits()}
    wanted = dict.fromkeys(name for names in members.values() for name in names)
    if not wanted:
        raise FileError(f"{dataset.root} has no split with clips; its splits are {dataset.splits()}")
    about, rows = _source(dataset, tokens, tokenizer, wanted)
    with atomic_folder(out) as staging:
        writer = TokenWriter(staging, int(about["codebook_size"]))
        try:
            _write_rows(writer, dataset, progress(rows), wanted)
        except BaseException as error:
            writer.abandon(error)
            raise
        writer.close()
        counts = writer.counts
        _refuse_incomplete(dataset, counts, skip_incomplete)
        clips = read_npy(staging / "clips.npy", kind="int")
        about = {
            "format": TOKENS_FORMAT, **about, "dataset": dataset.root.name,
            "representation": dataset.representation, "entries": counts.entries, "clips": counts.clips,
            "captions": counts.captions, "codes": counts.codes,
            "splits": write_splits(staging, {k: _entries(v, writer.number, clips) for k, v in members.items()}),
            "labels": write_labels(staging, dataset.labels(), list(writer.number)),
        }  # fmt: skip
        write_statistics_of(dataset, staging)
        write_packed_manifest(staging, about)
    return counts


def _source(
    dataset: DatasetFolder, tokens: str, tokenizer: Tokenizer | None, wanted: dict[str, None]
) -> tuple[dict[str, Any], Iterator[tuple[str, NDArray[np.int64] | None]]]:
    """Who made the codes, and names with their codes, None where there are none."""
    if (dataset.root / tokens).is_dir():
        made = TokenSet(dataset.root / tokens)
        if tokenizer is not None:
            made.check_tokenizer(tokenizer.sha256)
        keys = ("tokenizer_sha256", "codebook_size", "frames_per_code")
        return {key: made.made_from[key] for key in keys}, _entries_of(made, wanted)
    folder = code_files(dataset.root)
    if tokenizer is None:
        raise FileError(f"{folder} does not record its tokenizer; give the model with --model")
    size = tokenizer.codebook_size
    paths = ((name, folder / f"{name}.npy") for name in wanted)
    rows = ((name, load_codes(path, size) if path.is_file() else None) for name, path in paths)
    about = {"tokenizer_sha256": tokenizer.sha256, "codebook_size": size}
    return {**about, "frames_per_code": tokenizer.frames_per_code}, rows


def _entries_of(made: TokenSet, wanted: dict[str, None]) -> Iterator[tuple[str, NDArray[np.int64] | None]]:
    seen = set()
    for entry, name in enumerate(made.names):
        if name in wanted:
            seen.add(name)
            yield name, made[entry]
    yield from ((name, None) for name in wanted if name not in seen)


def _write_rows(
    writer: TokenWriter,
    dataset: DatasetFolder,
    rows: Iterable[tuple[str, NDArray[np.int64] | None]],
    wanted: dict[str, None],
) -> None:
    silent = set()
    for name, codes in rows:
        if codes is None or len(codes) == 0:
            writer.counts.without_codes.append(name)
            continue
        if name not in writer.number and name not in silent:
            captions = dataset.captions(name)
            if captions:
                writer.add_clip(name, captions)
            else:
                silent.add(name)
        if name in writer.number:
            writer.add_entry(name, codes)
    writer.counts.without_captions = sorted(silent)


def _refuse_incomplete(dataset: DatasetFolder, counts: Packed, skip: bool) -> None:
    missing = [
        f"{len(names)} clips have no {what}, e.g. {names[0]!r}"
        for what, names in (("codes", counts.without_codes), ("caption", counts.without_captions))
        if names
    ]
    if missing and not skip:
        raise FileError(
            f"{dataset.root}: {'; '.join(missing)}. Tokenize and caption them, name the splits to pack with --split, "
            "or skip these clips with --skip-incomplete"
        )
    if not counts.entries:
        raise FileError(f"{dataset.root}: no clip has both codes and a caption")


def _entries(names: list[str], number: dict[str, int], clips: NDArray[np.int32]) -> NDArray[np.int64]:
    """The entries of a split's clips, in the order in which they were written."""
    inside = np.zeros(len(number), dtype=bool)
    inside[[number[name] for name in names if name in number]] = True
    return np.flatnonzero(inside[clips])
