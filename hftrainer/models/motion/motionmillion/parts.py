"""The parts of Go to Zero under their registered names, each with the dataclass that its section of a config fills."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from math import prod
from typing import Any

from hftrainer.config import plain
from hftrainer.models.motion.motionmillion.network.ema import EMAQuantizer
from hftrainer.models.motion.motionmillion.network.fsq import FSQ, LEVELS_OF_NB_CODE
from hftrainer.models.motion.motionmillion.network.llama import LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.vqvae import HumanVQVAE
from hftrainer.registry import QUANTIZERS, TOKENIZERS, TRANSFORMERS, part


@dataclass
class FSQConfig:
    """`levels`: how many values each latent channel is rounded to; their product is the size of the codebook."""

    levels: list[int] = field(default_factory=lambda: list(LEVELS_OF_NB_CODE[65536]))

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"every FSQ level needs at least 2 values, got levels={list(self.levels)}")

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return prod(self.levels)


@QUANTIZERS.register("fsq")
class FSQPart(FSQ):
    """Finite scalar quantization, as released."""

    Config = FSQConfig

    @classmethod
    def from_config(cls, config: FSQConfig, *, dim: int) -> FSQPart:
        """A new quantizer of latents of width `dim`."""
        return cls(config.levels, dim)


@dataclass
class EMAConfig:
    """`codes` of them; `decay` of their moving averages; codes used less than `dead_below` times a batch are moved."""

    codes: int = 512
    decay: float = 0.99
    dead_below: float = 1.0

    def __post_init__(self) -> None:
        if self.codes < 2 or not 0 <= self.decay < 1 or self.dead_below < 0:
            raise ValueError(f"codes must be at least 2, decay in [0, 1), dead_below not negative; got {self}")

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.codes


@QUANTIZERS.register("ema")
class EMAPart(EMAQuantizer):
    """A plain codebook that follows the data: for small tokenizers."""

    Config = EMAConfig

    @classmethod
    def from_config(cls, config: EMAConfig, *, dim: int) -> EMAPart:
        """A new quantizer of latents of width `dim`."""
        return cls(config.codes, dim, decay=config.decay, dead_below=config.dead_below)


@dataclass
class HumanVQVAEConfig:
    """The arguments of `HumanVQVAE`, with the released values as defaults.

    `nb_code` names a level table of the release; `quantizer` ({name: fsq, levels: [...]}, {name: ema, codes: ...})
    replaces it. `input_dim`: the width of the representation.
    """

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
    quantizer: Any = part(QUANTIZERS)

    def __post_init__(self) -> None:
        if self.quantizer is None and self.nb_code not in LEVELS_OF_NB_CODE:
            raise ValueError(f"no FSQ level table for nb_code={self.nb_code}; known: {sorted(LEVELS_OF_NB_CODE)}")

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """`levels` is the quantizer's."""
        levels = fields.pop("levels", None)
        if levels is not None:
            say_deprecated(f"{path}.levels", f"{path}.quantizer: {{name: fsq, levels: {list(levels)}}}")
            fields["quantizer"] = {"name": "fsq", "levels": levels}
        return fields

    @property
    def codebook_size(self) -> int:
        """Number of codes; not `nb_code`, which is only the name of a level table."""
        if self.quantizer is not None:
            return int(self.quantizer.config.codebook_size)
        return prod(LEVELS_OF_NB_CODE[self.nb_code])


@TOKENIZERS.register("human_vqvae")
class HumanVQVAEPart(HumanVQVAE):
    """The tokenizer of Go to Zero, with any quantizer."""

    Config = HumanVQVAEConfig

    @classmethod
    def from_config(cls, config: HumanVQVAEConfig) -> HumanVQVAEPart:
        """A new tokenizer with random weights."""
        fields = plain(config)
        quantizer = config.quantizer.build(dim=config.code_dim) if config.quantizer is not None else None
        return cls(**{**fields, "quantizer": quantizer})


@TRANSFORMERS.register("llama")
class LLaMAPart(LLaMAHF):
    """The transformer of Go to Zero."""

    Config = LLaMAHFConfig


def say_deprecated(old: str, new: str) -> None:
    """A warning that an earlier release's key was read, and what to write."""
    warnings.warn(f"{old} is read for this release only; write {new}", FutureWarning, stacklevel=2)
