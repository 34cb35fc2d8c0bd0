"""The two networks of T2M-GPT in plain torch: a convolutional VQ-VAE, and a GPT over its codes.

Shapes: b clips, t frames, d features, l = t / 2**down codes, n codes in the codebook, c width of text features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Two convolutions around ReLUs, the first dilated (section 3.1)."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, width, t) to the same."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class MotionVQVAE(nn.Module):
    """Motion (b, t, d) to codes and back; `quantizer` maps latents (b, l, width) to `Quantized`."""

    def __init__(self, quantizer: nn.Module, *, motion_width: int, width: int = 512, down: int = 2, depth: int = 3):
        super().__init__()
        dilations = [3**i for i in range(depth)]
        layers: list[nn.Module] = [nn.Conv1d(motion_width, width, 3, padding=1), nn.ReLU()]
        for _ in range(down):
            layers += [nn.Conv1d(width, width, 4, stride=2, padding=1), *(Residual(width, d) for d in dilations[::-1])]
        self.encoder = nn.Sequential(*layers, nn.Conv1d(width, width, 3, padding=1))
        self.quantizer = quantizer
        layers = [nn.Conv1d(width, width, 3, padding=1), nn.ReLU()]
        for _ in range(down):
            layers += [*(Residual(width, d) for d in dilations[::-1]), nn.Upsample(scale_factor=2, mode="nearest")]
            layers.append(nn.Conv1d(width, width, 3, padding=1))
        layers += [nn.Conv1d(width, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, motion_width, 3, padding=1)]
        self.decoder = nn.Sequential(*layers)
        self.frames_per_code = 2**down

    def forward(self, motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (b, 4 l, d), codes (b, l), commitment loss; frames past the last full code are dropped."""
        quantized = self.quantizer(self._latents(motion))
        return self._decode(quantized.values), quantized.indices, quantized.commitment

    def encode(self, motion: Tensor) -> Tensor:
        """Codes (b, l) int64."""
        return self.quantizer(self._latents(motion)).indices

    def decode(self, codes: Tensor) -> Tensor:
        """Motion (b, 4 l, d) of codes (b, l)."""
        return self._decode(self.quantizer.dequantize(codes))

    def _latents(self, motion: Tensor) -> Tensor:
        frames = motion.shape[1] // self.frames_per_code * self.frames_per_code
        return self.encoder(motion[:, :frames].transpose(1, 2)).transpose(1, 2)

    def _decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """Causal self-attention and an MLP, each after a layer norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, width) to the same."""
        b, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        x = x + F.dropout(self.proj(seen.transpose(1, 2).reshape(b, length, width)), dropout)
        return x + F.dropout(self.mlp(self.norm2(x)), dropout)


class TextGPT(nn.Module):
    """Codes after a sentence: the text is the first position of a row, and END is id `codes`."""

    def __init__(
        self, codes: int, text_width: int, *, width: int, layers: int, heads: int, longest: int, dropout: float
    ):
        super().__init__()
        self.codes, self.longest = codes, longest
        self.text = nn.Linear(text_width, width)
        self.embedding = nn.Embedding(codes, width)
        self.positions = nn.Parameter(torch.randn(longest + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, codes + 1)

    def forward(self, text: Tensor, codes: Tensor) -> Tensor:
        """Logits (b, l + 1, n + 1) of text (b, c) and codes (b, l): the one at position i is for code i."""
        x = torch.cat([self.text(text)[:, None], self.embedding(codes)], dim=1)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
