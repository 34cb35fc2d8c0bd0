"""Captions and codes in flat columns, and the rules by which training rows are drawn from them, batches at a time.

The columns are built in memory from a dataset folder (`text_tokens`) or mapped from a packed set (`packed_tokens`); the
rows are drawn by the same code, so the same seed gives the same batch from both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hftrainer.config import ConfigError, renamed
from hftrainer.data.draws import below, uniform
from hftrainer.data.order import BatchPlan, Item, weights_of_groups
from hftrainer.fields import number
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.readers import FileError

Int64 = NDArray[np.int64]
Row = tuple[str, Int64]


class TokenBatch(NamedTuple):
    """`captions` (b strings), `codes` (b, l) int64, -1 past `lengths` (b,)."""

    captions: list[str]
    codes: Tensor
    lengths: Tensor


class Label(NamedTuple):
    """A label: the number of each clip's value (clips,), -1 without one, and the `values`."""

    ids: NDArray[np.int32]
    values: list[str]


@dataclass
class TokenTable:
    """Columns of n entries of m clips with k captions. An entry is a clip's codes, perhaps from its second frame on.

    `codes` of all entries one after the other, entry i from ``offsets[i]`` on, `offsets` (n + 1,); `clips` (n,), the
    clip of each entry; captions of clip j from ``first_caption[j]`` on, `first_caption` (m + 1,); caption c is the
    UTF-8 of ``text[text_offsets[c] : text_offsets[c + 1]]`` and about the seconds `spans` (k, 2), both 0 for all of a
    clip (None: all are). `folder`: where the columns are mapped from; other processes map them again, not copy them.
    """

    codes: NDArray[Any]
    offsets: Int64
    clips: NDArray[Any]
    first_caption: Int64
    text: NDArray[np.uint8]
    text_offsets: Int64
    spans: NDArray[np.float64] | None
    codebook_size: int
    frames_per_code: int
    representation: str = DEFAULT  # of the motions that became codes
    labels: dict[str, Label] = field(default_factory=dict)
    folder: str | None = None

    def __post_init__(self) -> None:
        self._text = self.text.data

    def __getstate__(self) -> dict[str, Any]:
        if self.folder is not None:
            return {"folder": self.folder}
        return {name: value for name, value in self.__dict__.items() if name != "_text"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if list(state) == ["folder"]:
            from hftrainer.data.flat import PackedTokens

            state = PackedTokens(state["folder"]).table.__dict__
        self.__dict__.update(state)
        self._text = self.text.data

    def captions(self, numbers: Iterable[int]) -> list[str]:
        """Captions by number."""
        text, offsets = self._text, self.text_offsets
        return [str(text[offsets[n] : offsets[n + 1]], "utf-8") for n in numbers]

    def stretches(self, starts: Int64, lengths: Int64) -> NDArray[Any]:
        """The codes of stretches (n,), one after the other (sum of lengths,)."""
        ends = np.cumsum(lengths)
        places = np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
        codes: NDArray[Any] = self.codes[places]
        return codes


@dataclass
class TokenRules:
    """How rows are drawn; the release's rules as defaults.

    A batch has `batch_size` rows, or with `batch_tokens` as many as fit so many codes and ENDs, padding included.
    `drop_token`: chance that one code is dropped, at the end or at the start with equal chance. `token_keep_prob`:
    chance that a code is kept and not replaced by a random one (upstream's pkeep; -1 draws one for each clip). A clip
    longer than `max_tokens` is cut to a random stretch of that length, or with `shortest_stretch` of any length from
    there on. `crop`: the label which says of what clips any part fits the captions ("single" of a caption table): three
    in four rows of those are cut to a random stretch, however long they are, and other clips keep their start. `fps`:
    at which captions' seconds are frames; that of the motions which became codes unless it is said. `balance`: the
    label whose values are drawn equally often, to the degree `balance_power`; clips whose
    label is "joined" make up the share `joined` of what is drawn. `curriculum`: passes over the data in which short
    rows come before long ones.
    """

    train_split: str = "train"
    val_split: str | None = "val"
    batch_size: int = number(16, at_least=1)
    batch_tokens: int | None = number(None, at_least=1)
    max_tokens: int = number(150, at_least=1)
    shortest_stretch: int | None = number(None, at_least=1)
    crop: str | None = None
    fps: float | None = number(None, above=0)
    drop_token: float = number(1 / 3, at_least=0, at_most=1)
    token_keep_prob: float = number(1.0, at_least=-1, at_most=1)
    balance: str | None = None
    balance_power: float = number(1.0, at_least=0, at_most=1)
    joined: float | None = number(None, at_least=0, at_most=1)
    curriculum: float = number(0.0, at_least=0)
    val_batch_size: int = number(16, at_least=1)

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """Names of an earlier release."""
        return renamed(fields, path, {"keep": "token_keep_prob", "evenness": "balance_power"})

    def __post_init__(self) -> None:
        if -1 < self.token_keep_prob < 0:
            raise ConfigError(f"token_keep_prob must be a probability, or -1, got {self.token_keep_prob}")


class TokenRows(Dataset[Row]):
    """The training rows of some entries of a table, batches drawn at once (`__getitems__`)."""

    def __init__(self, table: TokenTable, entries: NDArray[Any], rules: TokenRules):
        self.table, self.rules = table, rules
        self.entries: Int64 = np.asarray(entries, dtype=np.int64)
        whole = table.offsets[self.entries + 1] - table.offsets[self.entries]
        self.lengths: Int64 = np.minimum(whole, rules.max_tokens)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, item: Item) -> Row:
        """A caption and codes; the same as in a batch."""
        batch = self.__getitems__([item])
        return batch.captions[0], batch.codes[0].numpy()

    def __getitems__(self, items: Sequence[Item]) -> TokenBatch:
        """Rows (index, seed) as a batch; each row depends only on its own seed. The data loader asks in this way."""
        numbers = np.array(items, dtype=np.int64).reshape(-1, 2)
        entries, seeds = self.entries[numbers[:, 0]], numbers[:, 1].astype(np.uint64)
        clips = self.table.clips[entries]
        first = self.table.first_caption[clips]
        captions = first + below(seeds, 0, self.table.first_caption[clips + 1] - first)
        starts, lengths = self._cut(*self._spans(entries, captions), seeds, self._croppable(clips))
        codes = self.table.stretches(starts, lengths)
        self._check(codes)
        if self.rules.token_keep_prob != 1.0:
            codes = self._replace(codes, lengths, seeds)
        return _batch(self.table.captions(captions.tolist()), codes, lengths)

    def plain(self, indices: Sequence[int] | Int64) -> TokenBatch:
        """First caption and first codes of rows, nothing drawn."""
        entries = self.entries[np.asarray(indices, dtype=np.int64)]
        captions = self.table.first_caption[self.table.clips[entries]]
        starts, lengths = self._spans(entries, captions)
        lengths = np.minimum(lengths, self.rules.max_tokens)
        codes = self.table.stretches(starts, lengths)
        self._check(codes)
        return _batch(self.table.captions(captions.tolist()), codes, lengths)

    def _check(self, codes: NDArray[Any]) -> None:
        """END and PAD are no codes of a motion, and a number beyond the codebook is an index error on the device."""
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < self.table.codebook_size:
            raise ValueError(
                f"its codes are in {codes.min()}..{codes.max()}, the codebook has 0..{self.table.codebook_size - 1}; "
                "tokenize again"
            )

    def weights(self) -> NDArray[np.float64] | None:
        """How often each row is drawn, or None for a plain permutation."""
        rules = self.rules
        if rules.balance is None:
            return None
        if rules.balance not in self.table.labels:
            raise ValueError(f"balance: the data has no label {rules.balance!r}; it has {sorted(self.table.labels)}")
        ids, values = self.table.labels[rules.balance]
        mine = ids[self.table.clips[self.entries]]
        weights = weights_of_groups(mine + 1, balance_power=rules.balance_power)
        joined = mine == (values.index("joined") if "joined" in values else -2)
        if rules.joined is not None and joined.any():
            weights[joined] *= rules.joined / weights[joined].sum()
            weights[~joined] *= (1 - rules.joined) / weights[~joined].sum()
        return weights

    def _spans(self, entries: Int64, captions: Int64) -> tuple[Int64, Int64]:
        """Where the part of each entry that its caption is about starts, and how long it is."""
        starts, ends = self.table.offsets[entries], self.table.offsets[entries + 1]
        if self.table.spans is None:
            return starts, ends - starts
        spans = self.table.spans[captions]
        fps = self.rules.fps or get_representation(self.table.representation).fps
        parts = (spans * (fps / self.table.frames_per_code)).astype(np.int64)
        first, last = starts + parts[:, 0], np.minimum(starts + parts[:, 1], ends)
        about_part = spans.any(axis=1) & (last > first)
        return np.where(about_part, first, starts), np.where(about_part, last - first, ends - starts)

    def _croppable(self, clips: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which rows may be cut anywhere, by the label `crop`; None where no label says."""
        if self.rules.crop is None:
            return None
        if self.rules.crop not in self.table.labels:
            raise ValueError(f"crop: the data has no label {self.rules.crop!r}; it has {sorted(self.table.labels)}")
        ids, values = self.table.labels[self.rules.crop]
        fits: NDArray[np.bool_] = ids[clips] == (values.index("True") if "True" in values else -2)
        return fits

    def _cut(
        self, starts: Int64, lengths: Int64, seeds: NDArray[np.uint64], croppable: NDArray[np.bool_] | None
    ) -> tuple[Int64, Int64]:
        """Cut what is too long, or may be cut anywhere; then perhaps drop a code."""
        longest = self.rules.max_tokens
        shortest = self.rules.shortest_stretch or longest
        if croppable is None:
            stretch = np.where(lengths > longest, shortest + below(seeds, 1, longest - shortest + 1), lengths)
            starts = starts + below(seeds, 2, lengths - stretch + 1)
        else:
            whole = np.minimum(lengths, longest)
            some = shortest + below(seeds, 1, np.maximum(whole - shortest, 0) + 1)
            cut = croppable & (whole > shortest) & (uniform(seeds, 6) < 0.75)
            stretch = np.where(cut, some, whole)
            starts = starts + np.where(croppable, below(seeds, 2, lengths - stretch + 1), 0)
        drop = (stretch > 1) & (uniform(seeds, 3) < self.rules.drop_token)
        return starts + (drop & (uniform(seeds, 4) < 0.5)), stretch - drop

    def _replace(self, codes: NDArray[Any], lengths: Int64, seeds: NDArray[np.uint64]) -> Int64:
        """Random codes in place of those that are not kept."""
        keep = (
            uniform(seeds, 5) if self.rules.token_keep_prob == -1 else np.full(len(seeds), self.rules.token_keep_prob)
        )
        ends = np.cumsum(lengths)
        places = np.arange(len(codes)) - np.repeat(ends - lengths, lengths)
        each, counters = np.repeat(seeds, lengths), 16 + 2 * places  # the counters below 16 are the row's own
        noise = below(each, counters + 1, self.table.codebook_size)
        return np.where(uniform(each, counters) < np.repeat(keep, lengths), codes, noise)


class PlainBatches(Sequence[TokenBatch]):
    """Validation batches of like length: complete rows with their first caption, made when they are asked for."""

    def __init__(self, rows: TokenRows, batch_size: int):
        self.rows, self.batch_size = rows, batch_size
        self.order = np.argsort(rows.lengths, kind="stable")

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    @overload
    def __getitem__(self, number: int) -> TokenBatch: ...
    @overload
    def __getitem__(self, number: slice) -> list[TokenBatch]: ...
    def __getitem__(self, number: int | slice) -> TokenBatch | list[TokenBatch]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        start = number % len(self) * self.batch_size
        return self.rows.plain(self.order[start : start + self.batch_size])


def join_batches(batches: Sequence[TokenBatch]) -> TokenBatch:
    """The rows of several batches in one."""
    width = max(batch.codes.shape[1] for batch in batches)
    codes = [torch.nn.functional.pad(batch.codes, (0, width - batch.codes.shape[1]), value=-1) for batch in batches]
    captions = [caption for batch in batches for caption in batch.captions]
    return TokenBatch(captions, torch.cat(codes), torch.cat([batch.lengths for batch in batches]))


class TokenSource:
    """What training asks of a data set of captions and codes; where its rows come from is the subclass's."""

    config: TokenRules
    join = staticmethod(join_batches)

    def rows(self, split: str) -> TokenRows:
        """The entries of a split."""
        raise NotImplementedError

    def train(self) -> TokenRows:
        """Pairs of the training split."""
        return self.rows(self.config.train_split)

    def plan(self, train: TokenRows, seed: int) -> BatchPlan:
        """Order of training, balanced if asked for."""
        rules = self.config
        return BatchPlan(
            train.lengths, rules.batch_size, seed, train.weights(), max_tokens=rules.batch_tokens or 0,
            curriculum=rules.curriculum,
        )  # fmt: skip

    def val(self) -> Sequence[TokenBatch]:
        """Whole clips with their first caption, unaltered."""
        if self.config.val_split is None:
            return []
        return PlainBatches(self.rows(self.config.val_split), self.config.val_batch_size)


def as_batch(batch: TokenBatch) -> TokenBatch:
    """The collate function of rows that come as a batch."""
    return batch


def pack_texts(texts: Sequence[str]) -> tuple[NDArray[np.uint8], Int64]:
    """Strings as one array of UTF-8 bytes, and where each starts (n + 1,)."""
    utf8 = [text.encode() for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in utf8], dtype=np.int64)])
    return np.frombuffer(b"".join(utf8), np.uint8), offsets.astype(np.int64)


def label_of(values: Sequence[str | None]) -> Label:
    """A label from the value of each clip."""
    known = sorted({value for value in values if value is not None})
    number = {value: i for i, value in enumerate(known)}
    return Label(np.array([-1 if v is None else number[v] for v in values], dtype=np.int32), known)


def check_made_by(folder: str | os.PathLike[str], made_by: str | None, fingerprint: str) -> None:
    """Raise ``ValueError`` unless codes were made by the tokenizer with this hash."""
    if made_by != fingerprint:
        raise FileError(
            f"the tokens in {folder} were made by another tokenizer "
            f"({str(made_by)[:12]}, this one is {fingerprint[:12]}); tokenize again"
        )


def _batch(captions: list[str], codes: NDArray[Any], lengths: Int64) -> TokenBatch:
    width = int(lengths.max()) if len(lengths) else 0
    out = np.full((len(lengths), width), -1, dtype=np.int64)
    out[np.arange(width) < lengths[:, None]] = codes
    return TokenBatch(captions, torch.from_numpy(out), torch.from_numpy(lengths.astype(np.int64)))
