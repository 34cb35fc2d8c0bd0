"""What packing a model's matrices costs: logits and greedy codes against the model as it is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.rows import build_prefix_sequences

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.network import LLaMAHF


@dataclass(frozen=True)
class Text:
    """Features (n, c) of one text, without padding."""

    features: Tensor
    label: str


@dataclass(frozen=True)
class QuantCheck:
    """Over the codes that the reference chose greedily, teacher-forced: `agreement` share of steps with the same
    likeliest id, `error` root mean square of the logits' difference over the reference's spread, `worst` the largest
    difference in that unit. Left to itself: `same_codes` share of equal codes, `same_rows` share of equal motions.
    `undecided`: share of the steps that differ at which the reference's two likeliest ids are nearer than the error."""

    kind: str
    texts: int
    steps: int
    agreement: float
    error: float
    worst: float
    same_codes: float
    same_rows: float
    undecided: float

    def lines(self) -> list[str]:
        """The finding as text."""
        return [
            f"{self.kind} against the stored weights, {self.texts} texts, {self.steps} steps",
            f"logit error           {self.error:.4f} of the logits' spread (rms), {self.worst:.3f} at worst",
            f"same top code         {self.agreement:.2%} of steps, each after the reference's codes",
            f"  of those that differ, {self.undecided:.0%} are near-ties of the reference",
            f"free generation        {self.same_codes:.2%} of codes, {self.same_rows:.2%} "
            "of complete motions are the same",
        ]


def prepare_texts(bundle: MotionMillionBundle, prompts: Sequence[str]) -> list[Text]:
    """Features of prompts; made-up ones for a model without a text encoder, which its label says."""
    if bundle.text_encoder is None:
        assert bundle.ar is not None
        draw = torch.Generator().manual_seed(0)
        width = bundle.ar.config.clip_dim
        return [
            Text(torch.randn(12, width, generator=draw) * 0.2, f"made-up features {i}") for i in range(len(prompts))
        ]
    with torch.inference_mode():
        found = [bundle.encode_text([prompt]) for prompt in prompts]
    return [Text(text.features[0].cpu(), prompt) for text, prompt in zip(found, prompts, strict=True)]


@torch.inference_mode()
def quant_check(
    reference: Callable[[], LLaMAHF], packed: Callable[[], LLaMAHF], kind: str, texts: Sequence[Text], *, codes: int
) -> QuantCheck:
    """Compare two transformers, which are loaded one after the other, on `codes` greedy codes of each text."""
    if not texts or codes < 1:
        raise ValueError(f"a comparison needs texts and codes, got {len(texts)} texts and {codes} codes")
    model = reference()
    rows = [_greedy(model, text, codes) for text in texts]
    want = [_logits(model, text, row) for text, row in zip(texts, rows, strict=True)]
    del model
    model = packed()
    free = [_greedy(model, text, codes) for text in texts]
    got = [_logits(model, text, row) for text, row in zip(texts, rows, strict=True)]
    del model

    old, new = torch.cat(want), torch.cat(got)
    spread = old.std(dim=-1, keepdim=True)
    difference = (new - old) / spread
    same = old.argmax(-1) == new.argmax(-1)
    gap = old.topk(2, dim=-1).values.diff(dim=-1).neg() / spread
    error = float(difference.square().mean().sqrt())
    differing = int((~same).sum())
    equal = torch.cat([a == b for a, b in zip(rows, free, strict=True)]).float()
    return QuantCheck(
        kind=kind,
        texts=len(texts),
        steps=len(old),
        agreement=float(same.float().mean()),
        error=error,
        worst=float(difference.abs().max()),
        same_codes=float(equal.mean()),
        same_rows=sum(bool((a == b).all()) for a, b in zip(rows, free, strict=True)) / len(rows),
        undecided=float((gap[:, 0][~same] < 2 * error).float().mean()) if differing else 0.0,
    )


def _greedy(model: LLaMAHF, text: Text, codes: int) -> Tensor:
    """Exactly `codes` ids (codes,); END is not allowed, so that all rows are of one length."""
    device = model.lm_head.weight.device
    features = text.features[None].to(device)
    mask = torch.ones(features.shape[:2], dtype=torch.bool, device=device)
    return model.generate(features, mask, codes, min_new_tokens=codes).tokens[0].cpu()


def _logits(model: LLaMAHF, text: Text, codes: Tensor) -> Tensor:
    """Logits (codes, v - 1) with which each code was chosen, all in one pass."""
    device, config = model.lm_head.weight.device, model.config
    features = text.features[None].to(device)
    n = features.shape[1]
    row = build_prefix_sequences(
        codes[None], torch.tensor([len(codes)]), torch.tensor([n]), config.end_id, config.pad_id
    ).to(device)  # fmt: skip
    mask = torch.ones(1, n, dtype=torch.bool, device=device)
    logits: Tensor = model(row[:, :-2], features, mask)[0, n - 1 :].float().cpu()
    return logits[:, : config.end_id]  # END was not allowed
