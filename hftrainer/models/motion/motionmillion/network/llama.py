"""The transformer of Go to Zero: a LLaMA-style prefix language model over motion codes (arXiv 2507.07095).

A row is text, then motion, in one sequence of positions without a gap or a separator:

    position   0 .. n-1                n .. n+m-1        n+m    after that
    input      projected text          motion codes      END    PAD
    sees       all text of its row     text and the past

Names of modules are those of released checkpoints, whose text encoder once was CLIP: `clip_dim` is the width of the
text features (2048 for Flan-T5-XL). Shapes: b rows, t positions, d model width, v = codebook_size + 2 ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hftrainer.models.motion.motionmillion.network.generation import Generation, generate, sample_uncached
from hftrainer.models.motion.motionmillion.network.rope import ROPE_DTYPES, apply_rope, rope_table

# The names understate the models: "7B" has 7.8 billion parameters, "44M" 94 million.
PRESETS: dict[str, dict[str, int]] = {
    "44M": {"n_layer": 8, "n_head": 8, "n_embd": 512},
    "111M": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "343M": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "775M": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "1B": {"n_layer": 48, "n_head": 24, "n_embd": 1536},
    "3B": {"n_layer": 24, "n_head": 32, "n_embd": 3200},
    "5B": {"n_layer": 24, "n_head": 32, "n_embd": 4096},
    "6B": {"n_layer": 28, "n_head": 32, "n_embd": 4096},
    "7B": {"n_layer": 36, "n_head": 32, "n_embd": 4096},
    "13B": {"n_layer": 40, "n_head": 40, "n_embd": 5120},
    "30B": {"n_layer": 60, "n_head": 52, "n_embd": 6656},
    "65B": {"n_layer": 80, "n_head": 64, "n_embd": 8192},
}


@dataclass
class LLaMAHFConfig:
    """Sizes of the transformer. `vocab_size` counts the motion codes, END and PAD."""

    block_size: int = 301
    vocab_size: int = 64002
    n_layer: int = 36
    n_head: int = 32
    n_embd: int = 4096
    clip_dim: int = 2048
    tie_weights: bool = False
    rope_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head or self.head_size % 2:
            raise ValueError(f"n_embd={self.n_embd} must be n_head={self.n_head} times an even number")
        if self.rope_dtype not in ROPE_DTYPES:
            raise ValueError(f"rope_dtype must be one of {ROPE_DTYPES}, got {self.rope_dtype!r}")
        if min(self.block_size, self.n_layer, self.clip_dim) < 1 or self.vocab_size < 3:
            raise ValueError(f"sizes must be positive, got {self}")

    @classmethod
    def from_name(cls, name: str, **overrides: Any) -> LLaMAHFConfig:
        """A preset by its published name, "44M" to "65B", with fields replaced."""
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **overrides})

    @property
    def head_size(self) -> int:
        """Channels of one attention head; 100 for 3B, 128 for 7B."""
        return self.n_embd // self.n_head

    @property
    def mlp_size(self) -> int:
        """Hidden width of the MLP: 8/3 of the model width, rounded up to a multiple of 256."""
        hidden = int(2 * (4 * self.n_embd) / 3)
        return -(-hidden // 256) * 256

    @property
    def end_id(self) -> int:
        """END, which the model predicts after the last motion code."""
        return self.vocab_size - 2

    @property
    def pad_id(self) -> int:
        """PAD, which fills rows and is never predicted."""
        return self.vocab_size - 1

    def check_length(self, positions: int) -> None:
        """``ValueError`` if a row of so many positions, text and motion together, is too long."""
        if positions > self.block_size:
            raise ValueError(
                f"text and motion together take {positions} positions, the model has block_size="
                f"{self.block_size}; shorten the text or ask for fewer tokens"
            )


class LLaMAHF(nn.Module):
    """Text features and motion ids in, logits over codes and END out."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.config = config
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size - 1, bias=False)
        self.transformer = Transformer(config)
        self.llama_proj = nn.Linear(config.clip_dim, config.n_embd)
        if config.tie_weights:  # the table then has a row for PAD; `head` cuts it off
            self.lm_head.weight = self.transformer.wte.weight
        # training: keep what enters each block, and compute what is inside again on the way back
        self.checkpoint_blocks = False

    def forward(self, idx: Tensor, text_features: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (b, t, v - 1) for every position of rows laid out as the module's docstring shows.

        `idx` (b, t): each row starts with as many PAD as it has text; `text_features` (b, n, clip_dim) and
        `text_mask` (b, n), True on real text, contiguous from the left.
        """
        return self.head(self.hidden(idx, text_features, text_mask))

    def next_token_loss(self, idx: Tensor, text_features: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of each row's motion and END given what comes before, and the accuracy of arg-max.

        The head runs on the positions that have a target alone, so no logits exist for text and padding.
        """
        targets = idx[:, 1:]
        wanted = targets != self.config.pad_id
        hidden = self.hidden(idx[:, :-1], text_features, text_mask)
        logits = self.head(hidden[wanted]).float()
        loss = F.cross_entropy(logits, targets[wanted])
        return loss, (logits.detach().argmax(dim=-1) == targets[wanted]).float().mean()

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., v - 1) of hidden states (..., d)."""
        logits: Tensor = self.lm_head(hidden)
        return logits[..., : self.config.vocab_size - 1] if self.config.tie_weights else logits

    def hidden(self, idx: Tensor, text_features: Tensor, text_mask: Tensor) -> Tensor:
        """Last hidden states (b, t, d)."""
        frame = idx.shape[1]
        self.config.check_length(frame)
        text_mask = text_mask.bool()[:, :frame]
        x = self.transformer.wte(idx)
        text = self.llama_proj(text_features[:, :frame].to(x.dtype))
        width = text_mask.shape[1]
        x = torch.cat([torch.where(text_mask[..., None], text, x[:, :width]), x[:, width:]], dim=1)
        mask = prefix_mask(F.pad(text_mask, (0, frame - width)))
        rope = self.rope(idx.device)[:frame]
        for block in self.transformer.h:
            if self.checkpoint_blocks and torch.is_grad_enabled():
                # shapes are not compared: under ZeRO 3 a weight is empty where it is not in use
                x = checkpoint(block, x, rope, mask, use_reentrant=False, determinism_check="none")
            else:
                x = block(x, rope, mask)
        return self.transformer.ln_f(x)  # type: ignore[no-any-return]

    def rope(self, device: torch.device) -> Tensor:
        """The rotary table (block_size, head_size / 2, 2)."""
        return rope_table(self.config.block_size, self.config.head_size, self.config.rope_dtype, device)

    # --- sampling -------------------------------------------------------------------------------------------------

    def generate(
        self,
        text_features: Tensor,
        text_mask: Tensor,
        max_new_tokens: int | Sequence[int] | Tensor = 150,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        min_new_tokens: int | Sequence[int] | Tensor = 0,
    ) -> Generation:
        """Motion codes for a batch of texts; see `generation.generate`."""
        return generate(
            self, text_features, text_mask, max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens,
            do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator,
        )  # fmt: skip

    def sample(
        self,
        text_features: Tensor,
        text_mask: Tensor,
        max_sample_steps: int = 50,
        do_sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Upstream's sampler, without a cache, for one text: codes (1, l). The oracle that others are tested against.

        Keeps upstream's answer [[1]] (code 1, two frames) when END comes first; `generate` says length 0 instead.
        """
        return sample_uncached(self, text_features, text_mask, max_sample_steps, do_sample, generator)

    def sample_cached(
        self,
        text_features: Tensor,
        text_mask: Tensor,
        max_sample_steps: int = 150,
        do_sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The tokens of `sample` from a cache."""
        if len(text_features) != 1:
            raise ValueError(f"sample_cached takes one text, got {len(text_features)}; use generate for more")
        out = self.generate(text_features, text_mask, max_sample_steps, do_sample=do_sample, generator=generator)
        return out.tokens if int(out.lengths) else torch.ones_like(text_mask[:1, :1], dtype=torch.long)


class Transformer(nn.Module):
    """Embedding table, blocks and last norm, under the prefix that checkpoints give them."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = RMSNorm(config.n_embd)

    def blocks(self) -> list[Block]:
        """`h`, typed."""
        return [block for block in self.h if isinstance(block, Block)]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.rms_1 = RMSNorm(config.n_embd)
        self.attn = LengthCausalSelfAttention(config)
        self.rms_2 = RMSNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor) -> Tensor:
        """(b, t, d) to (b, t, d)."""
        x = x + self.attn(self.rms_1(x), rope, mask)
        return x + self.mlp(self.rms_2(x))  # type: ignore[no-any-return]


class LengthCausalSelfAttention(nn.Module):
    """Multi-head attention; rows of `c_attn` are all queries, then all keys, then all values, heads contiguous."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor) -> Tensor:
        """`mask`, broadcast to (b, heads, t, keys), is True where a query may look."""
        q, k, v = rearrange(self.c_attn(x), "b t (three h s) -> three b h t s", three=3, h=self.n_head)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.c_proj(rearrange(out, "b h t s -> b t (h s)"))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.c_fc1 = nn.Linear(config.n_embd, config.mlp_size, bias=False)
        self.c_fc2 = nn.Linear(config.n_embd, config.mlp_size, bias=False)
        self.c_proj = nn.Linear(config.mlp_size, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        return self.c_proj(F.silu(self.c_fc1(x)) * self.c_fc2(x))  # type: ignore[no-any-return]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-5) * scale, in the dtype of x."""

    def __init__(self, size: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-5) * self.scale


def prefix_mask(is_text: Tensor) -> Tensor:
    """Who sees whom, (b, 1, t, t), from `is_text` (b, t): text sees text, everything sees the past and itself."""
    t = is_text.shape[1]
    past = torch.ones(t, t, dtype=torch.bool, device=is_text.device).tril()
    return (past | (is_text[:, :, None] & is_text[:, None, :]))[:, None]
