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


def apply_rope(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate the last axis of `x` (..., s) by `rotary`, complex (..., s / 2) or its real view (..., s / 2, 2), which
    broadcasts to x's pairs.

    Computed in float32 (float64 for float64 input) and returned in the dtype of `x`; in place where no gradient is
    wanted and the arithmetic is that of `x`. A compiler fuses the real form, the complex one is the faster without.
    """
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if not rotary.is_complex():
        even, odd = wide[..., 0::2], wide[..., 1::2]
        cos, sin = rotary.unbind(dim=-1)
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(wide.view(*x.shape[:-1], -1, 2))
    if wide is x and not torch.is_grad_enabled():
        pairs.mul_(rotary)
        return x
    return torch.view_as_real(pairs * rotary).flatten(-2).to(x.dtype)
