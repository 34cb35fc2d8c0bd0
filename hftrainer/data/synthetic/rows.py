"""Packed sets of made-up rows, millions if wanted: to try out training at scale, and to measure how it is fed."""

from __future__ import annotations

import os
from itertools import product

import numpy as np

from hftrainer.data.appending import NpyWriter
from hftrainer.data.flat import TOKENS_FORMAT, check_replaceable, write_packed_manifest, write_splits
from hftrainer.data.tokens.table import pack_texts
from hftrainer.files import atomic_folder

_WHO = ("a person", "someone", "a man", "a woman", "the figure", "a dancer", "an old man", "a child")
_WHAT = ("walks forward", "turns around", "waves both arms", "squats and stands up", "jumps over a log",
         "crawls under a table", "throws a ball", "sits on a chair", "climbs stairs", "kicks a door")  # fmt: skip
_HOW = ("slowly", "quickly", "with the left arm raised", "as if tired", "three times", "in a circle",
        "while looking back", "without stopping")  # fmt: skip
_PIECE = 50_000  # rows that are made at once


def write_synthetic_rows(
    out: str | os.PathLike[str],
    rows: int,
    *,
    codebook_size: int = 64_000,
    captions_a_clip: int = 2,
    seed: int = 0,
) -> None:
    """Write `rows` clips of 30 to 150 codes with `captions_a_clip` captions each; the same for the same seed.

    Codes wander in steps below 64, as codes of motions repeat near values; every hundredth clip is in the split "val",
    the others in "train".
    """
    if rows < 200:
        raise ValueError(f"a packed dataset of synthetic rows needs at least 200 rows, got {rows}")
    check_replaceable(out)
    sentences = [" ".join(words) for words in product(_WHO, _WHAT, _HOW)]
    dtype = np.uint16 if codebook_size <= 1 << 16 else np.uint32
    with atomic_folder(out) as staging:
        with (
            NpyWriter(staging / "codes.npy", dtype) as codes,
            NpyWriter(staging / "offsets.npy", np.int64) as offsets,
            NpyWriter(staging / "text.npy", np.uint8) as text,
            NpyWriter(staging / "text_offsets.npy", np.int64) as text_offsets,
            NpyWriter(staging / "names.npy", np.uint8) as names,
            NpyWriter(staging / "name_offsets.npy", np.int64) as name_offsets,
        ):
            for writer in (offsets, text_offsets, name_offsets):
                writer.append([0])
            for first in range(0, rows, _PIECE):
                count = min(_PIECE, rows - first)
                rng = np.random.default_rng([seed, first])
                lengths = rng.integers(30, 151, size=count)
                offsets.append(codes.rows + np.cumsum(lengths))
                walk = np.cumsum(rng.integers(0, 64, size=int(lengths.sum()), dtype=np.int64))
                codes.append((walk + int(rng.integers(codebook_size))) % codebook_size)
                chosen = rng.integers(len(sentences), size=count * captions_a_clip)
                _append(text, text_offsets, [sentences[i] for i in chosen.tolist()])
                _append(
                    names, name_offsets, [f"synthetic/{n // 1000:05d}/{n:07d}" for n in range(first, first + count)]
                )
        everything = np.arange(rows)
        np.save(staging / "clips.npy", everything.astype(np.int32))
        np.save(staging / "first_caption.npy", np.arange(rows + 1, dtype=np.int64) * captions_a_clip)
        held = everything % 100 == 99
        splits = {"train": everything[~held], "val": everything[held], "all": everything}
        about = {
            "format": TOKENS_FORMAT, "tokenizer_sha256": "synthetic", "codebook_size": codebook_size,
            "frames_per_code": 2, "dataset": "synthetic rows", "entries": rows, "clips": rows,
            "captions": rows * captions_a_clip, "codes": codes.rows, "splits": write_splits(staging, splits),
            "labels": {},
        }  # fmt: skip
        write_packed_manifest(staging, about)


def _append(texts: NpyWriter, offsets: NpyWriter, values: list[str]) -> None:
    packed, starts = pack_texts(values)
    offsets.append(texts.rows + starts[1:])
    texts.append(packed)
