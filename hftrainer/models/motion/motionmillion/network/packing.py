"""Weights in the layout that a matrix product of few rows wants.

On a CPU, torch's own linear layer reads row-major weights at half of the speed that packed ones reach when a batch has
8 to 64 rows, the shapes of decoding: by MKL on Intel's processors, by oneDNN on others, where MKL is slow
(docs/performance.md has the ratios). Processors without bfloat16
instructions emulate them, three times slower than float32; there bfloat16 weights are multiplied in float32, which
rounds no more than the instructions do.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 32  # packed for so many rows: the layout is as good as any from 1 to 128
_SLICE = 256  # rows of weights cast at a time, so that the float32 copy stays in the processor's caches


def packable(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer, not a quantised or adapted one, in a dtype that CPUs compute in."""
    return (
        type(module) is nn.Linear
        and type(module.weight.data) is Tensor
        and module.weight.dtype in (torch.float32, torch.bfloat16)
    )


def pack_linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """x (..., in) to x @ weight.T (..., out), from a copy of `weight` (out, in) in a fast layout.

    On devices other than CPUs, and builds of torch without oneDNN, the copy is row-major.
    """
    weight = weight.detach().contiguous()
    if weight.device.type != "cpu" or not _has_onednn():
        return lambda x: F.linear(x, weight)
    if weight.dtype == torch.bfloat16 and emulates_bfloat16():
        many = pack_linear(weight.float())
        return _one_or_many(weight, lambda x: many(x.float()).bfloat16())
    if weight.dtype == torch.float32 and mkl_is_fast():
        return _pack_by_mkl(weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)

    def linear(x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")  # type: ignore[no-any-return]

    return linear


def unpacked_linear(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The product of a linear layer from its own weights, by the fastest way that makes no second copy of them."""
    if not isinstance(module, nn.Linear) or not packable(module) or module.weight.device.type != "cpu":
        return module
    weight = module.weight.detach()
    if weight.dtype != torch.bfloat16 or not emulates_bfloat16():
        return module

    def many(x: Tensor) -> Tensor:
        rows = x.float()
        return torch.cat([F.linear(rows, part.float()) for part in torch.split(weight, _SLICE)], dim=-1).bfloat16()

    return _one_or_many(weight, many)


def _pack_by_mkl(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """MKL's layout serves one number of rows: fewer are filled up, more taken in parts. A row's result does not depend
    on how many others there are, but for the ends of the range, where row-major weights are as good."""
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, _ROWS)

    def linear(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if not 2 < len(rows) <= 4 * _ROWS:
            return F.linear(x, weight)
        lacking = -len(rows) % _ROWS
        filled = F.pad(rows, (0, 0, 0, lacking)) if lacking else rows
        parts = [torch.ops.mkl._mkl_linear(part, packed, weight, None, _ROWS) for part in torch.split(filled, _ROWS)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return out[: len(rows)].view(*x.shape[:-1], -1)

    return linear


@functools.cache
def mkl_is_fast() -> bool:
    """Whether torch has MKL and this is one of the processors that it is made for."""
    described = Path("/proc/cpuinfo")
    processor = described.read_text() if described.is_file() else platform.processor()
    return bool(torch.backends.mkl.is_available()) and "GenuineIntel" in processor  # type: ignore[no-untyped-call]


def emulates_bfloat16() -> bool:
    """Whether this is an x86 processor without bfloat16 instructions."""
    supported: bool = torch.cpu._is_avx512_bf16_supported()
    return platform.machine().lower() in ("x86_64", "amd64") and not supported


def _one_or_many(weight: Tensor, many: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A product with one row runs at the speed of memory as it is."""

    def linear(x: Tensor) -> Tensor:
        if x.numel() == x.shape[-1]:
            return torch.mv(weight, x.flatten()).view(*x.shape[:-1], -1)
        return many(x)

    return linear


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def pad_heads(qkv: Tensor, out: Tensor, heads: int, head_size: int) -> tuple[Tensor, Tensor]:
    """Attention weights `qkv` (3 d, d) and `out` (d, d) with each head padded to `head_size` by channels of zero.

    Exact: a channel that is zero in queries and keys adds nothing to scores (whose scale stays that of the true head
    size), and one that is zero in values adds nothing to outputs.
    """
    true = out.shape[1] // heads
    if true == head_size:
        return qkv, out
    wide = F.pad(qkv.view(3, heads, true, -1), (0, 0, 0, head_size - true))
    tall = F.pad(out.view(-1, heads, true), (0, head_size - true))
    return wide.flatten(0, 2), tall.flatten(1)
