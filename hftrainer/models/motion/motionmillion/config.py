"""What a Go to Zero model consists of, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from hftrainer.config import ConfigError
from hftrainer.models.motion.motionmillion.network.fsq import LEVELS_OF_NB_CODE
from hftrainer.models.motion.motionmillion.network.llama import LLaMAHFConfig
from hftrainer.models.text_encoder import TextEncoderConfig

TRAINING_SPLITS = ("train", "all", "unknown")


@dataclass
class HumanVQVAEConfig:
    """The arguments of `HumanVQVAE`, with the released values as defaults."""

    nb_code: int = 65536
    code_dim: int = 512
    output_emb_width: int = 512
    down_t: int = 1
    stride_t: int = 2
    width: int = 512
    depth: int = 3
    dilation_growth_rate: int = 3
    activation: str = "relu"
    norm: str | None = "LN"
    kernel_size: int = 3
    use_patcher: bool = True
    patch_size: int = 1
    patch_method: str = "haar"
    input_dim: int = 272
    levels: list[int] | None = None

    def __post_init__(self) -> None:
        if self.levels is None and self.nb_code not in LEVELS_OF_NB_CODE:
            raise ValueError(f"no FSQ level table for nb_code={self.nb_code}; known: {sorted(LEVELS_OF_NB_CODE)}")

    @property
    def codebook_size(self) -> int:
        """Number of codes; not `nb_code`, which is only the name of a level table."""
        return prod(self.levels or LEVELS_OF_NB_CODE[self.nb_code])


@dataclass
class InitFrom:
    """Artifact folders that parts are taken from, weights and sizes both.

    `text_features`: a file of stored features, in place of the encoder that made them.
    """

    tokenizer: str | None = None
    ar: str | None = None
    text_encoder: str | None = None
    text_features: str | None = None


@dataclass
class MotionMillionConfig:
    """Tokenizer, transformer and text encoder; a model may lack the last two (a tokenizer alone).

    `training_splits`: "train", "all" (test included, so that test-set leaderboards mean nothing) or "unknown".
    """

    vqvae: HumanVQVAEConfig = field(default_factory=HumanVQVAEConfig)
    ar: LLaMAHFConfig | None = None
    text_encoder: TextEncoderConfig | None = None
    init: InitFrom = field(default_factory=InitFrom)
    training_splits: str = "unknown"

    def check(self) -> None:
        """Raise ``ValueError`` where the parts do not fit each other."""
        if self.training_splits not in TRAINING_SPLITS:
            raise ValueError(f"training_splits must be one of {TRAINING_SPLITS}, got {self.training_splits!r}")
        if self.ar is not None and self.ar.vocab_size != self.vqvae.codebook_size + 2:
            raise ValueError(
                f"ar.vocab_size={self.ar.vocab_size} must be the tokenizer's {self.vqvae.codebook_size} codes + 2 "
                f"(END and PAD) = {self.vqvae.codebook_size + 2}"
            )


def check_same_sizes(written: LLaMAHFConfig | None, found: LLaMAHFConfig | None, folder: str) -> None:
    """Raise `ConfigError` where model.ar says other sizes than the transformer that ``model.init.ar`` names has."""
    if found is None:
        raise ConfigError(f"model.init.ar: {folder} has no transformer")
    for name in ("n_layer", "n_head", "n_embd", "vocab_size", "clip_dim", "block_size"):
        if written is not None and getattr(written, name) != getattr(found, name):
            raise ConfigError(
                f"model.ar.{name}={getattr(written, name)}, but the transformer in {folder} (model.init.ar) has "
                f"{getattr(found, name)}; write that, or leave model.ar out"
            )


def check_encoder_width(ar: LLaMAHFConfig | None, width: int | None) -> None:
    """Raise `ConfigError` unless the transformer reads features as wide as the encoder makes them."""
    if ar is not None and width is not None and width != ar.clip_dim:
        raise ConfigError(f"model.ar.clip_dim={ar.clip_dim} must be the text encoder's width {width}")
