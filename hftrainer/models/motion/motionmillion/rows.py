"""How text and motion share a row of the transformer."""

from __future__ import annotations

import torch
from torch import Tensor


def build_prefix_sequences(codes: Tensor, lengths: Tensor, text_lengths: Tensor, end_id: int, pad_id: int) -> Tensor:
    """Rows (b, t) of ids: as many PAD as a row has text, its codes, END, and PAD up to the longest row."""
    device = codes.device
    text_lengths, lengths = text_lengths.to(device), lengths.to(device)
    width = int((text_lengths + lengths).max()) + 1
    place = torch.arange(width, device=device)[None] - text_lengths[:, None]
    inside = (place >= 0) & (place < lengths[:, None])
    ids = codes.gather(1, place.clamp(0, codes.shape[1] - 1))
    rows = torch.where(inside, ids, pad_id)
    return torch.where(place == lengths[:, None], end_id, rows)
