"""What is asked of a model that generates motion: plain data, from the command line down to the scheduler."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any


def check_whole(name: str, value: Any) -> None:
    """Raise ``TypeError`` that names the argument for what is no whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")


def check_number(name: str, value: Any) -> None:
    """Raise ``TypeError`` that names the argument for what is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_seed(seed: Any) -> None:
    """Raise for what is no seed of torch's generators: whole, from -2**63 to 2**64 - 1; None is any seed."""
    if seed is None:
        return
    check_whole("seed", seed)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must fit into 64 bits, got {seed}")


@dataclass(frozen=True)
class SamplingParams:
    """How each code is chosen: the likeliest, or with `do_sample` at random.

    `temperature` above 1 flattens the distribution, below 1 sharpens it; then only the `top_k` likeliest ids stay, and
    of those the smallest set whose probability reaches `top_p`. `min_new_tokens`: END is not allowed before.
    `guidance_scale` above 1 enlarges what the text changes (classifier-free guidance); a step then takes twice as long,
    and the model must have been trained with empty texts. Raises ``ValueError`` for values that mean nothing.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_new_tokens: int = 0
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature)
        if self.top_k is not None:
            check_whole("top_k", self.top_k)
        if self.top_p is not None:
            check_number("top_p", self.top_p)
        if not 1e-4 <= self.temperature <= 1e4:  # also refuses NaN
            raise ValueError(
                f"temperature must be between 0.0001 and 10000, got {self.temperature}; "
                "for the most likely motion, use greedy decoding"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.min_new_tokens < 0:
            raise ValueError(f"min_new_tokens must not be negative, got {self.min_new_tokens}")
        if self.guidance_scale is not None:
            check_number("guidance_scale", self.guidance_scale)
            if not 0 <= self.guidance_scale <= 100:  # also refuses NaN
                raise ValueError(f"guidance_scale must be between 0 and 100, got {self.guidance_scale}; 1 is none")

    def record(self) -> dict[str, Any]:
        """The fields as manifests have them: those of models without guidance are what they were before there was any,
        so that finished motions are kept."""
        fields = asdict(self)
        if self.guidance_scale is None:
            del fields["guidance_scale"]
        return fields

    @property
    def is_guided(self) -> bool:
        """Whether a step also has to know what comes without a text."""
        return self.guidance_scale is not None and self.guidance_scale != 1


def warn_of_guidance(own: SamplingParams, asked: SamplingParams) -> None:
    """Warn where guidance is `asked` of a model whose `own` settings name none: without training on empty texts, what
    it is guided away from means nothing."""
    if asked.is_guided and own.guidance_scale is None:
        warnings.warn(
            f"guidance_scale={asked.guidance_scale:g} is used, but this model's generation_config.json names none; "
            "guidance spoils motions of models that were not trained with empty texts (task.text_dropout)",
            stacklevel=3,
        )


@dataclass(frozen=True)
class GenerationRequest:
    """One motion to make of `caption`, drawn with `seed` (None: any).

    It has at most `max_new_tokens` codes (None: as many as the model makes), END is not allowed before
    `min_new_tokens` of them, and it is cut to `frames` frames where that is given.
    """

    caption: str
    seed: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    frames: int | None = None
