"""HumanVQVAE, the motion tokenizer of Go to Zero: a convolutional auto-encoder around finite scalar quantization.

Shapes: b clips, t frames, d features (272), l = t // stride_t ** down_t codes. Motion is z-normalized by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hftrainer.models.motion.motionmillion.network.encdec import Decoder, Encoder
from hftrainer.models.motion.motionmillion.network.fsq import FSQ, LEVELS_OF_NB_CODE


class Reconstruction(NamedTuple):
    """`motion` (b, l * stride, d) as decoded from `codes` (b, l); `commitment` as of the quantizer."""

    motion: Tensor
    codes: Tensor
    commitment: Tensor | None = None


class HumanVQVAE(nn.Module):
    """Motion to codes and back.

    `nb_code` selects a level table of the release (65536 means levels [8, 8, 8, 5, 5, 5], which are 64000 codes);
    `levels` gives one's own instead, and `quantizer` a module of another kind. The network is not causal: frames depend
    on `code_radius` codes to each side, 16 in the released configuration.
    """

    def __init__(
        self,
        nb_code: int = 65536,
        code_dim: int = 512,
        output_emb_width: int = 512,
        down_t: int = 1,
        stride_t: int = 2,
        width: int = 512,
        depth: int = 3,
        dilation_growth_rate: int = 3,
        activation: str = "relu",
        norm: str | None = "LN",
        kernel_size: int = 3,
        use_patcher: bool = True,
        patch_size: int = 1,
        patch_method: str = "haar",
        input_dim: int = 272,
        levels: Sequence[int] | None = None,
        quantizer: nn.Module | None = None,
    ):
        super().__init__()
        if levels is None and quantizer is None:
            if nb_code not in LEVELS_OF_NB_CODE:
                raise ValueError(
                    f"no FSQ level table for nb_code={nb_code}; known: {sorted(LEVELS_OF_NB_CODE)}; "
                    "or give levels=[...] of your own"
                )
            levels = LEVELS_OF_NB_CODE[nb_code]
        if code_dim != output_emb_width:
            raise ValueError(f"code_dim={code_dim} must equal output_emb_width={output_emb_width}")
        self.input_dim = input_dim
        self.frames_per_code: int = stride_t**down_t
        self.code_radius: int = _code_radius(down_t, stride_t, depth, dilation_growth_rate, kernel_size)
        patch = (patch_size, patch_method) if use_patcher else None
        shape = (input_dim, output_emb_width, down_t, stride_t, width, depth, dilation_growth_rate)
        rest = (activation, norm, kernel_size, patch)
        if quantizer is None:
            assert levels is not None
            quantizer = FSQ(levels, code_dim)
        self.vqvae = _AutoEncoder(Encoder(*shape, *rest), Decoder(*shape, *rest), quantizer)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return int(self.vqvae.quantizer.codebook_size)

    def decoding_parts(self) -> list[nn.Module]:
        """The modules between codes and motion; the others decide which codes a motion has."""
        return [*self.vqvae.quantizer.decoding_parts(), self.vqvae.decoder]

    def forward(self, motion: Tensor, lengths: Tensor | None = None) -> Reconstruction:
        """Encode and decode (b, t, d); frames past the last complete code are dropped.

        `lengths` (b,) frames: the clips are zero-padded; each gives the same result as alone.
        """
        latents, mask = self._latents(motion, lengths)
        quantized = self.vqvae.quantizer(latents, mask[:, 0] if mask is not None else None)
        return Reconstruction(self._decode(quantized.values, mask), quantized.indices, quantized.commitment)

    def encode(self, motion: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Codes (b, l) int64 of motion (b, t, d). With `lengths`, codes past a clip's own l are meaningless."""
        latents, _ = self._latents(motion, lengths)
        indices: Tensor = self.vqvae.quantizer(latents).indices
        return indices

    def forward_decoder(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Motion (b, l * stride, d) of codes (b, l).

        `lengths` (b,) codes: rows are padded (with any id); each decodes as it would alone, and frames past its end
        are zero.
        """
        if codes.ndim != 2:
            raise ValueError(f"codes must have shape (clips, codes), got {tuple(codes.shape)}")
        mask = _mask(lengths, codes.shape[1], codes.device)
        if mask is not None:
            codes = codes.masked_fill(~mask[:, 0].bool(), 0)
        bad = (codes < 0) | (codes >= self.codebook_size)
        if bool(bad.any()):
            raise ValueError(
                f"codes must lie in 0..{self.codebook_size - 1}, got {int(codes[bad][0])}; END and PAD are not motion"
            )
        return self._decode(self.vqvae.quantizer.dequantize(codes), mask)

    def _latents(self, motion: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if motion.ndim != 3 or motion.shape[-1] != self.input_dim:
            raise ValueError(f"motion must have shape (clips, frames, {self.input_dim}), got {tuple(motion.shape)}")
        if motion.shape[1] < self.frames_per_code:
            raise ValueError(f"a motion needs at least {self.frames_per_code} frames, got {motion.shape[1]}")
        mask = _mask(lengths, motion.shape[1], motion.device)
        dtype = next(self.parameters()).dtype
        latents = self.vqvae.encoder(motion.to(dtype).transpose(1, 2), mask).transpose(1, 2)
        if lengths is None:
            return latents, None
        return latents, _mask(lengths // self.frames_per_code, latents.shape[1], motion.device)

    def _decode(self, latents: Tensor, mask: Tensor | None) -> Tensor:
        motion: Tensor = self.vqvae.decoder(latents.transpose(1, 2), mask)
        if mask is not None:
            motion = motion * mask.repeat_interleave(self.frames_per_code, dim=-1)
        return motion.transpose(1, 2)


class _AutoEncoder(nn.Module):
    """Gives the parts the prefix ``vqvae.`` that checkpoints have."""

    def __init__(self, encoder: Encoder, decoder: Decoder, quantizer: Any):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.quantizer = quantizer


def _mask(lengths: Tensor | None, size: int, device: torch.device) -> Tensor | None:
    if lengths is None:
        return None
    if int(lengths.max()) > size or int(lengths.min()) < 1:
        raise ValueError(f"lengths must lie in 1..{size}, got {lengths.tolist()}")
    return (torch.arange(size, device=device)[None] < lengths.to(device)[:, None])[:, None].float()


def _code_radius(down_t: int, stride_t: int, depth: int, growth: int, kernel_size: int) -> int:
    """How many codes to each side a decoded frame depends on, rounded up."""
    half = kernel_size // 2
    frames = 2 * half  # the two convolutions after the last stage, at the frame rate
    for _ in range(down_t):
        frames += half  # after up-sampling
        frames = -(-frames // stride_t)
        frames += sum(growth**i for i in range(depth))
    return frames + half
