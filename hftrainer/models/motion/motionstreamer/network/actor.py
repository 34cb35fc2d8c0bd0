"""Sequences to one Gaussian: the ACTOR encoder of TEMOS and TMR, as MotionStreamer's evaluator has it.

Two learned tokens are put before the sequence; a post-norm transformer reads it; where the tokens stood, mean and
log-variance come out. State-dict names are upstream's. Shapes: b sequences, n positions, d channels, h heads.

Unlike upstream's, the mask is as long as the batch needs (the released one is 300 wide, whatever comes in), and the
last layer computes the two positions that are wanted. Neither changes a number beyond rounding; a test compares with
torch's own encoder.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Gaussian(NamedTuple):
    """`mean` (b, d), which is the embedding, and `logvar` (b, d)."""

    mean: Tensor
    logvar: Tensor

    def sample(self) -> Tensor:
        """One draw (b, d), with a gradient to both."""
        return self.mean + torch.randn_like(self.mean) * self.std

    @property
    def std(self) -> Tensor:
        """Standard deviation (b, d)."""
        return torch.exp(self.logvar / 2)


class ActorEncoder(nn.Module):
    """What motion and text have in common, from features (b, n, d) on."""

    mu_token: nn.Parameter
    logvar_token: nn.Parameter

    def __init__(self, width: int, layers: int, heads: int, hidden: int, dropout: float, positions: int):
        super().__init__()
        self.mu_token = nn.Parameter(torch.randn(width))
        self.logvar_token = nn.Parameter(torch.randn(width))
        self.sequence_pos_encoding = PositionalEncoding(width, positions, dropout)
        self.seqTransEncoder = Transformer(width, layers, heads, hidden, dropout)

    def gaussian(self, features: Tensor, mask: Tensor) -> Gaussian:
        """Mean and log-variance of features (b, n, d) where `mask` (b, n) is True."""
        tokens = torch.stack([self.mu_token, self.logvar_token]).expand(len(features), 2, -1)
        x = self.sequence_pos_encoding(torch.cat([tokens, features], dim=1))
        out = self.seqTransEncoder(x, F.pad(mask, (2, 0), value=True), keep=2)
        return Gaussian(out[:, 0], out[:, 1])


class MotionEncoder(ActorEncoder):
    """Normalized motion (b, t, features) to a Gaussian."""

    def __init__(self, features: int, width: int, layers: int, heads: int, hidden: int, dropout: float, positions: int):
        super().__init__(width, layers, heads, hidden, dropout, positions)
        self.skel_embedding = nn.Linear(features, width)

    def forward(self, motion: Tensor, lengths: Tensor) -> Gaussian:
        """Encode motions (b, t, features); frames from `lengths` (b,) on are not looked at."""
        mask = torch.arange(motion.shape[1], device=motion.device)[None] < lengths[:, None]
        return self.gaussian(self.skel_embedding(motion), mask)


class TextEncoder(ActorEncoder):
    """Token ids to a Gaussian, through a language model whose last hidden states it is given as `text_model`."""

    def __init__(
        self,
        text_model: nn.Module,
        text_width: int,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        dropout: float,
        positions: int,
    ):
        super().__init__(width, layers, heads, hidden, dropout, positions)
        self.text_model: Any = text_model
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(text_width, width))

    def forward(self, ids: Tensor, mask: Tensor) -> Gaussian:
        """Encode token ids (b, n) where `mask` (b, n) is True."""
        hidden = self.text_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return self.gaussian(self.projection(hidden), mask)


class MotionDecoder(nn.Module):
    """A latent (b, d) to normalized motion (b, t, features): the half of the autoencoder that only training needs."""

    def __init__(self, features: int, width: int, layers: int, heads: int, hidden: int, dropout: float, positions: int):
        super().__init__()
        self.sequence_pos_encoding = PositionalEncoding(width, positions, dropout)
        layer = nn.TransformerDecoderLayer(width, heads, hidden, dropout, F.gelu, batch_first=True)
        self.seqTransDecoder = nn.TransformerDecoder(layer, layers)
        self.final_layer = nn.Linear(width, features)

    def forward(self, latent: Tensor, mask: Tensor) -> Tensor:
        """Decode as many frames as `mask` (b, t) has; zero where it is False."""
        queries = self.sequence_pos_encoding(latent.new_zeros(*mask.shape, latent.shape[-1]))
        out = self.seqTransDecoder(queries, latent[:, None], tgt_key_padding_mask=~mask)
        motion: Tensor = self.final_layer(out) * mask[..., None]
        return motion


class Transformer(nn.Module):
    """A stack of post-norm layers without a norm at the end."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, hidden, dropout) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor, *, keep: int) -> Tensor:
        """The first `keep` positions (b, keep, d) of what becomes of x (b, n, d) where `mask` (b, n) is True."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, mask, keep if number == last else x.shape[1])
        return x


class Layer(nn.Module):
    """torch's ``TransformerEncoderLayer`` (post-norm, exact gelu), computed only for the first positions."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.self_attn = nn.MultiheadAttention(width, heads, dropout)  # its parameters; the product is below
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, keep: int) -> Tensor:
        """Positions before `keep` attend to all of x (b, n, d) where `mask` (b, n) is True."""
        asked = x[:, :keep]
        asked = self.norm1(asked + self.dropout(self._attend(asked, x, mask)))
        return self.norm2(asked + self.dropout(self.linear2(self.dropout(F.gelu(self.linear1(asked))))))  # type: ignore[no-any-return]

    def _attend(self, asked: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        weight, bias = self.self_attn.in_proj_weight, self.self_attn.in_proj_bias
        width = x.shape[-1]
        q = F.linear(asked, weight[:width], bias[:width])
        k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        q, k, v = (rearrange(part, "b n (h c) -> b h n c", h=self.heads) for part in (q, k, v))
        dropout = self.self_attn.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None], dropout_p=dropout)
        return self.self_attn.out_proj(rearrange(out, "b h n c -> b n (h c)"))  # type: ignore[no-any-return]


class PositionalEncoding(nn.Module):
    """Adds sin and cos of the position in alternating channels. The table is in released state dicts as (n, 1, d)."""

    pe: Tensor

    def __init__(self, width: int, positions: int, dropout: float):
        super().__init__()
        place = torch.arange(positions, dtype=torch.float32)[:, None]
        angle = place * torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(positions, 1, width)
        self.register_buffer("pe", table)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Add to x (b, n, d)."""
        if x.shape[1] > len(self.pe):
            raise ValueError(f"a sequence of {x.shape[1]} positions does not fit into a table of {len(self.pe)}")
        return self.dropout(x + self.pe[: x.shape[1], 0])  # type: ignore[no-any-return]
