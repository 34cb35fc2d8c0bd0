"""Cross-entropy of a linear head, a few rows at a time, with its gradient made in the same pass.

A step's logits (thousands of positions by 15,000 to 64,000 codes, in float32) leave a processor's caches many times:
for the head, the softmax, its gradient and two products. Here a block of them is made, used up and overwritten.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LOGITS = 1 << 23  # of a block: 32 MB of float32; smaller ones add to the head's gradient too often


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        rows = max(1, _LOGITS // len(weight))
        low, heads = x.detach().to(dtype), weight.detach().to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        total, right = x.new_zeros((), dtype=wide), x.new_zeros((), dtype=wide)
        of_x, of_weight = torch.empty_like(low), torch.zeros_like(weight, dtype=wide)
        for start in range(0, len(x), rows):
            part, wanted = low[start : start + rows], targets[start : start + rows, None]
            log_shares = (part @ heads.T).log_softmax(dim=-1, dtype=wide)
            of_target = log_shares.gather(1, wanted)
            total -= of_target.sum()
            right += (of_target >= log_shares.amax(dim=-1, keepdim=True)).sum()
            slope = log_shares.exp_()
            slope.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=slope.dtype))
            slope = slope.to(dtype)
            of_x[start : start + rows] = slope @ heads
            of_weight += slope.T @ part
        ctx.save_for_backward(of_x, of_weight)
        ctx.dtypes = x.dtype, weight.dtype
        share = right / len(x)
        ctx.mark_non_differentiable(share)
        return total / len(x), share

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_x, of_weight = ctx.saved_tensors
        scale = grads[0] / len(of_x)
        return (of_x * scale).to(ctx.dtypes[0]), (of_weight * scale).to(ctx.dtypes[1]), None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of ``cross_entropy(x @ weight.T, targets)``, and the share of rows whose arg-max is the target.

    `x` (n, d), `weight` (v, d), `targets` (n,) int64 below v; equal logits count as right. Products are made in the
    dtype of autocast where that is on, everything else in float32 or wider. The gradient is made with the loss, for one
    use.
    """
    kind = x.device.type
    dtype = (
        torch.get_autocast_dtype(kind)
        if torch.is_autocast_enabled(kind)
        else torch.promote_types(x.dtype, weight.dtype)
    )
    with torch.autocast(kind, enabled=False):
        loss, right = _LinearCrossEntropy.apply(x, weight, targets, dtype)  # type: ignore[no-untyped-call]
    return loss, right
