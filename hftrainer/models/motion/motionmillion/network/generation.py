"""From logits to motion codes: how the next id is chosen, and the loops that do it for a row or a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.network.llama import LLaMAHF

_CHECK_EVERY = 8  # steps between looks at whether all rows have ended; a look waits for the device


class Generation(NamedTuple):
    """`tokens` (b, l), PAD after the end; `lengths` (b,) codes; `ended` (b,) True if END came, False if cut off."""

    tokens: Tensor
    lengths: Tensor
    ended: Tensor


@torch.no_grad()
def generate(
    model: LLaMAHF,
    text_features: Tensor,
    text_mask: Tensor,
    *,
    max_new_tokens: int | Sequence[int] | Tensor = 150,
    min_new_tokens: int | Sequence[int] | Tensor = 0,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Generation:
    """Decode all rows of a batch together, with a static cache; a row does not depend on its neighbours.

    `text_features` (b, n, c), right-padded; `text_mask` (b, n). `max_new_tokens` and `min_new_tokens` (END is not
    allowed before) are one number or one a row. Greedy unless `do_sample`; then the distribution is sharpened by
    `temperature`, cut to the `top_k` likeliest ids and to the smallest set whose probability reaches `top_p`.
    `generator` may be one a row: a row's draws are all taken from its own generator, one uniform number a step, so
    that its motion depends on its own seed and nothing else.
    """
    rows, device = len(text_features), text_features.device
    text_lengths = _check_text(text_features, text_mask)
    limits = _per_row(max_new_tokens, rows, device, "max_new_tokens")
    floors = _per_row(min_new_tokens, rows, device, "min_new_tokens")
    steps, width = int(limits.max()), text_features.shape[1]
    if bool((floors > limits).any()):
        raise ValueError("min_new_tokens must not exceed max_new_tokens")
    if do_sample:
        check_sampling(temperature, top_k, top_p)
        uniforms = _uniforms(generator, rows, steps).to(device)

    config = model.config
    cache = model.new_cache(rows, width + steps)
    logits = model.prefill(text_features, text_mask, cache)
    tokens = torch.full((rows, steps), config.pad_id, dtype=torch.long, device=device)
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    done = limits == 0
    for step in range(steps):
        too_early = step < floors
        logits[:, config.end_id] = logits[:, config.end_id].masked_fill(too_early, -torch.inf)
        if do_sample:
            ids = sample_ids(logits, uniforms[:, step], temperature=temperature, top_k=top_k, top_p=top_p)
        else:
            ids = logits.argmax(dim=-1)
        ended |= (ids == config.end_id) & ~done
        done |= ended
        tokens[:, step] = torch.where(done, config.pad_id, ids)
        lengths += ~done
        done |= lengths >= limits
        last = step + 1 == steps
        if last or (step % _CHECK_EVERY == _CHECK_EVERY - 1 and bool(done.all())):
            break
        positions = torch.minimum(text_lengths + step, text_lengths + limits - 1)
        logits = model.decode(ids, positions.clamp(min=0), cache, live=width + step + 1)
    return Generation(tokens[:, : int(lengths.max())], lengths, ended)


@torch.no_grad()
def sample_uncached(
    model: LLaMAHF,
    text_features: Tensor,
    text_mask: Tensor,
    max_sample_steps: int = 50,
    do_sample: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One full forward pass a token, for one text: (1, l). Slow and plain; what the others must agree with."""
    if len(text_features) != 1:
        raise ValueError(f"the un-cached sampler takes one text, got {len(text_features)}")
    length = int(_check_text(text_features, text_mask))
    features, mask = text_features[:, :length], text_mask[:, :length]
    config = model.config
    row = torch.full((1, length), config.pad_id, dtype=torch.long, device=text_features.device)
    uniforms = _uniforms(generator, 1, max_sample_steps).to(row.device) if do_sample else None
    for step in range(max_sample_steps):
        logits = model(row, features, mask)[:, -1].float()
        chosen = logits.argmax(dim=-1) if uniforms is None else sample_ids(logits, uniforms[:, step])
        if int(chosen) == config.end_id:
            break
        row = torch.cat([row, chosen[:, None]], dim=1)
    out = row[:, length:]
    return out if out.shape[1] else torch.ones_like(row[:, :1])


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


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ``ValueError`` for settings that mean nothing."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; for the likeliest motion, do not sample")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")


def _check_text(text_features: Tensor, text_mask: Tensor) -> Tensor:
    if text_features.ndim != 3 or text_mask.shape != text_features.shape[:2]:
        raise ValueError(
            f"text_features (rows, words, width) and text_mask (rows, words) do not fit: "
            f"{tuple(text_features.shape)} and {tuple(text_mask.shape)}"
        )
    mask = text_mask.bool()
    lengths = mask.sum(dim=1)
    if not bool((mask == (torch.arange(mask.shape[1], device=mask.device)[None] < lengths[:, None])).all()):
        raise ValueError("text_mask must be True from the left without gaps (right padding)")
    if not bool((lengths > 0).all()):
        raise ValueError("every row needs at least one text position; an encoder's end-of-text counts")
    return lengths


def _per_row(value: int | Sequence[int] | Tensor, rows: int, device: torch.device, name: str) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.long, device=device)
    if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != rows):
        raise ValueError(f"{name} is one number or one for each of {rows} rows, got shape {tuple(tensor.shape)}")
    if bool((tensor < 0).any()):
        raise ValueError(f"{name} must not be negative")
    return tensor.expand(rows)


def _uniforms(generator: torch.Generator | Sequence[torch.Generator] | None, rows: int, steps: int) -> Tensor:
    """Numbers (rows, steps) in [0, 1), drawn on the generators' own devices."""
    if generator is None or isinstance(generator, torch.Generator):
        device = generator.device if generator is not None else "cpu"
        return torch.rand(rows, steps, generator=generator, device=device, dtype=torch.float64)
    if len(generator) != rows:
        raise ValueError(f"got {len(generator)} generators for {rows} rows; give one, or one a row")
    draws = [torch.rand(steps, generator=g, device=g.device, dtype=torch.float64).cpu() for g in generator]
    return torch.stack(draws)
