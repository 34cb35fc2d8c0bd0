"""Captions and motion codes of a dataset folder for the transformer. Text is encoded in the training step.

Everything but the codes is read into memory; for sets of a million clips there is `packed_tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hftrainer.data.folder import Caption, DatasetFolder
from hftrainer.data.tokens.folder import TokenSet
from hftrainer.data.tokens.table import (
    Label,
    TokenRows,
    TokenRules,
    TokenSource,
    TokenTable,
    as_batch,
    label_of,
    pack_texts,
)
from hftrainer.motion.representation.base import DEFAULT
from hftrainer.registry import DATASETS


@dataclass
class TextTokensConfig(TokenRules):
    """A dataset folder with captions and tokens/; see `TokenRules` for the rest."""

    root: str = "dataset/MotionMillion"
    tokens: str = "tokens"


@DATASETS.register("text_tokens")
class TextTokens(TokenSource):
    """Training and validation pairs of a dataset folder that has been captioned and tokenized."""

    Config = TextTokensConfig
    collate = staticmethod(as_batch)

    def __init__(self, config: TextTokensConfig):
        self.config = config
        self.folder = DatasetFolder(config.root)
        self.tokens = TokenSet(self.folder.root / config.tokens)
        self.representation = self.folder.representation
        self.statistics = self.folder.statistics() if (self.folder.root / "mean_std").is_dir() else None

    def rows(self, split: str) -> TokenRows:
        """Every entry of the token set whose clip is in `split`."""
        names = list(dict.fromkeys(self.folder.names(split)))
        number = {name: i for i, name in enumerate(names)}
        clips = np.array([number.get(name, -1) for name in self.tokens.names], dtype=np.int64)
        missing = sorted(set(names) - set(self.tokens.names))
        if missing:
            raise ValueError(
                f"{len(missing)} clips of split {split!r} are not in {self.tokens.folder}, "
                f"e.g. {missing[0]!r}; tokenize again"
            )
        captions = [self.folder.captions(name) for name in names]
        empty = sorted(name for name, found in zip(names, captions, strict=True) if not found)
        if empty:
            raise ValueError(f"{len(empty)} clips of split {split!r} have no caption, e.g. {empty[0]!r}")
        table = make_table(self.tokens, clips, captions, self._labels(names), self.representation)
        return TokenRows(table, np.flatnonzero(clips >= 0), self.config)

    def _labels(self, names: list[str]) -> dict[str, Label]:
        """The labels that draws are balanced by and clips cut by; a clip without one counts as a value of its own."""
        wanted = [label for label in (self.config.balance, self.config.crop) if label is not None]
        labels = self.folder.labels() if wanted else {}
        columns = {label: [labels.get(name, {}).get(label) for name in names] for label in wanted}
        if self.config.crop is not None and not any(value is not None for value in columns[self.config.crop]):
            raise ValueError(f"crop: no clip in labels.json has the label {self.config.crop!r}")
        return {label: label_of([None if v is None else str(v) for v in values]) for label, values in columns.items()}


def make_table(
    tokens: TokenSet,
    clips: np.ndarray,
    captions: list[list[Caption]],
    labels: dict[str, Label],
    representation: str = DEFAULT,
) -> TokenTable:
    """Columns in memory; `clips`: the clip of each entry of `tokens`, `captions`: those of each clip."""
    flat = [caption for found in captions for caption in found]
    text, offsets = pack_texts([caption.text for caption in flat])
    spans = np.array([(caption.start, caption.end) for caption in flat], dtype=np.float64).reshape(-1, 2)
    return TokenTable(
        codes=np.asarray(tokens.codes),
        offsets=tokens.offsets,
        clips=clips,
        first_caption=np.cumsum([0, *map(len, captions)], dtype=np.int64),
        text=text,
        text_offsets=offsets,
        spans=spans if spans.any() else None,
        codebook_size=tokens.codebook_size,
        frames_per_code=int(tokens.made_from["frames_per_code"]),
        representation=representation,
        labels=labels,
    )
