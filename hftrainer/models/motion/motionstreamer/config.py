"""Sizes of the MotionStreamer-272 evaluator; the defaults are the released one's."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TextModelConfig:
    """The language model below the text encoder.

    `source`: a folder or hub name with its weights and tokenizer. Without it a new DistilBERT of the sizes given here
    is made, whose vocabulary training takes from its captions (at most `vocab_size` pieces).
    """

    source: str | None = "distilbert-base-uncased"
    vocab_size: int = 2000
    width: int = 128
    layers: int = 3
    heads: int = 4
    hidden: int = 512
    max_tokens: int = 128


@dataclass
class MotionStreamer272Config:
    """The two encoders. `num_heads` is 4: upstream's YAML says 6, under a key that its code does not read.

    `max_motion_length` is the longest clip (frames) that may be encoded, as the released mask is that wide;
    `unit_length` is what protocols round lengths down to, and is only carried along.
    """

    motion_features: int = 272
    latent_dim: int = 256
    num_layers: int = 4
    num_heads: int = 4
    ff_size: int = 1024
    dropout: float = 0.1
    positions: int = 5000
    max_motion_length: int = 300
    unit_length: int = 4
    fps: float = 30.0
    motion_representation: str = "MotionStreamer-272"
    text: TextModelConfig = field(default_factory=TextModelConfig)

    def __post_init__(self) -> None:
        if self.latent_dim % self.num_heads or self.latent_dim % 2:
            raise ValueError(
                f"latent_dim must be even and divide into num_heads={self.num_heads} heads, got {self.latent_dim}"
            )
        if self.max_motion_length + 2 > self.positions:
            raise ValueError(
                f"positions={self.positions} must hold max_motion_length={self.max_motion_length} frames and two tokens"
            )
