"""MotionMillionBundle: the parts of a Go to Zero model, and the operations that training and pipelines share."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hftrainer.files import write_text
from hftrainer.hub import push_folder
from hftrainer.manifest import verify_manifest, write_manifest
from hftrainer.models.motion.motionmillion import artifact, card
from hftrainer.models.motion.motionmillion.adapter import merge_adapter
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF
from hftrainer.models.motion.motionmillion.network.fsq import codebook_use
from hftrainer.models.motion.motionmillion.outline import outline_parts
from hftrainer.models.motion.motionmillion.upstream import read_upstream
from hftrainer.models.quantize import quantize_linears
from hftrainer.models.shard_building import move
from hftrainer.models.text_encoder import TextFeatures
from hftrainer.motion.body import Body, body_of, smpl_body
from hftrainer.registry import MODELS

PARTS = ("vqvae", "ar", "text_encoder")


@MODELS.register("motionmillion")
class MotionMillionBundle(nn.Module):
    """Tokenizer (`vqvae`), transformer (`ar`), text encoder (`text_encoder`), and `mean` and `std` (width,) of motions.

    A part that was not asked for is None. Motion passes in and out in physical units.
    """

    Config = MotionMillionConfig
    pipeline = "motionmillion"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        fsq_path: str | os.PathLike[str] | None = None,
        ar_path: str | os.PathLike[str] | None = None,
        text_model_name: str | None = None,
        *,
        mean_path: str | os.PathLike[str] | None = None,
        std_path: str | os.PathLike[str] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        parts: artifact.Parts | None = None,
    ):
        """Read released files (`fsq_path`, `ar_path`, a T5 folder or name); `from_pretrained` reads artifacts.

        The size of the transformer is read off its tensors.
        """
        super().__init__()
        if parts is None:
            if fsq_path is None:
                raise ValueError("MotionMillionBundle needs fsq_path=...; for an artifact folder use from_pretrained")
            parts = read_upstream(fsq_path, ar_path, text_model_name, mean_path, std_path, dtype)
        self.config: MotionMillionConfig = parts.config
        self.vqvae: HumanVQVAE = parts.vqvae
        self.ar: LLaMAHF | None = parts.ar
        self.text_encoder: Any = parts.text_encoder  # of the registry TEXT_ENCODERS, or StoredTextFeatures
        self.tokenizer_sha256 = parts.tokenizer_sha256
        self.quantized: str | None = None
        self.body: Body = smpl_body()  # what its motions are shown on
        self.register_buffer("mean", torch.as_tensor(parts.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.as_tensor(parts.std, dtype=torch.float32), persistent=False)
        move(self, device)
        self.eval()

    @classmethod
    def from_config(cls, config: MotionMillionConfig) -> MotionMillionBundle:
        """A new model with random weights, but for the parts that ``config.init`` names."""
        return cls(parts=artifact.build(config))

    @classmethod
    def outline(cls, config: MotionMillionConfig) -> tuple[MotionMillionBundle, list[str]]:
        """See `hftrainer.interfaces.Outlinable`."""
        parts, notes = outline_parts(config)
        return cls(parts=parts, device="meta"), notes

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        device_map: Mapping[str, str | torch.device] | None = None,
        dtype: torch.dtype | str | None = None,
        quantize: str | None = None,
        text_encoder: str | None = "artifact",
        text_features: str | os.PathLike[str] | None = None,
        text_on_demand: bool = False,
        load_ar: bool = True,
        adapter: str | os.PathLike[str] | None = None,
        verify: bool = False,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> MotionMillionBundle:
        """Load an artifact written by `save_pretrained`, the published hftrainer, or Motius: a folder or a hub name.

        Weights are mapped from their files and not copied, unless a cast (`dtype`, only of the transformer) or a move
        to another device needs it. `device_map` places the parts "vqvae", "ar" and "text_encoder" by name; the others
        go to `device`. `quantize` "int8" or "int4" packs the transformer's matrices; see `quantize_linears`.

        `text_encoder`: "artifact" (the folder's own, else the one it names), a folder or hub name, or None.
        `text_features`: a file of stored features, used in its place. `text_on_demand`: do not load the encoder before
        it is used. `adapter`: a folder with a LoRA adapter (peft's layout), which is merged into the transformer.
        `verify` compares every file with the artifact's manifest first.
        """
        hub: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
        places = _places(device, device_map)
        folder = artifact.fetch(
            name_or_path, revision=revision, text_encoder=text_encoder, text_features=text_features, load_ar=load_ar,
            **hub,
        )  # fmt: skip
        if verify:
            verify_manifest(folder)
        parts = artifact.read(
            folder, dtype=check_dtype(dtype), text_encoder=text_encoder, text_features=text_features,
            text_on_demand=text_on_demand, load_ar=load_ar, **hub,
        )  # fmt: skip
        stored = parts.ar.lm_head.weight.dtype if parts.ar is not None else None
        if dtype is None and stored == torch.float16 and places["ar"].type == "cpu":
            parts.ar = parts.ar.float() if parts.ar is not None else None  # CPUs have no float16 arithmetic to speak of
        if adapter is not None:
            if parts.ar is None:
                raise ValueError(f"adapter={str(adapter)!r} is for a transformer, which this model was loaded without")
            merge_adapter(parts.ar, adapter)
        if quantize is not None and parts.ar is not None:
            quantize_linears(parts.ar, quantize, device=places["ar"])
        bundle = cls(parts=parts)
        bundle.quantized = quantize if parts.ar is not None else None
        bundle.body = body_of(folder)
        return bundle.place(places)

    def place(self, places: Mapping[str, torch.device]) -> MotionMillionBundle:
        """Move each part to its own device; the statistics go with the tokenizer."""
        for name, device in places.items():
            part = getattr(self, name)
            if part is not None:
                part.to(device)
        self.mean, self.std = (values.to(places.get("vqvae", self.device)) for values in (self.mean, self.std))
        return self

    def with_transformer(self, state: Mapping[str, Tensor], device: str | torch.device) -> MotionMillionBundle:
        """A bundle with these weights for its transformer, on `device`, and with the other parts of this one.

        For training, which may hold the transformer itself in a form that neither generates nor is saved.
        """
        assert self.ar is not None
        with torch.device("meta"):
            ar = LLaMAHF(self.ar.config)
        ar.load_state_dict({name: value.to(device) for name, value in state.items()}, assign=True)
        if ar.config.tie_weights:
            ar.lm_head.weight = ar.transformer.wte.weight
        twin = copy.copy(self)  # shares parts and buffers; one part is replaced only in the copy
        twin._modules = {**self._modules, "ar": ar.eval().requires_grad_(False)}
        twin._buffers = dict(self._buffers)
        return twin

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None, int8_matrices: bool = False
    ) -> None:
        """Write an artifact folder, atomically: floating point as `dtype`, or as it is.

        `int8_matrices` stores the transformer's matrices in 8 bits with a scale for each row, a quarter of float32;
        they are float32 again when they are read.
        """
        if self.quantized is not None:
            raise ValueError(
                f"this model's transformer was packed to {self.quantized} while loading, which is not stored; "
                "load it without quantize=... to save it"
            )
        artifact.write(self, Path(folder), dtype=dtype, int8_matrices=int8_matrices)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
    ) -> str:
        """Write an artifact with a model card to a temporary folder and upload it; the address of the commit.

        A folder that is there already is uploaded by `hftrainer.hub.push_folder`, without being written again.
        """
        with tempfile.TemporaryDirectory(prefix="hftrainer-push-") as temporary:
            folder = Path(temporary) / repo_id.rpartition("/")[2]
            self.save_pretrained(folder, dtype=dtype)
            write_text(folder / "README.md", card.model_card(self.config, repo_id=repo_id))
            write_manifest(folder)
            return push_folder(
                folder, repo_id, private=private, revision=revision, commit_message=commit_message,
                create_pr=create_pr, token=token,
            )  # fmt: skip

    # --- the names that the published hftrainer gave to the text encoder's halves ---------------------------------

    @property
    def text_model(self) -> Any:
        """The T5 encoder itself; None with stored features, or while it is not in memory."""
        return self.text_encoder.model if self.text_encoder is not None else None

    @property
    def tokenizer(self) -> Any:
        """The text tokenizer."""
        return self.text_encoder.tokenizer if self.text_encoder is not None else None

    @property
    def device(self) -> torch.device:
        """Where motions are normalized, and by default everything runs."""
        return self.mean.device

    # --- operations -------------------------------------------------------------------------------------------------

    @property
    def representation(self) -> str:
        """The name of what motions are made of."""
        return self.config.motions

    @property
    def codebook_size(self) -> int:
        """Number of motion codes."""
        return self.vqvae.codebook_size

    def parts(self) -> dict[str, nn.Module | None]:
        """Tokenizer, transformer and text encoder, by the names that they have in a configuration."""
        return {"tokenizer": self.vqvae, "ar": self.ar, "text_encoder": self.text_encoder}

    def untrained_parts(self, trained: set[str]) -> list[str]:
        """Parts with random weights: neither among the `trained` tensors nor from a folder."""
        from_folder = self.tokenizer_sha256 is not None
        return [] if from_folder or any(name.startswith("vqvae.") for name in trained) else ["tokenizer"]

    def set_statistics(
        self, mean: np.ndarray | Tensor, std: np.ndarray | Tensor, representation: str | None = None
    ) -> None:
        """Use the statistics of a data set of this `representation`, as training a tokenizer does.

        Raises `ConfigError` where the tokenizer is for motions of another width or name. None: a data set that does not
        say.
        """
        self.config.check_data(representation, len(mean))
        self.config.representation = representation or self.config.representation
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))

    def normalize(self, motion: Tensor) -> Tensor:
        """Physical units to z-scores."""
        return (motion - self.mean) / self.std

    def denormalize(self, motion: Tensor) -> Tensor:
        """Z-scores to physical units."""
        return motion * self.std + self.mean

    def encode_text(self, captions: Sequence[str]) -> TextFeatures:
        """Features that the transformer is conditioned on."""
        if self.text_encoder is None:
            raise ValueError(
                "this model was loaded without a text encoder; load it with text_encoder='artifact', a folder or a hub "
                "name, or with text_features=FILE, made by: hftrainer data text-features"
            )
        features: TextFeatures = self.text_encoder(captions)
        return features

    def encode_motion(self, motion: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Codes (b, l) of motion (b, t, width); see `HumanVQVAE.encode`."""
        return self.vqvae.encode(self.normalize(motion), lengths)

    def codebook_use(self, codes: Tensor) -> tuple[float, float]:
        """Perplexity of codes (any shape), and the share of the codebook that they use."""
        use = codebook_use(codes, self.vqvae.codebook_size)
        return float(use.perplexity), float(use.active)

    def decode_codes(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Motion (b, 2 l, width) of codes (b, l); see `HumanVQVAE.forward_decoder`."""
        return self.denormalize(self.vqvae.forward_decoder(codes, lengths).float())


def _places(device: str | torch.device, device_map: Mapping[str, str | torch.device] | None) -> dict[str, torch.device]:
    """The device of each part."""
    unknown = sorted(set(device_map or {}) - set(PARTS))
    if unknown:
        raise ValueError(f"device_map places {', '.join(PARTS)}; it names {unknown}")
    places = {}
    for name, wanted in {**dict.fromkeys(PARTS, device), **(device_map or {})}.items():
        try:
            places[name] = torch.device(wanted)
        except RuntimeError as error:
            raise ValueError(f"there is no device {wanted!r} for {name}: {str(error).splitlines()[0]}") from error
        if places[name].type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"{name} should go to {wanted!r}, but this machine or this torch has no CUDA device")
    return places


def check_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating point type of torch, by itself or by name ("bfloat16", "bf16")."""
    short = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    found = getattr(torch, short.get(dtype, dtype), None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype must be bfloat16, float32 or float16, got {dtype!r}")
    return found
