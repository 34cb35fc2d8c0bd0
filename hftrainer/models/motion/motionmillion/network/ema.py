"""Vector quantization with a codebook that follows the data (van den Oord et al., arXiv 1711.00937, appendix A.1).

Every code is the moving average of the latents that were closest to it; codes that nothing chooses are moved onto
latents of the batch, as in T2M-GPT (Zhang et al., arXiv 2301.06052, section 3.1). Shapes: b clips, l positions,
d latent width, n codes.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hftrainer.models.motion.motionmillion.network.fsq import Quantized


class EMAQuantizer(nn.Module):
    """`codes` vectors of width `dim`; only the encoder gets a gradient, through `Quantized.commitment`.

    `decay`: of the moving averages. `dead_below`: a code whose average use in a batch falls below it is replaced.
    """

    codebook: Tensor
    code_sum: Tensor
    code_count: Tensor

    def __init__(self, codes: int, dim: int, *, decay: float = 0.99, dead_below: float = 1.0):
        super().__init__()
        if codes < 2:
            raise ValueError(f"a codebook needs at least 2 codes, got {codes}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.codebook_size, self.dim, self.decay, self.dead_below = codes, dim, decay, dead_below
        self.register_buffer("codebook", torch.randn(codes, dim) / dim**0.5)
        self.register_buffer("code_sum", torch.zeros(codes, dim))
        self.register_buffer("code_count", torch.zeros(codes))  # all zero: no batch was seen yet

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize latents (b, l, d); in train mode the codebook follows those where `mask` (b, l) is true."""
        with torch.autocast(z.device.type, enabled=False):
            wide = z.float()
            kept = wide[mask.bool()] if mask is not None else wide.reshape(-1, self.dim)
            if self.training and not kept.is_meta:
                if not bool(self.code_count.any()):
                    self._start(kept.detach())
                indices = self._nearest(wide)
                self._follow(kept.detach(), indices[mask.bool()] if mask is not None else indices.reshape(-1))
            else:
                indices = self._nearest(wide)
            values = self.codebook[indices]
            error = (wide - values.detach()).square().mean(dim=-1)
            commitment = error.mean() if mask is None else (error * mask).sum() / mask.sum()
            return Quantized((wide + (values - wide).detach()).to(z.dtype), indices, commitment)

    def dequantize(self, indices: Tensor) -> Tensor:
        """Latents (b, l, d) of code indices (b, l)."""
        return self.codebook[indices]

    def coordinates(self) -> Tensor:
        """Where codes lie (n, d), so that neighbours can start as neighbours elsewhere."""
        return self.codebook.float()

    def decoding_parts(self) -> list[nn.Module]:
        """What trains between codes and motion while the codes of all motions stay as they are: nothing here."""
        return []

    def _nearest(self, z: Tensor) -> Tensor:
        flat = z.reshape(-1, self.dim)
        # |z - c|^2 without the |z|^2 that does not change the order
        distances = self.codebook.square().sum(dim=1) - 2 * flat @ self.codebook.t()
        return distances.argmin(dim=1).reshape(z.shape[:-1])

    def _start(self, latents: Tensor) -> None:
        """Put the codes onto latents of the first batch."""
        self.codebook.copy_(self._some(latents, self.codebook_size))
        self.code_sum.copy_(self.codebook)
        self.code_count.fill_(1.0)

    def _follow(self, latents: Tensor, indices: Tensor) -> None:
        count = torch.bincount(indices, minlength=self.codebook_size).to(self.code_count)
        total = torch.zeros_like(self.code_sum).index_add_(0, indices, latents)
        if _several():
            dist.all_reduce(count)
            dist.all_reduce(total)
        self.code_count.lerp_(count, 1 - self.decay)
        self.code_sum.lerp_(total, 1 - self.decay)
        dead = self.code_count < self.dead_below
        fresh = self._some(latents, self.codebook_size)
        means = self.code_sum / self.code_count.clamp(min=1e-12)[:, None]
        self.codebook.copy_(torch.where(dead[:, None], fresh, means))

    def _some(self, latents: Tensor, count: int) -> Tensor:
        """`count` latents drawn at random, a little apart where there are fewer; the same on every process."""
        repeats = -(-count // len(latents))
        pool = latents.repeat(repeats, 1)
        if repeats > 1:
            pool = pool + torch.randn_like(pool) * 0.01 / self.dim**0.5
        chosen = pool[torch.randperm(len(pool), device=pool.device)[:count]].contiguous()
        if _several():
            dist.broadcast(chosen, src=0)
        return chosen


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
