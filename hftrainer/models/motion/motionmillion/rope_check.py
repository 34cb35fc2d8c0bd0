"""Which rotary table do these weights want? Next-token loss on real tokens under both, pair by pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.rows import build_prefix_sequences


@dataclass(frozen=True)
class RopeCheck:
    """Mean loss (nats a code) over `clips` under each table, and of their difference (bfloat16 - float32) a 95 %
    interval over clips."""

    clips: int
    float32: float
    bfloat16: float
    interval: tuple[float, float]

    @property
    def wants(self) -> str | None:
        """The table with the lower loss, or None if the interval holds 0."""
        low, high = self.interval
        return "float32" if low > 0 else "bfloat16" if high < 0 else None

    def lines(self) -> list[str]:
        """The finding as text."""
        low, high = self.interval
        verdict = (
            f'these weights want rope_dtype: "{self.wants}"'
            if self.wants
            else "these clips do not decide it; give more, or longer ones (the tables differ most at late positions)"
        )
        return [
            f"loss with exact angles (float32)     {self.float32:.5f} over {self.clips} clips",
            f"loss with rounded angles (bfloat16)  {self.bfloat16:.5f}",
            f"difference, 95 % interval            {low:+.5f} .. {high:+.5f}",
            verdict,
        ]


@torch.inference_mode()
def rope_check(bundle: MotionMillionBundle, pairs: Iterable[tuple[str, np.ndarray]]) -> RopeCheck:
    """Compare both tables on captions with their motion's codes (l,)."""
    if bundle.ar is None:
        raise ValueError("this model has no transformer")
    original = bundle.ar.config.rope_dtype
    losses: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    device = bundle.ar.lm_head.weight.device
    try:
        for caption, codes in pairs:
            text = bundle.encode_text([caption])
            row = build_prefix_sequences(
                torch.from_numpy(codes.astype(np.int64))[None], torch.tensor([len(codes)]), text.mask.sum(dim=1),
                bundle.ar.config.end_id, bundle.ar.config.pad_id,
            ).to(device)  # fmt: skip
            for table, values in losses.items():
                bundle.ar.config.rope_dtype = table
                loss, _ = bundle.ar.next_token_loss(row, text.features.to(device), text.mask.to(device))
                values.append(float(loss))
    finally:
        bundle.ar.config.rope_dtype = original
    exact, rounded = (np.array(losses[table]) for table in ("float32", "bfloat16"))
    if len(exact) < 2:
        raise ValueError(f"a comparison needs at least 2 clips, got {len(exact)}")
    difference = rounded - exact
    half = 1.96 * difference.std(ddof=1) / len(difference) ** 0.5
    middle = float(difference.mean())
    return RopeCheck(len(exact), float(exact.mean()), float(rounded.mean()), (middle - half, middle + half))
