"""Losses that put texts and motions into one space (TMR, ICCV 2023, with the weights of MotionStreamer's evaluator)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hftrainer.fields import number
from hftrainer.models.motion.motionstreamer import Gaussian
from hftrainer.models.motion.motionstreamer.text_model import load_text_model
from hftrainer.registry import LOSSES


@dataclass
class TextMotionLossConfig:
    """Weights: `reconstruction` of the motion from either latent, `kl` of the Gaussians to each other and to the
    standard one, `latent` difference, `contrastive`; and the temperature of the last."""

    reconstruction: float = number(1.0, at_least=0)
    kl: float = number(1e-5, at_least=0)
    latent: float = number(1e-5, at_least=0)
    contrastive: float = number(0.1, at_least=0)
    temperature: float = number(0.1, above=0)


def info_nce(motion: Tensor, text: Tensor, alike: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each motion's text and each text's motion by cosine, in a batch (b, d).

    Pairs that are `alike` (b, b) without belonging together are not negatives and are excluded.
    """
    logits = F.normalize(motion, dim=-1) @ F.normalize(text, dim=-1).T / temperature
    others = ~torch.eye(len(motion), dtype=torch.bool, device=motion.device)
    logits = logits.masked_fill(alike & others, float("-inf"))
    labels = torch.arange(len(motion), device=motion.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def kl_divergence(a: Gaussian, b: Gaussian | None = None) -> Tensor:
    """Mean over rows and channels of KL(a || b); without `b`, to the standard Gaussian."""
    if b is None:
        b = Gaussian(torch.zeros_like(a.mean), torch.zeros_like(a.logvar))
    ratio = torch.exp(a.logvar - b.logvar)
    apart = (a.mean - b.mean).square() * torch.exp(-b.logvar)
    return ((ratio + apart - 1 - a.logvar + b.logvar) / 2).mean()


@LOSSES.register("text_motion")
class TextMotionLoss:
    """Called with what texts and motions were encoded as, and what was decoded from it."""

    Config = TextMotionLossConfig

    def __init__(self, config: TextMotionLossConfig):
        self.config = config

    def __call__(
        self,
        text: Gaussian,
        motion: Gaussian,
        latents: tuple[Tensor, Tensor],
        decoded: tuple[Tensor, Tensor],
        target: Tensor,
        alike: Tensor,
    ) -> dict[str, Tensor]:
        """Every term, unweighted, and their weighted sum "loss".

        `latents` are drawn from `text` and `motion`; `decoded` (b, t, d) is made from each, zero like `target` past a
        motion's end. Means are over all elements, those past the end too, as in the release.
        """
        between = kl_divergence(text, motion) + kl_divergence(motion, text)
        terms = {
            "reconstruction": F.smooth_l1_loss(decoded[0], target) + F.smooth_l1_loss(decoded[1], target),
            "kl": between + kl_divergence(text) + kl_divergence(motion),
            "latent": F.smooth_l1_loss(latents[0], latents[1]),
            "contrastive": info_nce(motion.mean, text.mean, alike, self.config.temperature),
        }
        loss = torch.stack([getattr(self.config, name) * value for name, value in terms.items()]).sum()
        return {**terms, "loss": loss}


class SentenceSimilarity:
    """Which captions mean nearly the same, by a sentence model (mean of its last hidden states) that does not train.

    The release takes sentence-transformers/paraphrase-MiniLM-L6-v2. A caption is encoded once while it is among the
    last `kept` different ones.
    """

    kept = 200_000  # vectors of 384 numbers: 0.4 GB

    def __init__(self, source: str, threshold: float):
        self.threshold = threshold
        self.model: Any
        self.model, self.tokenizer = load_text_model(source)
        self._vectors: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        """True (b, b) where the cosine is above the threshold."""
        new = sorted(set(captions) - self._vectors.keys())
        if new:
            batch = self.tokenizer(new, padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"]
            hidden = self.model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            self._vectors.update((text, row.clone()) for text, row in zip(new, F.normalize(mean, dim=-1), strict=True))
        vectors = torch.stack([self._vectors[caption] for caption in captions])
        for caption in dict.fromkeys(captions):
            self._vectors[caption] = self._vectors.pop(caption)  # the order is that of the last use
        for caption in list(self._vectors)[: max(0, len(self._vectors) - self.kept)]:
            del self._vectors[caption]
        return vectors @ vectors.T > self.threshold
