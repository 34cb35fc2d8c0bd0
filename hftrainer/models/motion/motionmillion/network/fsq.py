"""Finite scalar quantization (Mentzer et al., arXiv 2309.15505): every latent channel is rounded to a few levels.

A code is a mixed-radix number whose first channel counts fastest: index = sum_i level_i * prod(levels[:i]).
Shapes: b clips, l positions, d latent width, c = len(levels) channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

# The release names its tables by a power of two; the product of the levels is what the codebook really holds.
LEVELS_OF_NB_CODE: dict[int, tuple[int, ...]] = {
    256: (8, 6, 5),
    512: (8, 8, 8),
    1024: (8, 5, 5, 5),
    2048: (8, 8, 6, 5),
    4096: (7, 5, 5, 5, 5),
    16384: (8, 8, 8, 6, 5),
    65536: (8, 8, 8, 5, 5, 5),
}


class Quantized(NamedTuple):
    """Quantized `values` (b, l, d) with a straight-through gradient, and their `indices` (b, l) int64.

    `commitment`: how far latents are from their codes, for a quantizer that wants the encoder to keep to them.
    """

    values: Tensor
    indices: Tensor
    commitment: Tensor | None = None


class FSQ(nn.Module):
    """Project d channels to len(levels), round each to its levels, project back.

    Rounding happens in float32 (or float64) whatever the autocast state, because one bit decides a code.
    """

    _levels: Tensor
    _basis: Tensor

    def __init__(self, levels: Sequence[int], dim: int | None = None):
        super().__init__()
        levels = [int(level) for level in levels]
        if not levels or min(levels) < 2:
            raise ValueError(f"every FSQ level needs at least 2 values, got levels={levels}")
        self.levels = levels
        self.dim = len(levels) if dim is None else dim
        basis = [prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("_levels", torch.tensor(levels), persistent=False)
        self.register_buffer("_basis", torch.tensor(basis), persistent=False)
        projects = self.dim != len(levels)
        self.project_in: nn.Module = nn.Linear(self.dim, len(levels)) if projects else nn.Identity()
        self.project_out: nn.Module = nn.Linear(len(levels), self.dim) if projects else nn.Identity()

    @property
    def codebook_size(self) -> int:
        """Number of codes: 64000 for the released tokenizer, which its authors call 65536."""
        return prod(self.levels)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize latents (b, l, d). `mask` is for quantizers that learn from what they see; this one does not."""
        with torch.autocast(z.device.type, enabled=False):
            wide = z if z.dtype == torch.float64 else z.float()
            codes = self.quantize(self.project_in(wide))
            indices = self.codes_to_indices(codes.detach())
            return Quantized(self.project_out(codes).to(z.dtype), indices)

    def dequantize(self, indices: Tensor) -> Tensor:
        """Latents (b, l, d) of code indices (b, l)."""
        weight = getattr(self.project_out, "weight", None)
        codes = self.indices_to_codes(indices)
        return self.project_out(codes if weight is None else codes.to(weight.dtype))  # type: ignore[no-any-return]

    def restore_buffers(self) -> None:
        """Make the buffers that no file holds, after the module was built on the meta device."""
        fresh = FSQ(self.levels)
        self._levels, self._basis = fresh._levels, fresh._basis

    def coordinates(self) -> Tensor:
        """Where codes lie (codebook_size, c), so that neighbours can start as neighbours elsewhere."""
        return self.indices_to_codes(torch.arange(self.codebook_size, device=self._levels.device))

    def decoding_parts(self) -> list[nn.Module]:
        """What trains between codes and motion while the codes of all motions stay as they are."""
        return [self.project_out]

    def bound(self, z: Tensor) -> Tensor:
        """Squash channel i of (..., c) so that rounding gives exactly levels[i] different integers."""
        levels = self._levels.to(z.dtype)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0).to(z.dtype)
        shift = torch.atanh(offset / half)
        return torch.tanh(z + shift) * half - offset

    def quantize(self, z: Tensor) -> Tensor:
        """Codes (..., c) in [-1, 1], rounded half to even; the gradient passes straight through the rounding."""
        bounded = self.bound(z)
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self._levels // 2)

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """Codes (..., c) to indices (...) int64."""
        half = self._levels // 2
        digits = (codes * half + half).round().long()
        return (digits * self._basis).sum(dim=-1)

    def digits(self, indices: Tensor) -> Tensor:
        """Indices (...) to levels (..., c), each in 0..levels[i]-1."""
        return indices[..., None].long() // self._basis % self._levels

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Indices (...) to codes (..., c) in float32."""
        half = self._levels // 2
        return (self.digits(indices) - half).float() / half


class CodebookUse(NamedTuple):
    """How much of the codebook a set of codes uses; both are scalars."""

    perplexity: Tensor
    active: Tensor


def codebook_use(indices: Tensor, codebook_size: int) -> CodebookUse:
    """Perplexity exp(-sum p log p) and the fraction of codes that occur, from counts (no one-hot matrix)."""
    counts = torch.bincount(indices.reshape(-1), minlength=codebook_size).double()
    p = counts / counts.sum()
    return CodebookUse(torch.exp(-(p * torch.log(p + 1e-7)).sum()), (counts > 0).double().mean())
