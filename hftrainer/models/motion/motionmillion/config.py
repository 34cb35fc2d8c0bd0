"""What a Go to Zero model consists of, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hftrainer.config import ConfigError
from hftrainer.models.motion.motionmillion.parts import HumanVQVAEConfig, say_deprecated
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.registry import TEXT_ENCODERS, TOKENIZERS, TRANSFORMERS, Part, part

__all__ = ["HumanVQVAEConfig", "InitFrom", "MotionMillionConfig"]
TRAINING_SPLITS = ("train", "all", "unknown")
_RELEASED = {"tokenizer": "human_vqvae", "ar": "llama", "text_encoder": "t5"}


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
    """Tokenizer, transformer and text encoder by name; a model may do without the last two (a tokenizer only).

    `training_splits`: "train", "all" (test included, so that test-set leaderboards mean nothing) or "unknown".
    `representation`: what its motions are, by name; None is the data's that a tokenizer trains on, motion272 elsewhere.
    """

    tokenizer: Any = part(TOKENIZERS, "human_vqvae")
    ar: Any = part(TRANSFORMERS)
    text_encoder: Any = part(TEXT_ENCODERS)
    init: InitFrom = field(default_factory=InitFrom)
    training_splits: str = "unknown"
    representation: str | None = None

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # a part may be given by its configuration
            value, registry = getattr(self, f.name), f.metadata.get("registry")
            if registry is not None and value is not None and not isinstance(value, Part):
                setattr(self, f.name, registry.part_of(value))

    @classmethod
    def upgrade(cls, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """The tokenizer was called vqvae, and parts had no names."""
        if "vqvae" in fields and "tokenizer" in fields:
            raise ConfigError(f"{path}.vqvae is now {path}.tokenizer, and both are given; write only the latter")
        if "vqvae" in fields:
            say_deprecated(f"{path}.vqvae", f"{path}.tokenizer: {{name: human_vqvae, ...}}")
            fields["tokenizer"] = {"name": "human_vqvae", **fields.pop("vqvae")}
        for key, name in _RELEASED.items():
            section = fields.get(key)
            if isinstance(section, dict) and "name" not in section:
                say_deprecated(f"{path}.{key} without a name", f"{path}.{key}: {{name: {name}, ...}}")
                fields[key] = {"name": name, **section}
        return fields

    @property
    def motions(self) -> str:
        """The name of what its motions are."""
        return self.representation or DEFAULT

    @property
    def motion_width(self) -> int:
        """Features of a frame."""
        return int(getattr(self.tokenizer.config, "input_dim", None) or get_representation(self.motions).width)

    def check(self) -> None:
        """Raise ``ValueError`` where the parts do not fit each other."""
        if self.representation is not None:
            width = get_representation(self.representation).width
            self._check_width("model.representation", self.representation, width)
        if self.training_splits not in TRAINING_SPLITS:
            raise ValueError(f"training_splits must be one of {TRAINING_SPLITS}, got {self.training_splits!r}")
        if self.text_encoder is not None:
            missing = [name for name in ("source", "max_tokens") if not hasattr(self.text_encoder.config, name)]
            if missing:
                raise ValueError(
                    f"the Config of the text encoder {self.text_encoder.name!r} has no {' and no '.join(missing)}: a "
                    "saved model could not be read back; `source` is the folder of its files, `max_tokens` its limit"
                )
        if self.init.tokenizer is not None:
            return  # whose codes are counted when it has been read
        codes = getattr(self.tokenizer.config, "codebook_size", None)
        vocabulary = getattr(self.ar.config, "vocab_size", None) if self.ar is not None else None
        if codes is not None and vocabulary is not None and vocabulary != codes + 2:
            raise ValueError(
                f"ar.vocab_size={vocabulary} must be the tokenizer's {codes} codes + 2 (END and PAD) = {codes + 2}"
            )

    def check_data(self, representation: str | None, width: int) -> None:
        """Raise `ConfigError` where a tokenizer cannot be trained on motions of this `representation` and `width`."""
        self._check_width("the representation of the dataset (data.root)", representation or "not named", width)
        if representation is not None and self.representation not in (None, representation):
            raise ConfigError(
                f"model.representation={self.representation}, but that of the dataset (data.root) is "
                f"{representation}; they must be the same"
            )

    def _check_width(self, where: str, name: str, width: int) -> None:
        reads = getattr(self.tokenizer.config, "input_dim", None)
        if reads is not None and reads != width:
            raise ConfigError(
                f"model.tokenizer.input_dim={reads}, but {where} is {name}, with {width} features; "
                f"write model.tokenizer.input_dim: {width}, or choose other motions"
            )


def check_same_sizes(written: Part | None, found: Part | None, folder: str) -> None:
    """Raise `ConfigError` where model.ar says other sizes than the transformer that ``model.init.ar`` names has."""
    if found is None:
        raise ConfigError(f"model.init.ar: {folder} has no transformer")
    if written is None:
        return
    if written.name != found.name:
        raise ConfigError(f"model.ar.name={written.name}, but {folder} (model.init.ar) holds a {found.name}")
    for name in ("n_layer", "n_head", "n_embd", "vocab_size", "clip_dim", "block_size"):
        wanted, there = getattr(written.config, name, None), getattr(found.config, name, None)
        if wanted != there:
            raise ConfigError(
                f"model.ar.{name}={wanted}, but the transformer in {folder} (model.init.ar) has {there}; "
                "write that, or leave model.ar out"
            )


def check_encoder_width(ar: Part | None, width: int | None) -> None:
    """Raise `ConfigError` unless the transformer reads features as wide as the encoder makes them."""
    reads = getattr(ar.config, "clip_dim", None) if ar is not None else None
    if reads is not None and width is not None and width != reads:
        raise ConfigError(f"model.ar.clip_dim={reads} must be the text encoder's width {width}")
