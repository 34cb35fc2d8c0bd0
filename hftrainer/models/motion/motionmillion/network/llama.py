"""The transformer of Go to Zero: a LLaMA-style prefix language model over motion codes (arXiv 2507.07095).

A row is text, then motion, in one sequence of positions without a gap or a separator:

    position   0 .. n-1                n .. n+m-1        n+m    after that
    input      projected text          motion codes      END    PAD
    sees       all text of its row     text and the past

Names of modules are those of released checkpoints, whose text encoder once was CLIP: `clip_dim` is the width of the
text features (2048 for Flan-T5-XL). `Block.forward` is the only forward: of training, of running a text, and, with a
cache, of decoding one code a row (`engine/`). Shapes: b rows, t positions, d model width, v = codebook_size + 2 ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hftrainer.models.motion.motionmillion.network.attention import Reads, additive, attend
from hftrainer.models.motion.motionmillion.network.kv_cache import LayerCache
from hftrainer.models.motion.motionmillion.network.linear_cross_entropy import linear_cross_entropy
from hftrainer.models.motion.motionmillion.network.llama_config import PRESETS, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.rope import apply_rope, rope_table

if TYPE_CHECKING:
    from hftrainer.models.motion.motionmillion.engine.generate import Generation

__all__ = ["PRESETS", "LLaMAHF", "LLaMAHFConfig"]


def _is_plain_on_cpu(head: nn.Module) -> bool:
    """Whether the head's matrix may be used without calling the head: no adapter, no hook that gathers it first."""
    if type(head) is not nn.Linear or head._forward_pre_hooks or type(head.weight.data) is not Tensor:
        return False
    return head.weight.device.type == "cpu"


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
        # what the engine keeps between calls: prepared weights, caches, graphs
        self.prepared: Any = None
        # on CUDA, fuse a step's kernels by torch's compiler: 400 of 7B's instead of 1,073, for minutes of compiling
        self.compile_steps = False

    def forward(self, idx: Tensor, text_features: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (b, t, v - 1) for every position of rows laid out as the module's docstring shows.

        `idx` (b, t): each row starts with as many PAD as it has text; `text_features` (b, n, clip_dim) and
        `text_mask` (b, n), True on real text, contiguous from the left.
        """
        return self.head(self.hidden(idx, text_features, text_mask))

    def next_token_loss(self, idx: Tensor, text_features: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of each row's motion and END given what comes before, and the accuracy of arg-max.

        The head runs only on positions that have a target, so no logits exist for text and padding.
        """
        targets = idx[:, 1:]
        wanted = targets != self.config.pad_id
        hidden = self.hidden(idx[:, :-1], text_features, text_mask)
        if _is_plain_on_cpu(self.lm_head) and hidden.requires_grad:
            return linear_cross_entropy(
                hidden[wanted], self.lm_head.weight[: self.config.vocab_size - 1], targets[wanted]
            )
        logits = self.head(hidden[wanted]).float()
        loss = F.cross_entropy(logits, targets[wanted])
        return loss, (logits.detach().argmax(dim=-1) == targets[wanted]).float().mean()

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., v - 1) of hidden states (..., d)."""
        logits: Tensor = self.lm_head(hidden)
        return logits[..., : self.config.vocab_size - 1] if self.config.tie_weights else logits

    def hidden(self, idx: Tensor, text_features: Tensor, text_mask: Tensor) -> Tensor:
        """Last hidden states (b, t, d), normalized for the head."""
        self.config.check_length(idx.shape[1])
        x, is_text = self.embed_rows(idx, text_features, text_mask)
        mask = additive(prefix_mask(is_text), x.dtype)
        rotary = self.rotary(idx.device)[: idx.shape[1], None, None]
        return self.transformer.ln_f(self.transformer(x, rotary, mask))  # type: ignore[no-any-return]

    def embed_rows(self, idx: Tensor, text_features: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Input vectors (b, t, d) of rows, and which positions are text (b, t)."""
        length = idx.shape[1]
        text_mask = text_mask.bool()[:, :length]
        x = self.transformer.wte(idx)
        text = self.llama_proj(text_features[:, :length].to(x.dtype))
        width = text_mask.shape[1]
        x = torch.cat([torch.where(text_mask[..., None], text, x[:, :width]), x[:, width:]], dim=1)
        return x, F.pad(text_mask, (0, length - width))

    def rotary(self, device: torch.device) -> Tensor:
        """e^(i angle) of every position, complex (block_size, head_size / 2)."""
        config = self.config
        return torch.view_as_complex(rope_table(config.block_size, config.head_size, config.rope_dtype, device))

    # --- sampling; see `engine` -----------------------------------------------------------------------------------

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
        """Motion codes for a batch of texts; see `engine.generate.generate`."""
        from hftrainer.models.motion.motionmillion.engine.generate import generate

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
        from hftrainer.models.motion.motionmillion.engine.generate import sample_uncached

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

    def train(self, mode: bool = True) -> LLaMAHF:
        """As every module; training also frees what sampling keeps in memory."""
        if mode:
            self.prepared = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "prepared": None}


class Transformer(nn.Module):
    """Embedding table, blocks and last norm, under the prefix that checkpoints give them."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.wte = CodeTable(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = RMSNorm(config.n_embd)
        # training: keep what enters each block, and compute what is inside again on the way back
        self.checkpoint_blocks = False

    def forward(
        self, x: Tensor, rotary: Tensor, mask: Tensor | Reads | None, cache: Sequence[LayerCache] | None = None
    ) -> Tensor:
        """All blocks, (b, t, d) to (b, t, d); `cache` has one part a block. `ln_f` comes after it."""
        for i, block in enumerate(self.h):
            if self.checkpoint_blocks and torch.is_grad_enabled():
                # shapes are not compared: under ZeRO 3 a weight is empty where it is not in use
                x = checkpoint(block, x, rotary, mask, use_reentrant=False, determinism_check="none")
            else:
                x = block(x, rotary, mask, cache[i] if cache is not None else None)
        return x

    def blocks(self) -> list[Block]:
        """`h`, typed."""
        return [block for block in self.h if isinstance(block, Block)]


class CodeTable(nn.Embedding):
    """An embedding table that is not filled where it has no memory: torch imports its compiler to do so."""

    def reset_parameters(self) -> None:
        """Random values, but not on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.rms_1 = RMSNorm(config.n_embd)
        self.attn = LengthCausalSelfAttention(config)
        self.rms_2 = RMSNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, rotary: Tensor, mask: Tensor | Reads | None, cache: LayerCache | None = None
    ) -> Tensor:
        """(b, t, d) to (b, t, d); see `LengthCausalSelfAttention.forward`."""
        x = x + self.attn(self.rms_1(x), rotary, mask, cache)
        return x + self.mlp(self.rms_2(x))  # type: ignore[no-any-return]


class LengthCausalSelfAttention(nn.Module):
    """Multi-head attention; rows of `c_attn` are all queries, then all keys, then all values, heads contiguous."""

    def __init__(self, config: LLaMAHFConfig):
        super().__init__()
        self.n_head, self.scale = config.n_head, config.head_size**-0.5
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(
        self, x: Tensor, rotary: Tensor, mask: Tensor | Reads | None, cache: LayerCache | None = None
    ) -> Tensor:
        """(b, t, d) to (b, t, d). `rotary` broadcasts to (b, t, 2, heads, head_size / 2). With a `cache` queries look
        at all that it holds, else at the t positions themselves; `mask` as `attend` takes it."""
        rows, length, _ = x.shape
        qkv = self.c_attn(x).view(rows, length, 3, self.n_head, -1)
        q, k = apply_rope(qkv[:, :, :2], rotary).permute(2, 0, 3, 1, 4)
        v = qkv[:, :, 2].transpose(1, 2)
        if cache is not None:
            k, v = cache.update(k, v)
        out = attend(q, k, v, mask, self.scale)
        return self.c_proj(out.transpose(1, 2).reshape(rows, length, -1))  # type: ignore[no-any-return]


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
    """x / sqrt(mean(x^2) + 1e-5) * scale, in the dtype of x, as the released model rounds in bfloat16."""

    epsilon = 1e-5

    def __init__(self, size: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        wide = x.float() if x.dtype == torch.float16 else x  # squares of what is above 256 overflow in float16
        return (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.epsilon)).to(x.dtype) * self.scale


def prefix_mask(is_text: Tensor) -> Tensor:
    """Who sees whom, (b, 1, t, t), from `is_text` (b, t): text sees text, everything sees the past and itself."""
    t = is_text.shape[1]
    past = torch.ones(t, t, dtype=torch.bool, device=is_text.device).tril()
    return (past | (is_text[:, :, None] & is_text[:, None, :]))[:, None]
