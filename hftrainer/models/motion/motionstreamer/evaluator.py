"""MotionStreamer272Evaluator: texts and motions to points of one 256-dim space (arXiv 2503.15451, after TMR)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hftrainer.hub import find_model
from hftrainer.models.identity import weights_identity
from hftrainer.models.motion.motionstreamer import artifact
from hftrainer.models.motion.motionstreamer.config import MotionStreamer272Config
from hftrainer.models.motion.motionstreamer.embedding_cache import EmbeddingCache, content_key
from hftrainer.models.motion.motionstreamer.network import Gaussian, MotionDecoder, MotionEncoder, TextEncoder
from hftrainer.models.motion.motionstreamer.outline import outline_parts
from hftrainer.models.outline import AbsentText
from hftrainer.registry import EVALUATORS, MODELS

Float32 = NDArray[np.float32]


@EVALUATORS.register("motionstreamer272")
@MODELS.register("motionstreamer272")
class MotionStreamer272Evaluator(nn.Module):
    """A text encoder over a language model, and a motion encoder. Motion comes in in physical units.

    Embeddings are the means of the encoders' Gaussians, not scaled to unit length. `mean` and `std` (d,) are those of
    the evaluator's training set: not those of the model whose motions are evaluated.
    """

    Config = MotionStreamer272Config
    artifact_names = artifact.MODEL_TYPES  # what the config.json of a folder may say

    def __init__(self, parts: artifact.Parts, *, device: str | torch.device = "cpu"):
        super().__init__()
        self.config: MotionStreamer272Config = parts.config
        self.text_encoder: TextEncoder = parts.text_encoder
        self.motion_encoder: MotionEncoder = parts.motion_encoder
        self.tokenizer: Any = parts.tokenizer
        self.mean, self.std = parts.mean, parts.std
        self._caches: dict[str, EmbeddingCache] = {}
        self._cache_dir: Path | None = None
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]
        self.to(device).eval()

    @classmethod
    def from_config(cls, config: MotionStreamer272Config) -> MotionStreamer272Evaluator:
        """New encoders, to be trained."""
        return cls(artifact.build(config))

    @classmethod
    def outline(cls, config: MotionStreamer272Config) -> tuple[MotionStreamer272Evaluator, list[str]]:
        """See `hftrainer.interfaces.Outlinable`."""
        parts, notes = outline_parts(config)
        bundle = cls(parts, device="meta")
        bundle.config, bundle.tokenizer = config, bundle.tokenizer or AbsentText()
        return bundle, notes

    @property
    def representation(self) -> str:
        """The name of what motions it reads."""
        return "motion272"

    @property
    def max_frames(self) -> int:
        """The longest motion that it reads."""
        return self.config.max_motion_length

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        cache_dir: str | os.PathLike[str] | None = None,
        **hub: Any,
    ) -> MotionStreamer272Evaluator:
        """Load a folder (or hub repository) written by `save_pretrained` or by Motius, frozen.

        Embeddings are remembered by content; with `cache_dir`, there, from one run to the next.
        """
        return cls(artifact.read(find_model(folder, **hub)), device=device)._frozen(cache_dir)

    @classmethod
    def from_lightning_checkpoint(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        text_model: str | os.PathLike[str],
        mean: str | os.PathLike[str] | NDArray[np.float64],
        std: str | os.PathLike[str] | NDArray[np.float64],
        device: str | torch.device = "cpu",
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> MotionStreamer272Evaluator:
        """Load the released ``epoch=99.ckpt``, frozen.

        `text_model`: a name or folder with DistilBERT's configuration and tokenizer; its weights are in the checkpoint.
        `mean` and `std`: HumanML3D-272's, as files or arrays.
        """
        return cls(artifact.read_lightning(Path(checkpoint), text_model, mean, std), device=device)._frozen(cache_dir)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an artifact folder. It appears complete or not at all."""
        artifact.write(self, Path(folder))

    @property
    def device(self) -> torch.device:
        """Where the encoders run."""
        return self.motion_encoder.mu_token.device

    def identity(self) -> str:
        """SHA-256 over weights and statistics: what an embedding depends on beside its content."""
        return weights_identity(self, {"mean": self.mean, "std": self.std})

    # --- what evaluation uses -----------------------------------------------------------------------------------------

    def encode_motions(
        self, motions: Sequence[NDArray[Any]], lengths: Sequence[int] | None = None, batch_size: int = 32
    ) -> Float32:
        """Embeddings (n, latent) of motions (T_i, features) in physical units.

        `lengths`: how many frames of each motion count; all of them by default. Nothing is cropped or rounded down in
        secret: a motion longer than ``config.max_motion_length`` is an error, as the released mask ends there.
        """
        if lengths is not None and len(lengths) != len(motions):
            raise ValueError(f"{len(motions)} motions and {len(lengths)} lengths")
        counts = [len(m) for m in motions] if lengths is None else [int(n) for n in lengths]
        clips = [self._checked(i, np.asarray(m), n) for i, (m, n) in enumerate(zip(motions, counts, strict=True))]

        def encode(places: list[int]) -> Float32:
            return self._in_batches([clips[i] for i in places], [counts[i] for i in places], batch_size, self._motions)

        return self._remembered("motion", [content_key(clip) for clip in clips], encode)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 32) -> Float32:
        """Embeddings (n, latent) of texts, which are not cut: one too long for the language model is an error."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, got one string")
        texts = list(texts)

        def encode(places: list[int]) -> Float32:
            wanted = [texts[i] for i in places]
            lengths = [len(row) for row in self._tokenize(wanted, padding=False)["input_ids"]] if wanted else []
            return self._in_batches(wanted, lengths, batch_size, self._texts)

        return self._remembered("text", [content_key(text) for text in texts], encode)

    # --- what training uses -------------------------------------------------------------------------------------------

    def set_statistics(self, mean: NDArray[Any], std: NDArray[Any]) -> None:
        """Use a dataset's statistics, as training does."""
        self.mean, self.std = artifact.load_statistics(np.array(mean), np.array(std), self.config.motion_features)

    def normalize(self, motion: Tensor) -> Tensor:
        """Physical units to z-scores, in the precision of `motion` (..., features)."""
        mean = torch.as_tensor(self.mean, dtype=motion.dtype, device=motion.device)
        std = torch.as_tensor(self.std, dtype=motion.dtype, device=motion.device)
        return (motion - mean) / std

    def motion_gaussian(self, motion: Tensor, lengths: Tensor) -> Gaussian:
        """What normalized motions (b, t, features) are encoded as; frames from `lengths` (b,) on do not count."""
        gaussian: Gaussian = self.motion_encoder(motion, lengths)
        return gaussian

    def text_gaussian(self, captions: Sequence[str]) -> Gaussian:
        """What texts are encoded as."""
        batch = self._tokenize(list(captions), padding=True)
        ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        gaussian: Gaussian = self.text_encoder(ids, mask.bool())
        return gaussian

    def new_decoder(self, layers: int | None = None) -> MotionDecoder:
        """A decoder of latents with random weights, which training needs and no artifact keeps."""
        c = self.config
        layers = c.num_layers if layers is None else layers
        return MotionDecoder(c.motion_features, c.latent_dim, layers, c.num_heads, c.ff_size, c.dropout, c.positions)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _frozen(self, cache_dir: str | os.PathLike[str] | None) -> MotionStreamer272Evaluator:
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        return self.requires_grad_(False)

    def _remembered(self, kind: str, keys: list[bytes], encode: Any) -> Float32:
        """Rows from the cache. While weights can change there is none, and equal contents are encoded once a call."""
        if not keys:
            return np.zeros((0, self.config.latent_dim), np.float32)
        if any(p.requires_grad for p in self.parameters()):
            return EmbeddingCache().rows(keys, encode)
        if kind not in self._caches:
            if self._cache_dir is None:
                self._caches[kind] = EmbeddingCache()
            else:
                identity = self.identity()
                self._caches[kind] = EmbeddingCache(self._cache_dir / f"{identity[:16]}-{kind}.npz", identity)
        return self._caches[kind].rows(keys, encode)

    def _in_batches(self, items: list[Any], lengths: list[int], batch_size: int, encode: Any) -> Float32:
        """`encode` over items of like length together; the result is in the order of `items`."""
        out = np.zeros((len(items), self.config.latent_dim), np.float32)
        order = np.argsort(lengths, kind="stable")
        with torch.inference_mode(), _in_eval_mode(self):
            for start in range(0, len(items), batch_size):
                places = order[start : start + batch_size]
                out[places] = encode([items[i] for i in places]).mean.float().cpu().numpy()
        return out

    def _motions(self, clips: list[NDArray[Any]]) -> Gaussian:
        batch = torch.zeros(len(clips), max(map(len, clips)), self.config.motion_features)
        for row, clip in enumerate(clips):
            batch[row, : len(clip)] = self.normalize(torch.from_numpy(np.ascontiguousarray(clip, dtype=np.float64)))
        lengths = torch.tensor([len(clip) for clip in clips])
        return self.motion_gaussian(batch.to(self.device), lengths.to(self.device))

    def _texts(self, texts: list[str]) -> Gaussian:
        return self.text_gaussian(texts)

    def _tokenize(self, texts: list[str], *, padding: bool) -> Any:
        if self.tokenizer is None:
            raise ValueError("this evaluator has no tokenizer yet: training gives it one, from its captions")
        batch = self.tokenizer(texts, padding=padding, truncation=False, return_tensors="pt" if padding else None)
        longest = getattr(self.text_encoder.text_model.config, "max_position_embeddings", None)
        for text, ids in zip(texts, batch["input_ids"], strict=True):
            if longest is not None and len(ids) > longest:
                raise ValueError(f"a text has {len(ids)} tokens, the language model reads {longest}: {text[:80]!r}...")
        return batch

    def _checked(self, index: int, motion: NDArray[Any], length: int) -> NDArray[Any]:
        features, longest = self.config.motion_features, self.config.max_motion_length
        if motion.ndim != 2 or motion.shape[1] != features or motion.dtype.kind != "f":
            raise ValueError(
                f"motion {index}: expected (frames, {features}) floats, got {motion.shape} of {motion.dtype}"
            )
        if not 1 <= length <= len(motion):
            raise ValueError(f"motion {index}: length {length} of {len(motion)} frames; at least 1 is needed")
        if length > longest:
            raise ValueError(
                f"motion {index}: {length} frames, this evaluator reads {longest}; cut it, or give lengths=..."
            )
        clip = motion[:length]
        if not np.isfinite(clip).all():
            frame = int(np.flatnonzero(~np.isfinite(clip).all(axis=1))[0])
            raise ValueError(f"motion {index}: frame {frame} holds a NaN or infinite value")
        return clip


def _forget(module: nn.Module, _: object) -> None:
    """Embeddings of weights that have been replaced."""
    module._caches.clear()  # type: ignore[operator, union-attr]


@contextlib.contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Without dropout inside the block, each part as it was after it."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
