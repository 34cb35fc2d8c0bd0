"""Matrix products of few rows, the shapes of decoding.

On a CPU, torch's own linear layer is two to three times too slow for 4 to 64 rows. On Intel's processors MKL's products
of batches of small matrices, or its packed layout, do better; on others, where MKL is slow, oneDNN's packed layout does
(docs/performance.md has the ratios). Processors without bfloat16 instructions emulate them, three times slower than
float32; there bfloat16 weights are multiplied in float32, which rounds no more than the instructions do.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 32  # packed for so many rows: the layout is as good as any from 16 to 128
_BLOCK = 64  # rows of weights in one small matrix of a batch
_WIDE = 2**14  # rows of weights, those of a head, from which a layout for one row gains more than it costs to make
_SLICE = 256  # rows of weights cast at a time, so that the float32 copy stays in the processor's caches


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer (not a quantised or adapted one) in a dtype that CPUs compute in."""
    return (
        type(module) is nn.Linear
        and not hasattr(module.weight, "__tensor_flatten__")
        and module.weight.dtype in (torch.float32, torch.bfloat16)
    )


def prepack_linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """x (..., in) to x @ weight.T (..., out), from a copy of `weight` (out, in) in a fast layout.

    On devices other than CPUs, and builds of torch without oneDNN, the copy is row-major.
    """
    weight = weight.detach().contiguous()
    if weight.device.type != "cpu" or not _has_onednn():
        return lambda x: F.linear(x, weight)
    if weight.dtype == torch.bfloat16 and emulates_bfloat16():
        many = prepack_linear(weight.float())
        return _one_or_many(weight, lambda x: many(x.float()).bfloat16())
    if weight.dtype == torch.float32 and mkl_is_fast():
        return _prepack_by_mkl(weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)

    def linear(x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")  # type: ignore[no-any-return]

    return linear


def unpacked_linear(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The product of a linear layer from its own weights, by the fastest way that makes no second copy of them."""
    if not isinstance(module, nn.Linear) or not is_plain(module) or module.weight.device.type != "cpu":
        return module
    weight = module.weight.detach()
    if weight.dtype == torch.float32:
        return (lambda x: multiply(x, weight)) if mkl_is_fast() else module
    if not emulates_bfloat16():
        return module

    def many(x: Tensor) -> Tensor:
        rows, product = x.float(), multiply if mkl_is_fast() else F.linear
        return torch.cat([product(rows, part.float()) for part in torch.split(weight, _SLICE)], dim=-1).bfloat16()

    return _one_or_many(weight, many)


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in) @ weight.T (..., out) in float32, by the routine of MKL that is fastest for so many rows.

    For 4 to 64 rows the weights are taken as a batch of small matrices, which MKL multiplies up to three times as fast
    as the large one: times x's transpose, or, up to 12 rows, each as the transposed right factor.
    """
    rows = x.reshape(-1, x.shape[-1])
    count, full = len(rows), len(weight) // _BLOCK * _BLOCK
    if not 3 < count <= 64 or not full:
        return F.linear(x, weight)
    blocks = weight[:full].view(-1, _BLOCK, weight.shape[1])
    out = rows.new_empty(count, len(weight))
    if count <= 12:
        product = torch.bmm(rows.expand(len(blocks), -1, -1), blocks.transpose(1, 2))
        out[:, :full].view(count, -1, _BLOCK).copy_(product.transpose(0, 1))
    else:
        product = torch.bmm(blocks, rows.T.contiguous().expand(len(blocks), -1, -1))
        out[:, :full] = product.view(full, count).T
    if full < len(weight):
        out[:, full:] = F.linear(rows, weight[full:])
    return out.view(*x.shape[:-1], -1)


def _prepack_by_mkl(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """MKL's packed layout where it is the fastest: 17 to 128 rows, and one row times a head.

    A layout serves one number of rows: fewer are filled up, more taken in parts. It is made when it is first needed: a
    single prompt needs another than a batch does.
    """
    wide = len(weight) >= _WIDE
    layouts: dict[int, Tensor] = {}

    def product(x: Tensor) -> Tensor:
        rows = len(x)
        if rows not in layouts:
            layouts[rows] = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        return torch.ops.mkl._mkl_linear(x, layouts[rows], weight, None, rows)  # type: ignore[no-any-return]

    def linear(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) == 1 and wide:
            return product(rows).view(*x.shape[:-1], -1)
        if not _ROWS // 2 < len(rows) <= 4 * _ROWS:
            return multiply(x, weight)
        missing = -len(rows) % _ROWS
        filled = F.pad(rows, (0, 0, 0, missing)) if missing else rows
        parts = [product(part) for part in torch.split(filled, _ROWS)]
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
