"""MotionMillionBundle: the parts of a Go to Zero model, and the operations that training and pipelines share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hftrainer.models.motion.motionmillion import artifact
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF
from hftrainer.models.motion.motionmillion.network.fsq import codebook_use
from hftrainer.models.motion.motionmillion.upstream import read_upstream
from hftrainer.models.text_encoder import TextEncoder, TextEncoderConfig, TextFeatures
from hftrainer.registry import MODELS


@MODELS.register("motionmillion")
class MotionMillionBundle(nn.Module):
    """Tokenizer (`vqvae`), transformer (`ar`), text encoder (`text_encoder`), and `mean` and `std` (272,) of motions.

    A part that was not asked for is None. Motion passes in and out in physical units.
    """

    Config = MotionMillionConfig
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        fsq_path: str | os.PathLike[str] | None = None,
        ar_path: str | os.PathLike[str] | None = None,
        text_model_name: str | None = None,
        *,
        mean_path: str | os.PathLike[str] | None = None,
        std_path: str | os.PathLike[str] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        parts: artifact.Parts | None = None,
    ):
        """Read released files (`fsq_path`, `ar_path`, a T5 folder or name); `from_pretrained` reads artifacts.

        The size of the transformer is read off its tensors.
        """
        super().__init__()
        if parts is None:
            if fsq_path is None:
                raise ValueError("MotionMillionBundle needs fsq_path=...; for an artifact folder use from_pretrained")
            parts = read_upstream(fsq_path, ar_path, text_model_name, mean_path, std_path, dtype)
        self.config: MotionMillionConfig = parts.config
        self.vqvae: HumanVQVAE = parts.vqvae
        self.ar: LLaMAHF | None = parts.ar
        self.text_encoder: TextEncoder | None = parts.text_encoder
        self.tokenizer_sha256 = parts.tokenizer_sha256
        self.register_buffer("mean", torch.as_tensor(parts.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.as_tensor(parts.std, dtype=torch.float32), persistent=False)
        self.to(device).eval()

    @classmethod
    def from_config(cls, config: MotionMillionConfig) -> MotionMillionBundle:
        """A new model with random weights, but for the parts that ``config.init`` names."""
        return cls(parts=artifact.build(config))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        text_encoder: str | None = "artifact",
        load_ar: bool = True,
        **hub: Any,
    ) -> MotionMillionBundle:
        """Load an artifact folder written by `save_pretrained`, the published hftrainer, or Motius.

        `text_encoder`: "artifact" (the folder's own, else the one it names), a folder or hub name, or None.
        """
        parts = artifact.read(Path(folder), dtype=dtype, text_encoder=text_encoder, load_ar=load_ar, **hub)
        stored = parts.ar.lm_head.weight.dtype if parts.ar is not None else None
        if dtype is None and stored == torch.float16 and torch.device(device).type == "cpu":
            parts.ar = parts.ar.float() if parts.ar is not None else None  # CPUs have no float16 arithmetic to speak of
        return cls(parts=parts, device=device)

    def save_pretrained(self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Write an artifact folder. It appears whole or not at all."""
        artifact.write(self, Path(folder), dtype=dtype)

    # --- the names that the published hftrainer gave to the text encoder's halves ---------------------------------

    @property
    def text_model(self) -> Any:
        """The T5 encoder itself."""
        return self.text_encoder.model if self.text_encoder is not None else None

    @property
    def tokenizer(self) -> Any:
        """The text tokenizer."""
        return self.text_encoder.tokenizer if self.text_encoder is not None else None

    @property
    def device(self) -> torch.device:
        """Where motions are normalized, and by default everything runs."""
        return self.mean.device

    # --- operations -------------------------------------------------------------------------------------------------

    def set_statistics(self, mean: np.ndarray | Tensor, std: np.ndarray | Tensor) -> None:
        """Use a dataset's statistics, as training a tokenizer does."""
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))

    def normalize(self, motion: Tensor) -> Tensor:
        """Physical units to z-scores."""
        return (motion - self.mean) / self.std

    def denormalize(self, motion: Tensor) -> Tensor:
        """Z-scores to physical units."""
        return motion * self.std + self.mean

    def encode_text(self, captions: Sequence[str]) -> TextFeatures:
        """Features that the transformer is conditioned on."""
        if self.text_encoder is None:
            raise ValueError("this model was loaded without a text encoder; load it with text_encoder='artifact'")
        features: TextFeatures = self.text_encoder(captions)
        return features

    def encode_motion(self, motion: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Codes (b, l) of motion (b, t, 272); see `HumanVQVAE.encode`."""
        return self.vqvae.encode(self.normalize(motion), lengths)

    def codebook_use(self, codes: Tensor) -> tuple[float, float]:
        """Perplexity of codes (any shape), and the share of the codebook that they use."""
        use = codebook_use(codes, self.vqvae.codebook_size)
        return float(use.perplexity), float(use.active)

    def decode_codes(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Motion (b, 2 l, 272) of codes (b, l); see `HumanVQVAE.forward_decoder`."""
        return self.denormalize(self.vqvae.forward_decoder(codes, lengths).float())


def text_encoder_from(source: str, max_tokens: int = 150, **hub: Any) -> TextEncoder:
    """A text encoder by folder or hub name."""
    return TextEncoder(TextEncoderConfig(source=source, max_tokens=max_tokens), **hub)
