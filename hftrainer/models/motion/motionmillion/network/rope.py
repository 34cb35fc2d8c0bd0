"""Rotary position embedding over adjacent channel pairs (2j, 2j + 1), as complex numbers times e^(i pos theta_j)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

ROPE_DTYPES = ("float32", "bfloat16")


@lru_cache(maxsize=16)
def rope_table(positions: int, head_size: int, dtype: str, device: torch.device, base: float = 10_000.0) -> Tensor:
    """Cosines and sines (positions, head_size / 2, 2) of the angles pos * base ** (-2j / head_size), in float32.

    `dtype` "float32" is exact. "bfloat16" rounds as upstream does when the first activation that its model sees is
    bfloat16 (DeepSpeed training, or ``.bfloat16()``): exponent, frequency, position and their product are each
    rounded to bfloat16, cosine and sine to float16. Positions above 256 then share angles.
    A function and not a buffer: ``module.to(torch.bfloat16)`` must not change it.
    """
    if dtype not in ROPE_DTYPES:
        raise ValueError(f"rope_dtype must be one of {ROPE_DTYPES}, got {dtype!r}")
    rounding = getattr(torch, dtype)
    # a table that was first needed while sampling must also serve training
    with torch.inference_mode(False), torch.device("cpu"):
        exponent = torch.arange(0, head_size, 2, dtype=rounding) / head_size
        frequency = 1.0 / base**exponent
        angle = torch.outer(torch.arange(positions, dtype=rounding), frequency).float()
        table = torch.stack([angle.cos(), angle.sin()], dim=-1)
        if rounding == torch.bfloat16:
            table = table.half().float()
        return table.to(device)


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate x (b, heads, t, head_size) by `table`, (t, head_size / 2, 2) or (b, t, head_size / 2, 2).

    Computed in float32 (float64 for float64 input) and returned in the dtype of `x`.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    pairs = torch.view_as_complex(wide.reshape(*wide.shape[:-1], -1, 2))
    turns = torch.view_as_complex(table.to(wide.dtype))
    if turns.ndim == 3:
        turns = turns[:, None]
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)
