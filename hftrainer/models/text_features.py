"""Text features in a file: a text encoder's answers to known prompts, so that it need not be there.

One safetensors file. For n texts, sorted by length, whose features have r rows in all:

    hashes      uint8 (n, 32)     SHA-256 of each text in UTF-8, which is what a prompt is looked up by
    tokens      int32 (n,)        tokens of each text before any cut
    starts      int64 (n + 1,)    where each text's rows begin
    texts       uint8             the texts in UTF-8, one after the other
    text_starts int64 (n + 1,)    where each begins
    features.0, features.1, ...   (rows, width), in the dtype that the metadata names; r rows together

Its metadata says which encoder made them: name, hash of its weights, kind (its name in TEXT_ENCODERS and how it pools),
width, dtype, and how many tokens are shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hftrainer.models.checkpoint import CheckpointError, open_checkpoint, read_metadata, write_safetensors
from hftrainer.models.text_encoder_base import BaseTextEncoder, TextFeatures, kind_of, spell_kind
from hftrainer.readers import FileError, parse_json
from hftrainer.registry import TEXT_ENCODERS, Part

FORMAT = "hftrainer-text-features-v1"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NO_TEXT = ""  # in every file, for guidance and `task.text_dropout`


class MissingTextFeatures(ValueError):
    """Prompts whose features are not in the file; the message names them."""


class StoredTextFeatures(nn.Module):
    """Stands where a text encoder would: captions in, `TextFeatures` out, for the texts of one file.

    The features are mapped from the file and answered on `device`, to which the module is moved like any other.
    """

    model: Any = None  # where an encoder has its network
    tokenizer: Any = None
    place: Tensor

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self.path = Path(path)
        about = read_metadata(self.path)
        if about.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.path} holds no text features: its format is {about.get('format')!r}, expected {FORMAT!r}; "
                "make it with: hftrainer data text-features"
            )
        try:
            self.encoder, self.encoder_sha256, self.dtype = about["encoder"], about["encoder_sha256"], about["dtype"]
            self.width, self.max_tokens = int(about["width"]), int(about["max_tokens"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{self.path} is damaged: its metadata lack or misspell {error}") from error
        self.kind: dict[str, Any] = parse_json(about.get("kind", '{"name": "t5"}'), self.path)  # see `kind_of`
        self._pooled = about.get("pooled") == "true"
        self._state = open_checkpoint(self.path)
        self._read_index()
        self.register_buffer("place", torch.zeros(0, dtype=torch.int8), persistent=False)  # moves with the module

    def __len__(self) -> int:
        return len(self._entries) - (text_hash(NO_TEXT) in self._entries)

    @property
    def device(self) -> torch.device:
        """Where features are answered."""
        return self.place.device

    @property
    def texts(self) -> list[str]:
        """The texts of the file, shortest first, without the empty one."""
        held, starts = self._state["texts"].numpy().tobytes(), self._state["text_starts"].tolist()
        return [held[a:b].decode() for a, b in pairwise(starts) if a < b]

    def load(self) -> None:
        """Nothing to do; an encoder brings its weights into memory here."""

    def free(self) -> None:
        """Nothing to do; an encoder releases its weights here."""

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption, the end-of-text token included, before any cut."""
        return [self._tokens[entry] for entry in self._find(captions)]

    def positions(self, tokens: Sequence[int]) -> list[int]:
        """Rows of features of texts with so many tokens."""
        return [1 if self._pooled else min(count, self.max_tokens) for count in tokens]

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """Features of a batch of captions. Raises `MissingTextFeatures`."""
        entries = self._find(captions)
        rows = [self._rows(entry) for entry in entries]
        width = max(1, *(len(row) for row in rows)) if rows else 1
        features = torch.zeros(len(rows), width, self.width, dtype=DTYPES[self.dtype])
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            features[i, : len(row)], mask[i, : len(row)] = row, True
        tokens = torch.tensor([self._tokens[entry] for entry in entries])
        return TextFeatures(features.to(self.device), mask.to(self.device), tokens)

    def check_encoder(self, sha256: str | None, width: int | None, max_tokens: int) -> None:
        """Raise ``ValueError`` unless these are features of the encoder with this hash, for a model of this width."""
        if width is not None and width != self.width:
            raise FileError(
                f"{self.path} holds features of {self.encoder!r}, {self.width} wide; this model reads {width}"
            )
        if max_tokens != self.max_tokens:
            raise FileError(
                f"{self.path} holds the first {self.max_tokens} tokens of each text, this model is shown {max_tokens}; "
                "make them again: hftrainer data text-features"
            )
        if sha256 is not None and self.encoder_sha256 != sha256:
            raise FileError(
                f"{self.path} was made by another text encoder: {self.encoder!r} with weights "
                f"{self.encoder_sha256[:12]}, this model's are {sha256[:12]}; make it again with this model's: "
                "hftrainer data text-features"
            )

    def check_kind(self, part: Part) -> None:
        """Raise ``ValueError`` unless these are features of such an encoder, pooled in this way."""
        wanted = kind_of(part.name, part.config)
        if wanted != self.kind:
            raise FileError(
                f"{self.path} holds features of {spell_kind(self.kind)}, the model's text encoder is "
                f"{spell_kind(wanted)}; make them again: hftrainer data text-features"
            )

    def part(self) -> Part:
        """The encoder that made these features, as a part of a configuration; its weights come from nowhere yet."""
        return TEXT_ENCODERS.part({**self.kind, "source": "text_encoder", "max_tokens": self.max_tokens})

    def _find(self, captions: Sequence[str]) -> list[int]:
        if isinstance(captions, str):
            raise TypeError("captions must be a list of strings, got one string")
        entries = [self._entries.get(text_hash(caption)) for caption in captions]
        missing = list(dict.fromkeys(c for c, entry in zip(captions, entries, strict=True) if entry is None))
        if missing == [NO_TEXT]:
            raise MissingTextFeatures(
                f"{self.path} has no features of an empty text, which guidance (guidance_scale) and task.text_dropout "
                "read; make it again (hftrainer data text-features), or set guidance_scale to 1"
            )
        if missing:
            shown = "".join(f"\n  {text!r}" for text in missing[:10])
            more = f"\n  ... and {len(missing) - 10} more" if len(missing) > 10 else ""
            raise MissingTextFeatures(
                f"{len(missing)} prompts have no stored features in {self.path}, which holds {len(self)} texts:{shown}"
                f"{more}\nAdd them on a machine with the text encoder (hftrainer data text-features --prompts ...), or "
                "load the model with its text encoder"
            )
        return [entry for entry in entries if entry is not None]

    def _rows(self, entry: int) -> Tensor:
        start, stop = self._starts[entry], self._starts[entry + 1]
        piece = bisect_right(self._pieces, start) - 1
        offset = self._pieces[piece]
        return self._state[f"features.{piece}"][start - offset : stop - offset]

    def _read_index(self) -> None:
        needed = ("hashes", "tokens", "starts", "texts", "text_starts", "features.0")
        missing = [name for name in needed if name not in self._state]
        if missing or self.dtype not in DTYPES:
            raise CheckpointError(f"{self.path} is damaged: missing {missing}, dtype {self.dtype!r}")
        self._entries = {bytes(row): i for i, row in enumerate(self._state["hashes"].numpy())}
        self._tokens = self._state["tokens"].tolist()
        self._starts = self._state["starts"].tolist()
        shapes = [self._state.shape_of(f"features.{i}") for i in range(len(self._state) - len(needed) + 1)]
        self._pieces = [0, *accumulate(rows for rows, _ in shapes)]
        n = len(self._entries)
        ordered = all(a <= b for a, b in pairwise(self._starts))
        if (len(self._tokens), len(self._starts)) != (n, n + 1) or not ordered or self._starts[-1] != self._pieces[-1]:
            raise CheckpointError(f"{self.path} is damaged: {n} texts do not fit its {self._pieces[-1]} rows")
        if any(shape[1] != self.width for shape in shapes):
            raise CheckpointError(f"{self.path} is damaged: its features are not all {self.width} wide")


def text_hash(text: str) -> bytes:
    """What a text is looked up by."""
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class FeatureSize:
    """How much there would be to store: different `texts`, their `rows` of features, and `bytes` of the file."""

    texts: int
    rows: int
    bytes: int

    def line(self, path: str | os.PathLike[str]) -> str:
        """What to tell before it is written."""
        mean = self.rows / max(1, self.texts)
        return f"{self.texts} texts, {mean:.1f} tokens each: {self.bytes / 1e9:.3f} GB -> {path}"

    def check_room(self, path: str | os.PathLike[str]) -> None:
        """Raise ``ValueError`` where the disk cannot hold it, before hours are spent."""
        folder = next(parent for parent in Path(path).absolute().parents if parent.is_dir())
        free = shutil.disk_usage(folder).free
        if self.bytes > free:
            raise ValueError(
                f"the features would take {self.bytes / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB left; store "
                "them as bfloat16, for fewer texts, or let training encode text in its steps (the default)"
            )


def estimate_text_features(texts: Iterable[str], encoder: BaseTextEncoder, *, dtype: str = "float32") -> FeatureSize:
    """The size of what `write_text_features` would write, without the empty text; texts are tokenized and nothing is
    encoded."""
    different = list(dict.fromkeys(texts))
    kept = encoder.positions(encoder.count_tokens(different)) if different else []
    # beside the features: a hash, a token count, two offsets, and the text itself
    index = sum(32 + 4 + 8 + 8 + len(text.encode()) for text in different)
    return FeatureSize(len(different), sum(kept), sum(kept) * encoder.width * DTYPES[dtype].itemsize + index)


@torch.inference_mode()
def write_text_features(
    path: str | os.PathLike[str],
    texts: Iterable[str],
    encoder: BaseTextEncoder,
    *,
    dtype: str = "float32",
    batch_size: int = 32,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> int:
    """Encode texts into a file that `StoredTextFeatures` reads; how many different ones there are.

    An empty text is stored beside them, as guidance and `task.text_dropout` read it; it is not counted. Texts of like
    length are encoded together, and one batch is in memory at a time.
    """
    if dtype not in DTYPES:
        raise ValueError(f"features are stored as one of {sorted(DTYPES)}, got {dtype!r}")
    different = list(dict.fromkeys(texts))
    if not different or any(not text.strip() for text in different):
        raise ValueError(f"expected texts to encode, got {len(different)} of which some are empty or there are none")
    stored = [*different, NO_TEXT]
    counts = dict(zip(stored, encoder.count_tokens(stored), strict=True))
    ordered = sorted(stored, key=lambda text: counts[text])
    kept = encoder.positions([counts[text] for text in ordered])
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    utf8 = [text.encode() for text in ordered]
    small = {
        "hashes": torch.tensor([list(text_hash(text)) for text in ordered], dtype=torch.uint8),
        "tokens": torch.tensor([counts[text] for text in ordered], dtype=torch.int32),
        "starts": torch.tensor([0, *accumulate(kept)]),
        "texts": torch.from_numpy(np.frombuffer(b"".join(utf8), np.uint8).copy()),
        "text_starts": torch.tensor([0, *accumulate(map(len, utf8))]),
    }
    types = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in small.items()}
    for i in range(len(batches)):
        rows = sum(kept[i * batch_size : (i + 1) * batch_size])
        types[f"features.{i}"] = (DTYPES[dtype], (rows, encoder.width))
    waiting = iter(progress(batches))

    def load(name: str) -> Tensor:
        if name in small:
            return small[name]
        found: TextFeatures = encoder(next(waiting))
        return found.features[found.mask].to(DTYPES[dtype])

    name = TEXT_ENCODERS.name_of(type(encoder)) or type(encoder).__name__
    about = {
        "format": FORMAT, "encoder": encoder.name, "encoder_sha256": encoder.sha256(), "dtype": dtype,
        "kind": json.dumps(kind_of(name, encoder.config)),
        "pooled": str(encoder.positions([2, 3]) == [1, 1]).lower(), "computed_in": encoder.config.dtype,
        "max_tokens": str(encoder.max_tokens), "width": str(encoder.width),
    }  # fmt: skip
    write_safetensors(path, types, load, metadata=about)
    return len(different)
