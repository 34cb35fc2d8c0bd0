"""Operations that torch has for CUDA only, from their definition, for the pretend device.

They refuse what the kernels refuse.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F

ATTENDED = [{torch.float16}, {torch.bfloat16}]  # dtypes of FlashAttention


def _mm_dtype(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.mm(a.float(), b.float()).to(dtype)


def _varlen_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_starts: torch.Tensor,
    k_starts: torch.Tensor,
    longest_q: int,
    longest_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: Any = None,
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """FlashAttention for one query a row, with what its kernel asks of its arguments; reads no slot beyond a row's."""
    rows, heads, size = q.shape
    if {x.dtype for x in (q, k, v)} not in ATTENDED:
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    if size % 8 or size > 256 or any(x.stride(-1) != 1 for x in (q, k, v)):
        raise RuntimeError("head sizes must be a multiple of 8, at most 256, and contiguous")
    assert seqused_k is not None
    assert (is_causal, longest_q) == (False, 1)
    for numbers in (q_starts, k_starts, seqused_k):
        if numbers.dtype != torch.int32 or not numbers.is_contiguous():
            raise RuntimeError("cu_seqlens_q, cu_seqlens_k and seqused_k must have dtype int32 and be contiguous")
    slots = len(k) // rows
    starts = torch.arange(rows + 1, dtype=torch.int32)
    if not torch.equal(q_starts, starts) or not torch.equal(k_starts, starts * slots) or longest_k < slots:
        raise RuntimeError("here, rows have one query and as many slots each")
    if seqused_k.shape != (rows,) or not bool(((seqused_k >= 1) & (seqused_k <= slots)).all()):
        raise RuntimeError(f"rows read 1 to {slots} slots, got {seqused_k.tolist()}")
    read = torch.arange(slots) < seqused_k[:, None]
    keys, values = (
        x.view(rows, slots, heads, size).float().masked_fill(~read[:, :, None, None], 0.0).transpose(1, 2)
        for x in (k, v)
    )
    mask = read[:, None, None]
    out = F.scaled_dot_product_attention(q.float()[:, :, None], keys, values, attn_mask=mask, scale=scale)
    out = out[:, :, 0].to(q.dtype)
    return out, q.new_zeros(heads, rows, dtype=torch.float32), q.new_zeros(2, dtype=torch.uint64)


_mm_dtype._schema = torch.ops.aten.mm.dtype._schema  # type: ignore[attr-defined]
with contextlib.suppress(ImportError):
    from torch.nn.attention import varlen

    _varlen_attn._schema = varlen._varlen_attn._opoverload._schema  # type: ignore[attr-defined]

# what CPUs have no kernel for, computed from its definition
OURS: dict[tuple[str, str], Any] = {("mm", "dtype"): _mm_dtype, ("_varlen_attn", "default"): _varlen_attn}
