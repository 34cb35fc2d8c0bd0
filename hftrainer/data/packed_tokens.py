"""Captions and motion codes from a packed set: the same batches as `text_tokens`, however many clips there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hftrainer.data.packed import PackedTokens
from hftrainer.data.plan import BatchPlan
from hftrainer.data.token_rows import PlainBatches, TokenBatch, TokenRows, TokenRules, as_batch
from hftrainer.registry import DATASETS


@dataclass
class PackedTextTokensConfig(TokenRules):
    """A folder written by ``hftrainer data pack-tokens``; see `TokenRules` for the rest."""

    root: str = "dataset/MotionMillion/packed"


@DATASETS.register("packed_tokens")
class PackedTextTokens:
    """Training and validation pairs of a packed set. Nothing but the order of an epoch is held in memory."""

    Config = PackedTextTokensConfig
    collate = staticmethod(as_batch)

    def __init__(self, config: PackedTextTokensConfig):
        self.config = config
        self.tokens = PackedTokens(config.root)
        self.statistics = self.tokens.statistics()

    def train(self) -> TokenRows:
        """Pairs of the training split."""
        return self.rows(self.config.train_split)

    def plan(self, train: TokenRows, seed: int) -> BatchPlan:
        """Order of training, balanced if asked for."""
        return BatchPlan(train.lengths, self.config.batch_size, seed, train.weights())

    def val(self) -> Sequence[TokenBatch]:
        """Whole clips with their first caption, unaltered."""
        if self.config.val_split is None:
            return []
        return PlainBatches(self.rows(self.config.val_split), self.config.val_batch_size)

    def rows(self, split: str) -> TokenRows:
        """The entries of a split."""
        return TokenRows(self.tokens.table, self.tokens.split(split), self.config)
