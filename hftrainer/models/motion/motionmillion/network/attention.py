"""Scaled dot-product attention, by the kernels that take it as it comes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

HEAD_MULTIPLE = 8  # what CUDA's kernels want of a head's size; others fall to one that writes all scores out
# cuDNN's, which would come first, builds a plan for every new shape, about half a second each
_CUDA_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class Reads(Protocol):
    """What each row may see, where one mask for all rows would make most of them read too much."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """As `attend`."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Reads | None, scale: float) -> Tensor:
    """softmax(q k^T * scale + mask) v: q (b, heads, t, s), k and v (b, heads, keys, s' >= s), out like q.

    `mask` broadcasts to (b, heads, t, keys): 0 where a query may look, -inf elsewhere. Keys may be padded with channels
    of zero, and of another dtype than queries. Padding is exact: a channel that is zero in keys adds nothing to scores,
    one that is zero in values nothing to outputs.
    """
    if mask is not None and not isinstance(mask, Tensor):
        return mask.attend(q, k, v, scale)
    size, dtype = q.shape[-1], q.dtype
    width = max(k.shape[-1], padded_head(size, q.device))
    q, k, v = (F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x for x in (q.to(k.dtype), k, v))
    mask = mask.to(q.dtype) if mask is not None else None
    if q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu":
        return _written_out(q, k, v, mask, scale)[..., :size].to(dtype)
    with _kernels(q.device):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out[..., :size].to(dtype)


def _written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The formula. On CPUs the bfloat16 kernel's backward pass takes three times as long for rows of motion codes."""
    scores = (q @ k.transpose(-1, -2)) * scale
    return (scores if mask is None else scores + mask).softmax(dim=-1).to(v.dtype) @ v


def padded_head(size: int, device: torch.device) -> int:
    """Channels of a head as the kernels of `device` want them: 104 of 3B's 100 on CUDA."""
    return -(-size // HEAD_MULTIPLE) * HEAD_MULTIPLE if device.type == "cuda" else size


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, -inf elsewhere. Made once for all layers; a mask of truth values is converted in each."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


def _kernels(device: torch.device) -> AbstractContextManager[None]:
    return sdpa_kernel(_CUDA_BACKENDS) if device.type == "cuda" else nullcontext()
