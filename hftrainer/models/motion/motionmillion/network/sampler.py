"""How the next id is chosen from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

_BLOCK = 256


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


class Distribution(Protocol):
    """How ids are drawn; `hftrainer.requests.SamplingParams` is one."""

    @property
    def temperature(self) -> float:
        """What logits are divided by."""

    @property
    def top_k(self) -> int | None:
        """Only so many of the likeliest ids stay."""

    @property
    def top_p(self) -> float | None:
        """And of those the smallest set whose probability reaches this."""


def sample_ids(logits: Tensor, uniforms: Tensor, params: Distribution) -> Tensor:
    """Ids (b,) drawn from logits (b, v) by inverting the cumulative distribution at `uniforms` (b,) in [0, 1).

    Logits that are not numbers give some id; who decodes checks for them.
    """
    if params.top_k is None and params.top_p is None:  # the order of ids does not matter, and sorting them is slow
        reached = (logits.float() / params.temperature).softmax(dim=-1).cumsum(dim=-1)
        total = reached[:, -1:]
        # below the total even where rounding gives all of it: an id of no probability must not be met
        target = torch.minimum(uniforms[:, None].to(total.dtype) * total, torch.nextafter(total, total - 1))
        return torch.searchsorted(reached, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    top_p, k = params.top_p, min(params.top_k or logits.shape[-1], logits.shape[-1])
    ordered, ids = torch.topk(logits.float() / params.temperature, k, dim=-1)
    probabilities = ordered.softmax(dim=-1)
    reached = probabilities.cumsum(dim=-1)
    if top_p is not None:
        # keep an id if the likelier ones do not by themselves reach top_p; the likeliest always stays
        probabilities = probabilities.masked_fill(reached - probabilities >= top_p, 0.0)
        reached = probabilities.cumsum(dim=-1)
    target = uniforms[:, None].to(reached.dtype) * reached[:, -1:]
    place = torch.searchsorted(reached, target, right=True).clamp(max=k - 1)
    # rounding must not land on an id that top_p removed
    kept = (probabilities > 0).sum(dim=-1, keepdim=True)
    return ids.gather(-1, torch.minimum(place, (kept - 1).clamp(min=0)))[:, 0]


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
