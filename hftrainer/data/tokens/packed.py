"""Captions and motion codes from a packed set: the same batches as `text_tokens`, however many clips there are."""

from __future__ import annotations

from dataclasses import dataclass

from hftrainer.data.flat import PackedTokens
from hftrainer.data.tokens.table import TokenRows, TokenRules, TokenSource, as_batch
from hftrainer.registry import DATASETS


@dataclass
class PackedTextTokensConfig(TokenRules):
    """A folder written by ``hftrainer data pack-tokens``; see `TokenRules` for the rest."""

    root: str = "dataset/MotionMillion/packed"


@DATASETS.register("packed_tokens")
class PackedTextTokens(TokenSource):
    """Training and validation pairs of a packed set. Nothing but the order of an epoch is held in memory."""

    Config = PackedTextTokensConfig
    collate = staticmethod(as_batch)

    def __init__(self, config: PackedTextTokensConfig):
        self.config = config
        self.tokens = PackedTokens(config.root)
        self.statistics = self.tokens.statistics()
        self.representation = self.tokens.representation

    def rows(self, split: str) -> TokenRows:
        """The entries of a split."""
        return TokenRows(self.tokens.table, self.tokens.split(split), self.config)
