"""A model's tokenizer by itself: motions of any length to codes, with the identity of the weights that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle


class MotionTokenizer:
    """Wraps a bundle's encoder; `sha256` covers the tokenizer's weights and the statistics that it is used with."""

    def __init__(self, bundle: MotionMillionBundle, sha256: str):
        self.bundle, self.sha256 = bundle, sha256
        self.codebook_size = bundle.vqvae.codebook_size
        self.frames_per_code = bundle.vqvae.frames_per_code

    @property
    def representation(self) -> str:
        """The name of what motions it reads."""
        return self.bundle.representation

    @torch.inference_mode()
    def encode(self, motions: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
        """Codes of motions (T_i, width), each as if encoded by itself."""
        lengths = torch.tensor([len(motion) for motion in motions])
        batch = torch.zeros(len(motions), int(lengths.max()), motions[0].shape[1])
        for row, motion in enumerate(motions):
            batch[row, : len(motion)] = torch.from_numpy(np.ascontiguousarray(motion, dtype=np.float32))
        device = self.bundle.device
        codes = self.bundle.encode_motion(batch.to(device), lengths.to(device)).cpu().numpy()
        return [row[: n // self.frames_per_code] for row, n in zip(codes, lengths.tolist(), strict=True)]

    @torch.inference_mode()
    def decode(self, codes: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Motions of codes (l_i,), each as if decoded by itself."""
        lengths = torch.tensor([len(row) for row in codes])
        batch = pad_sequence([torch.from_numpy(np.asarray(row, np.int64)) for row in codes], batch_first=True)
        device = self.bundle.device
        made = self.bundle.decode_codes(batch.to(device), lengths.to(device)).cpu().numpy()
        return [row[: n * self.frames_per_code] for row, n in zip(made, lengths.tolist(), strict=True)]


def load_tokenizer(folder: Path, *, device: str = "cpu") -> MotionTokenizer:
    """The tokenizer of an artifact folder."""
    bundle = MotionMillionBundle.from_pretrained(folder, device=device, text_encoder=None, load_ar=False)
    assert bundle.tokenizer_sha256 is not None
    return MotionTokenizer(bundle, bundle.tokenizer_sha256)
