"""MotionCLIP-135: CLIP's text tower, and CLIP's vision tower reading frames of motion instead of patches.

Shapes: b clips, t frames, n tokens, c channels of a tower, e embedding. Parameter names follow transformers' CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


@dataclass
class TowerConfig:
    """Sizes of one tower; the defaults are CLIP ViT-B/32's text tower."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    layer_norm_eps: float = 1e-5
    positions: int = 256  # tokens; for motion, frames and the class embedding


class MotionCLIP(nn.Module):
    """Text and motion to vectors (b, e) that are compared by cosine in training and, raw, by this evaluator."""

    def __init__(
        self,
        text: TowerConfig,
        motion: TowerConfig,
        *,
        vocab_size: int = 49408,
        eos_token_id: int = 49407,
        motion_dim: int = 135,
        projection_dim: int = 512,
    ):
        super().__init__()
        self.text_model = TextTower(text, vocab_size, eos_token_id)
        self.motion_model = MotionTower(motion, motion_dim)
        self.text_projection = nn.Linear(text.hidden_size, projection_dim, bias=False)
        self.motion_projection = nn.Linear(motion.hidden_size, projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor([2.6592]))

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids (b, n), `mask` (b, n) True on real ones, to projections (b, e)."""
        out: Tensor = self.text_projection(self.text_model(ids, mask))
        return out

    def embed_motion(self, motion: Tensor, mask: Tensor) -> Tensor:
        """Normalized motions (b, t, 135), `mask` (b, t) True on real frames, to projections (b, e)."""
        out: Tensor = self.motion_projection(self.motion_model(motion, mask))
        return out


class TextTower(nn.Module):
    """Causal transformer; the state at the first end-of-text token is the sentence."""

    def __init__(self, config: TowerConfig, vocab_size: int, eos_token_id: int):
        super().__init__()
        self.eos_token_id = eos_token_id
        self.embeddings = TextEmbeddings(config, vocab_size)
        self.encoder = Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Pooled states (b, c)."""
        n = ids.shape[1]
        past = torch.ones(n, n, dtype=torch.bool, device=ids.device).tril()
        x = self.encoder(self.embeddings(ids), past & rearrange(mask, "b k -> b 1 1 k"))
        x = self.final_layer_norm(x)
        first_end = (ids == self.eos_token_id).int().argmax(dim=1)
        pooled: Tensor = x[torch.arange(len(x), device=x.device), first_end]
        return pooled


class MotionTower(nn.Module):
    """Transformer over a class embedding and all frames; the state of the class embedding is the motion."""

    def __init__(self, config: TowerConfig, motion_dim: int):
        super().__init__()
        self.embeddings = MotionEmbeddings(config, motion_dim)
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, motion: Tensor, mask: Tensor) -> Tensor:
        """Pooled states (b, c)."""
        x = self.pre_layernorm(self.embeddings(motion))
        seen = F.pad(mask, (1, 0), value=True)
        out: Tensor = self.post_layernorm(self.encoder(x, rearrange(seen, "b k -> b 1 1 k"))[:, 0])
        return out


class TextEmbeddings(nn.Module):
    """Tokens and their places."""

    def __init__(self, config: TowerConfig, vocab_size: int):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.positions, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """(b, n) to (b, n, c)."""
        out: Tensor = self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]
        return out


class MotionEmbeddings(nn.Module):
    """A learned class embedding, frames, and their places."""

    def __init__(self, config: TowerConfig, motion_dim: int):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(config.hidden_size))
        self.motion_projection = nn.Linear(motion_dim, config.hidden_size, bias=False)
        self.position_embedding = nn.Embedding(config.positions, config.hidden_size)

    def forward(self, motion: Tensor) -> Tensor:
        """(b, t, 135) to (b, 1 + t, c)."""
        frames = self.motion_projection(motion)
        x = torch.cat([self.class_embedding.expand(len(motion), 1, -1), frames], dim=1)
        return x + self.position_embedding.weight[: x.shape[1]]


class Encoder(nn.Module):
    """Pre-norm transformer layers."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """States (b, n, c); `mask`, broadcast to (b, heads, n, n), is True where a row may look."""
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each with a norm before it."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.self_attn = Attention(config.hidden_size, config.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Perceptron(config.hidden_size, config.intermediate_size)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """One layer."""
        x = x + self.self_attn(self.layer_norm1(x), mask)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Perceptron(nn.Module):
    """Two linear maps around a quick GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to (..., c)."""
        out: Tensor = self.fc2(quick_gelu(self.fc1(x)))
        return out


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, n, c) to (b, n, c)."""
        q, k, v = (
            rearrange(project(x), "b n (h d) -> b h n d", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(rearrange(mixed, "b h n d -> b n (h d)"))
        return out


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)
