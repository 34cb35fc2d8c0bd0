"""Sizes of the transformer, and the published ones by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hftrainer.models.motion.motionmillion.network.rope import ROPE_DTYPES

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
