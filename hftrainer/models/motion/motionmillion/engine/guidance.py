"""Classifier-free guidance: rows are also decoded without their text, and what the text changes is enlarged.

Ho and Salimans, Classifier-free diffusion guidance, arXiv 2207.12598, for logits: free + scale * (with text - free). A
guided step takes the time and memory of two. The model must have been trained with empty texts (`task.text_dropout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, Prefix
from hftrainer.models.motion.motionmillion.network.kv_cache import KVCache


class Guidance:
    """What the rows of a `DecodeBatch` are without their texts, and the `scales` (rows,) of guidance; 1 is none."""

    _PER_ROW = ("inputs", "text", "scales")

    def __init__(self, model: InferenceLLaMA, rows: int, max_seq_len: int):
        self.model = model
        self.cache: KVCache = model.new_cache(rows, max_seq_len)
        self.text = torch.zeros(rows, dtype=torch.long, device=model.device)
        self.inputs = model.embed(torch.full((rows,), model.config.pad_id, device=model.device))
        self.scales = torch.ones(rows, device=model.device)

    def fill(self, rows: Tensor, prefix: Prefix, scales: Tensor) -> None:
        """Put the only text of `prefix`, an empty one, into rows (r,) with their scales (r,)."""
        theirs = torch.zeros_like(rows)
        self.cache.write(rows, prefix.cache, theirs)
        self.inputs[rows], self.text[rows] = prefix.last[theirs], prefix.lengths[theirs]
        self.scales[rows] = scales.to(self.scales)

    def release(self, rows: Tensor) -> None:
        """Rows (r,) that are free."""
        self.text[rows], self.scales[rows] = 0, 1.0

    def hidden(self, counts: Tensor, kv_len_bound: int) -> Tensor:
        """Last hidden states (rows, d) after `counts` (rows,) codes."""
        return self.model.decode(self.inputs, (self.text + counts - 1).clamp(min=0), self.cache, kv_len_bound)

    def logits(self, hidden: Tensor, free: Tensor, may_end: Tensor) -> Tensor:
        """Guided logits (rows, v - 1) of hidden states with and without text; those of a scale of 1 are unchanged."""
        given, without = self.model.logits(hidden), self.model.logits(free)
        scales = self.scales[:, None].to(given.dtype)
        guided = torch.where(scales == 1, given, without + scales * (given - without))
        guided[:, self.model.config.end_id].masked_fill_(~may_end, -torch.inf)
        return guided

    def move(self, moves: Sequence[tuple[int, int]], kv_lens: Sequence[int]) -> None:
        """As `DecodeBatch.move`."""
        for source, target in moves:
            self.cache.move(source, target, kv_lens[source])
        sources, targets = torch.tensor(moves, device=self.text.device).T
        for name in self._PER_ROW:
            tensor: Tensor = getattr(self, name)
            tensor[targets] = tensor[sources]

    def first(self, rows: int) -> Guidance:
        """The first `rows` rows, in the same memory."""
        part: Any = object.__new__(Guidance)
        part.__dict__.update(self.__dict__)
        for name in self._PER_ROW:
            setattr(part, name, getattr(self, name)[:rows])
        part.cache = self.cache.first(rows)
        return part  # type: ignore[no-any-return]
