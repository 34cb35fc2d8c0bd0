"""Classifier-free guidance: rows are also decoded without their text, and what the text changes is enlarged.

Ho and Salimans, Classifier-free diffusion guidance, arXiv 2207.12598, for logits: free + scale * (with text - free). A
guided step takes the time and memory of two. The model must have been trained with empty texts (`task.text_dropout`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.device_rows import DeviceRows
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, Prefix


class Guidance(DeviceRows):
    """What the rows of a `DecodeBatch` are without their texts, and the `scales` (rows,) of guidance; 1 is none."""

    per_row = ("inputs", "text", "scales")

    def __init__(self, model: InferenceLLaMA, rows: int, max_seq_len: int):
        self.model = model
        self.cache = model.new_cache(rows, max_seq_len)
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
