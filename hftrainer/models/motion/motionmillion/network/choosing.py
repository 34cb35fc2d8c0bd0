"""How the next id is chosen from logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 256


@dataclass(frozen=True)
class Choice:
    """Greedy unless `do_sample`; then the distribution is sharpened by `temperature`, cut to the `top_k` likeliest ids
    and to the smallest set whose probability reaches `top_p`."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0, got {self.temperature}; for the likeliest motion, do not sample"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")

    def draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Ids (b,) from logits (b, v) by `uniforms` (b,) in [0, 1)."""
        return sample_ids(logits, uniforms, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


def best_ids(logits: Tensor) -> Tensor:
    """Arg-max (b,) of logits (b, v), the first of equals.

    On CPUs torch looks at one number after another for it; the maxima of blocks it finds several times as fast.
    """
    width = logits.shape[1]
    if logits.device.type != "cpu" or width < 4 * _BLOCK:
        return logits.argmax(dim=-1)
    blocks = logits[:, : width // _BLOCK * _BLOCK].reshape(len(logits), -1, _BLOCK).amax(dim=-1)
    # the last block ends where the row does and overlaps the one before it
    blocks = torch.cat([blocks, logits[:, -_BLOCK:].amax(dim=-1, keepdim=True)], dim=1)
    start = (blocks.argmax(dim=-1) * _BLOCK).clamp(max=width - _BLOCK)
    return start + logits.gather(1, start[:, None] + torch.arange(_BLOCK)).argmax(dim=-1)


def sample_ids(
    logits: Tensor,
    uniforms: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Ids (b,) drawn from logits (b, v) by inverting the cumulative distribution at `uniforms` (b,) in [0, 1)."""
    k = min(top_k or logits.shape[-1], logits.shape[-1])
    ordered, ids = torch.topk(logits.float() / temperature, k, dim=-1)
    probabilities = ordered.softmax(dim=-1)
    reached = probabilities.cumsum(dim=-1)
    if top_p is not None:
        # keep an id if the likelier ones alone do not reach top_p; the likeliest always stays
        probabilities = probabilities.masked_fill(reached - probabilities >= top_p, 0.0)
        reached = probabilities.cumsum(dim=-1)
    target = uniforms[:, None].to(reached.dtype) * reached[:, -1:]
    place = torch.searchsorted(reached, target, right=True).clamp(max=k - 1)
    # rounding must not land on an id that top_p removed
    kept = (probabilities > 0).sum(dim=-1, keepdim=True)
    return ids.gather(-1, torch.minimum(place, kept - 1))[:, 0]


def draw_uniforms(generator: torch.Generator | Sequence[torch.Generator] | None, rows: int, steps: int) -> Tensor:
    """Numbers (rows, steps) in [0, 1), one for each choice, drawn on the generators' own devices.

    One generator a row makes a row's choices depend on its own seed and nothing else.
    """
    if generator is None or isinstance(generator, torch.Generator):
        device = generator.device if generator is not None else "cpu"
        return torch.rand(rows, steps, generator=generator, device=device, dtype=torch.float64)
    if len(generator) != rows:
        raise ValueError(f"got {len(generator)} generators for {rows} rows; give one, or one a row")
    draws = [torch.rand(steps, generator=g, device=g.device, dtype=torch.float64).cpu() for g in generator]
    return torch.stack(draws)
