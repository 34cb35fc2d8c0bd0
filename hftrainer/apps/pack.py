"""Packed sets: captions and codes, or motions, in a few memory-mapped files. What came of them, in sentences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hftrainer.data import flat
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.motion import packed
from hftrainer.data.tokens import pack
from hftrainer.readers import read_json
from hftrainer.zoo.load import load_tokenizer

Progress = Callable[[Iterable[Any]], Iterable[Any]]
_FACTS = ("dataset", "tokenizer_sha256", "codebook_size", "entries", "clips", "captions", "codes", "frames")


def pack_tokens(
    dataset: str | os.PathLike[str],
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    tokens: str = "tokens",
    model: str | None = None,
    skip_incomplete: bool = False,
    progress: Progress = iter,
) -> list[str]:
    """Write captions and codes of a data set folder to `out`.

    `model`: whose tokenizer made the codes, where they lie in one file a clip, which do not say so.
    """
    tokenizer = None
    if model is not None:
        made_by = load_tokenizer(model)
        tokenizer = pack.Tokenizer(made_by.sha256, made_by.codebook_size, made_by.frames_per_code)
    counts = pack.pack_tokens(
        DatasetFolder(dataset), out, splits=splits, tokens=tokens, tokenizer=tokenizer,
        skip_incomplete=skip_incomplete, progress=progress,
    )  # fmt: skip
    missing = (("codes", counts.without_codes), ("captions", counts.without_captions))
    return [
        *(f"skipped: {len(names)} clips without {what}, e.g. {names[0]}" for what, names in missing if names),
        f"{counts.entries} entries of {counts.clips} clips with {counts.captions} captions",
        f"{counts.codes} codes -> {out} ({_size_of(out)})",
    ]


def pack_motions(
    dataset: str | os.PathLike[str],
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    dtype: str = "float32",
    progress: Progress = iter,
) -> list[str]:
    """Write motions of a data set folder to `out`."""
    counts = packed.pack_motions(DatasetFolder(dataset), out, splits=splits, dtype=dtype, progress=progress)
    moved = [f"float16 moved joints by {counts.error_mm:.2f} mm at most"] if dtype == "float16" else []
    return [*moved, f"{counts.frames} frames of {counts.clips} clips -> {out} ({_size_of(out)})"]


def verify_packed(folder: Path, *, progress: Progress = iter) -> tuple[list[str], list[str]] | None:
    """Facts and problems of a packed set; None if the folder is none."""
    manifest = folder / flat.MANIFEST
    if not manifest.is_file():
        return None
    form = read_json(manifest, max_bytes=1 << 30).get("format")
    kinds: dict[str, type[flat.PackedFolder]] = {
        flat.TOKENS_FORMAT: flat.PackedTokens, packed.MOTIONS_FORMAT: packed.PackedMotions,
    }  # fmt: skip
    if form not in kinds:
        return None
    found = kinds[form](folder)
    facts = [f"{key:20} {found.made_from[key]}" for key in _FACTS if key in found.made_from]
    facts += [f"{f'split {name}':20} {about['entries']}" for name, about in found.made_from["splits"].items()]
    return facts, found.verify(progress=progress)


def _size_of(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:,.1f} MB"
