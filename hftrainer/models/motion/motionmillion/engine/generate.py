"""From text features to motion codes: `generate` for batches, and the plain un-cached loop it is tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.engine.scheduler import DecodeRequests, Scheduler
from hftrainer.models.motion.motionmillion.network.sampler import draw_uniforms, sample_ids
from hftrainer.requests import SamplingParams

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.network.llama import LLaMAHF


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
    rows = len(text_features)
    check_text(text_features, text_mask)
    limits = _per_row(max_new_tokens, rows, "max_new_tokens")
    floors = _per_row(min_new_tokens, rows, "min_new_tokens")
    if any(floor > limit for floor, limit in zip(floors, limits, strict=True)):
        raise ValueError("min_new_tokens must not exceed max_new_tokens")
    longest = max(limits)
    requests = DecodeRequests(
        texts=lambda prompts: (text_features[prompts], text_mask[prompts]),
        max_new_tokens=limits,
        max_seq_len=text_features.shape[1] + longest,
        min_new_tokens=floors,
        uniforms=draw_uniforms(generator, rows, longest) if do_sample else None,
    )
    scheduler = Scheduler(inference_model(model), rows, SamplingParams(do_sample, temperature, top_k, top_p))
    tokens = torch.full((rows, longest), model.config.pad_id, dtype=torch.long)
    lengths, ended = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.bool)
    for done in scheduler.run(requests):
        lengths[done.prompt], ended[done.prompt] = len(done.codes), done.ended
        tokens[done.prompt, : len(done.codes)] = done.codes
    device = text_features.device
    return Generation(tokens[:, : int(lengths.max())].to(device), lengths.to(device), ended.to(device))


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
    length = int(check_text(text_features, text_mask))
    features, mask = text_features[:, :length], text_mask[:, :length]
    config = model.config
    row = torch.full((1, length), config.pad_id, dtype=torch.long, device=text_features.device)
    uniforms = draw_uniforms(generator, 1, max_sample_steps).to(row.device) if do_sample else None
    for step in range(max_sample_steps):
        logits = model(row, features, mask)[:, -1].float()
        chosen = logits.argmax(dim=-1) if uniforms is None else sample_ids(logits, uniforms[:, step], SamplingParams())
        if int(chosen) == config.end_id:
            break
        row = torch.cat([row, chosen[:, None]], dim=1)
    out = row[:, length:]
    return out if out.shape[1] else torch.ones_like(row[:, :1])


def check_text(text_features: Tensor, text_mask: Tensor) -> Tensor:
    """Lengths (b,) of right-padded texts; ``ValueError`` for what is not."""
    if text_features.ndim != 3 or text_mask.shape != text_features.shape[:2]:
        raise ValueError(
            f"text_features (rows, words, width) and text_mask (rows, words) do not match: "
            f"{tuple(text_features.shape)} and {tuple(text_mask.shape)}"
        )
    mask = text_mask.bool()
    lengths = mask.sum(dim=1)
    if not bool((mask == (torch.arange(mask.shape[1], device=mask.device)[None] < lengths[:, None])).all()):
        raise ValueError("text_mask must be True from the left without gaps (right padding)")
    if not bool((lengths > 0).all()):
        raise ValueError("every row needs at least one text position; an encoder's end-of-text counts")
    return lengths


def _per_row(value: int | Sequence[int] | Tensor, rows: int, name: str) -> list[int]:
    tensor = torch.as_tensor(value, dtype=torch.long).cpu()
    if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != rows):
        raise ValueError(f"{name} is one number or one for each of {rows} rows, got shape {tuple(tensor.shape)}")
    if bool((tensor < 0).any()):
        raise ValueError(f"{name} must not be negative")
    return tensor.expand(rows).tolist()  # type: ignore[no-any-return]
