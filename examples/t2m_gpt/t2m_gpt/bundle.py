"""The parts of a T2M-GPT model: VQ-VAE, GPT, text encoder, and the statistics of its motions."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hftrainer.config import plain, typed
from hftrainer.files import atomic_folder, sha256, write_json
from hftrainer.manifest import write_manifest
from hftrainer.models.checkpoint import assign, find_weights, open_checkpoint, write_module
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.statistics import load_statistics
from hftrainer.readers import read_json
from hftrainer.registry import MODELS, QUANTIZERS, TEXT_ENCODERS, part
from t2m_gpt.network import MotionVQVAE, TextGPT


@dataclass
class VQVAEConfig:
    """`quantizer`: a name in QUANTIZERS; the paper's codebook has 512 codes that follow the data."""

    width: int = 512
    down: int = 2
    depth: int = 3
    quantizer: Any = part(QUANTIZERS, "ema")


@dataclass
class GPTConfig:
    """The paper's sizes; `longest`: codes of a motion, `text_width`: of the text encoder's features."""

    text_width: int = 512
    width: int = 1024
    layers: int = 18
    heads: int = 16
    longest: int = 50
    dropout: float = 0.1


@dataclass
class T2MGPTConfig:
    """A VQ-VAE only, or with `gpt` and `text_encoder` the complete model.

    `tokenizer_from`: a folder with a trained VQ-VAE, whose sizes and statistics are taken too.
    """

    vqvae: VQVAEConfig = field(default_factory=VQVAEConfig)
    gpt: GPTConfig | None = None
    text_encoder: Any = part(TEXT_ENCODERS)
    tokenizer_from: str | None = None
    representation: str = "hml263"

    def __post_init__(self) -> None:
        if (self.gpt is None) != (self.text_encoder is None):
            raise ValueError("gpt and text_encoder belong together: give both, or neither")


@MODELS.register("t2m_gpt")
class T2MGPT(nn.Module):
    """`vqvae`, and `gpt` and `text_encoder` or None. Motion passes in and out in physical units."""

    Config = T2MGPTConfig
    pipeline = "t2m_gpt"
    mean: Tensor
    std: Tensor

    def __init__(self, config: T2MGPTConfig, *, text_encoder: Any = None):
        super().__init__()
        self.config = config
        form = get_representation(config.representation)
        sizes = config.vqvae
        quantizer = sizes.quantizer.build(dim=sizes.width)
        self.vqvae = MotionVQVAE(
            quantizer, motion_width=form.width, width=sizes.width, down=sizes.down, depth=sizes.depth
        )
        self.text_encoder = text_encoder
        self.gpt = None
        if config.gpt is not None:
            self.gpt = TextGPT(quantizer.codebook_size, **plain(config.gpt))
            self._check_text()
        self.register_buffer("mean", torch.zeros(form.width), persistent=False)
        self.register_buffer("std", torch.ones(form.width), persistent=False)
        self.tokenizer_sha256: str | None = None  # of a VQ-VAE that a folder holds

    @classmethod
    def from_config(cls, config: T2MGPTConfig) -> T2MGPT:
        """A new model, but for the VQ-VAE of `tokenizer_from`."""
        trained = cls.from_pretrained(config.tokenizer_from, text=False) if config.tokenizer_from is not None else None
        if trained is not None:
            config = dataclasses.replace(
                config, vqvae=trained.config.vqvae, representation=trained.config.representation
            )
        encoder = config.text_encoder.build() if config.text_encoder is not None else None
        bundle = cls(config, text_encoder=encoder)
        if trained is not None:
            bundle.vqvae.load_state_dict(trained.vqvae.state_dict())
            bundle.set_statistics(trained.mean, trained.std)
            bundle.tokenizer_sha256 = trained.tokenizer_sha256
        return bundle.eval()

    @classmethod
    def outline(cls, config: T2MGPTConfig) -> tuple[T2MGPT, list[str]]:
        """The model on the meta device; a VQ-VAE and an encoder that are not here are counted as configured."""
        encoder, notes = None, []
        if config.text_encoder is not None:
            encoder_class: Any = TEXT_ENCODERS.get(config.text_encoder.name)
            encoder, notes = encoder_class.outline(config.text_encoder.config, width=config.gpt.text_width)
        if config.tokenizer_from is not None:
            notes = [*notes, f"the VQ-VAE of {config.tokenizer_from} is counted as it is configured"]
        return cls(config, text_encoder=encoder), notes

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        text: bool = True,
    ) -> T2MGPT:
        """Read a folder that `save_pretrained` wrote; `dtype` is the GPT's, without `text` only the VQ-VAE is read."""
        folder = Path(folder)
        config = typed(T2MGPTConfig, read_json(folder / "config.json"), path=f"{folder / 'config.json'}")
        if not text:
            config = dataclasses.replace(config, gpt=None, text_encoder=None)
        encoder = None
        if config.text_encoder is not None:
            config.text_encoder.config.source = str(folder / "text_encoder")
            encoder = config.text_encoder.build()
        bundle = cls(config, text_encoder=encoder)
        for stem, module, kind in (("vqvae", bundle.vqvae, None), ("gpt", bundle.gpt, dtype)):
            if module is not None:
                path = find_weights(folder, stem)
                assign(module, open_checkpoint(path), source=str(path), dtype=kind)
        form = get_representation(config.representation)
        bundle.set_statistics(*load_statistics(folder / "mean.npy", folder / "std.npy", form))
        files = (find_weights(folder, "vqvae"), folder / "mean.npy", folder / "std.npy")
        bundle.tokenizer_sha256 = "-".join(sha256(path)[:16] for path in files)
        return bundle.to(device).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model's folder. It appears complete or not at all."""
        with atomic_folder(folder) as staging:
            write_module(self.vqvae, staging, "vqvae")
            config = plain(self.config) | {"tokenizer_from": None}
            if self.gpt is not None:
                write_module(self.gpt, staging, "gpt")
                self.text_encoder.save_artifact(staging / "text_encoder")
                config["text_encoder"]["source"] = "text_encoder"
            for name, values in (("mean.npy", self.mean), ("std.npy", self.std)):
                np.save(staging / name, values.cpu().numpy())
            write_json(staging / "config.json", json.loads(json.dumps(config)))
            write_json(staging / "model_index.json", {"pipeline": self.pipeline, "representation": self.representation})
            write_manifest(staging)

    @property
    def representation(self) -> str:
        """What its motions are made of."""
        return self.config.representation

    @property
    def codebook_size(self) -> int:
        """Number of motion codes."""
        return self.vqvae.quantizer.codebook_size

    def parts(self) -> dict[str, nn.Module | None]:
        """The parts by name."""
        return {"vqvae": self.vqvae, "gpt": self.gpt, "text_encoder": self.text_encoder}

    def set_statistics(self, mean: Any, std: Any, representation: str | None = None) -> None:
        """Use the statistics of a data set of this `representation`."""
        if representation not in (None, self.representation):
            raise ValueError(
                f"the data are {representation}, model.representation is {self.representation}; make them the same"
            )
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))

    def normalize(self, motion: Tensor) -> Tensor:
        """Physical units to z-scores."""
        return (motion - self.mean) / self.std

    def denormalize(self, motion: Tensor) -> Tensor:
        """Z-scores to physical units."""
        return motion * self.std + self.mean

    def sentence(self, captions: list[str]) -> Tensor:
        """One vector (b, c) a caption: the mean of its words' features."""
        text = self.text_encoder(captions)
        return text.features.sum(dim=1) / text.mask.sum(dim=1, keepdim=True)

    def _check_text(self) -> None:
        width = getattr(self.text_encoder, "width", None)
        if width is not None and width != self.config.gpt.text_width:
            raise ValueError(f"gpt.text_width={self.config.gpt.text_width} must be the text encoder's width {width}")
