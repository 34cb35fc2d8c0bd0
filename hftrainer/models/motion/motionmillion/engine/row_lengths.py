"""Attention on CUDA that reads each row only as far as the row goes. Optional reading.

With one mask for all rows, every row is read as far as the longest. FlashAttention takes the number of slots that each
row has used as a tensor on the device, so that one CUDA graph serves all lengths, nothing is compiled, and the host
does not need to know them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hftrainer.models.motion.motionmillion.network.attention import attend

log = logging.getLogger(__name__)

FROM = 32  # rows from which this is used: with fewer, reading the weights takes far longer than reading the cache
Kernel = Callable[..., Any]


class RowLengths:
    """Each of b rows sees its slots 0 .. position, of `slots` that it has room for; computed by `find_kernel`'s."""

    def __init__(self, positions: Tensor, slots: int, kernel: Kernel):
        rows = torch.arange(len(positions) + 1, dtype=torch.int32, device=positions.device)
        self.slots, self.used, self.kernel = slots, (positions + 1).int(), kernel
        self.query_starts, self.key_starts = rows, rows * slots

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """As `network.attention.attend`, for one query a row and keys laid out as `KVCache` does on CUDA."""
        size, width = q.shape[-1], k.shape[-1]
        queries = F.pad(q[:, :, 0].to(k.dtype), (0, width - size))
        keys, values = (x.transpose(1, 2).view(-1, *queries.shape[1:]) for x in (k, v))
        out: Tensor = self.kernel(
            queries, keys, values, self.query_starts, self.key_starts, 1, self.slots, scale=scale,
            seqused_k=self.used, num_splits=1,
        )  # fmt: skip
        return out[:, :, None, :size].to(q.dtype)


def find_kernel(like: Tensor, heads: int, head_size: int) -> Kernel | None:
    """torch's attention by row lengths for the device and dtype of `like`, if there is one that computes what masks do.

    It is tried on two rows; a warning says if it runs but is wrong. It takes 16-bit numbers only, and torch has it
    from version 2.12 on.
    """
    if like.device.type != "cuda" or like.dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    if not {"seqused_k", "num_splits"} <= set(inspect.signature(varlen_attn).parameters):
        return None
    kernel: Kernel = varlen_attn
    positions = torch.tensor([2, 40], device=like.device)
    numbers = torch.linspace(-1, 1, 2 * 2 * 64 * heads * head_size, device=like.device).mul(1e4).sin()
    k, v = numbers.to(like.dtype).view(2, 2, 64, heads, head_size).transpose(2, 3)
    q = k[:, :, 5:6].contiguous()
    seen = torch.arange(64, device=like.device) <= positions[:, None]
    mask = torch.zeros(seen.shape, device=like.device).masked_fill(~seen, -torch.inf)[:, None, None]
    scale = head_size**-0.5
    try:
        got = RowLengths(positions, 64, kernel).attend(q, k, v, scale)
    except (RuntimeError, NotImplementedError) as error:
        log.info("no attention by row lengths: %s", str(error).splitlines()[0])
        return None
    worst = float((got.float() - attend(q.float(), k.float(), v.float(), mask, scale)).abs().max())
    if worst > 0.02:  # values lie within 1, of which bfloat16 keeps 8 bits
        log.warning("attention by row lengths is off by %.2g on %s: masks are used instead", worst, like.device)
        return None
    return kernel
