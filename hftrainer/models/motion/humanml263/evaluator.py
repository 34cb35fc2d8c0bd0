"""The official HumanML3D-263 evaluator: `Matcher`, its statistics and its vocabulary. The weights are the user's.

config.json               sizes, and what is done to inputs
model.safetensors         movement_encoder.*, motion_encoder.*, text_encoder.*
stats/{mean,std}.npy      (263,): the evaluator's own, not the data set's Mean.npy and Std.npy
words.txt, word_vectors.npy
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hftrainer.arrays import read_npy
from hftrainer.config import plain, typed
from hftrainer.files import check_writable, write_json
from hftrainer.manifest import write_manifest
from hftrainer.models.checkpoint import CheckpointError, assign, find_weights, open_checkpoint, write_module
from hftrainer.models.identity import weights_identity
from hftrainer.models.motion.humanml263.network import Matcher, MatcherConfig
from hftrainer.models.motion.humanml263.network.matcher import FRAMES_PER_MOVEMENT
from hftrainer.models.motion.humanml263.words import TAGS, WordVectors
from hftrainer.motion.representation.spec import HML263
from hftrainer.readers import read_json
from hftrainer.registry import EVALUATORS

Float32 = NDArray[np.float32]

MODEL_TYPE = "humanml263_evaluator"
_PARTS = ("movement_encoder", "motion_encoder", "text_encoder")


@dataclass
class HumanML263Config:
    """`max_frames`: what every clip is padded to, and may at most have. `max_words`: more are cut off."""

    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    max_frames: int = 196
    max_words: int = 20


@EVALUATORS.register("humanml263")
class HumanML263Evaluator:
    """Embeddings (n, 512) of motions (frames, 263) at 20 fps and of tagged captions."""

    Config = HumanML263Config
    artifact_names = (MODEL_TYPE,)  # what the config.json of a folder may say

    def __init__(
        self, config: HumanML263Config, matcher: Matcher, words: WordVectors, mean: Float32, std: Float32
    ) -> None:
        self.config, self.matcher, self.words, self.mean, self.std = config, matcher.eval(), words, mean, std

    @property
    def representation(self) -> str:
        """The name of what motions it reads."""
        return HML263.name

    @property
    def max_frames(self) -> int:
        """The longest motion that it reads."""
        return self.config.max_frames

    def identity(self) -> str:
        """SHA-256 over weights, statistics and vocabulary: what an embedding depends on beside its content."""
        arrays = {"mean": self.mean, "std": self.std, "words": self.words.vectors}
        return weights_identity(self.matcher, arrays, str(self.config.max_words))

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return next(self.matcher.parameters()).device

    def to(self, device: str | torch.device) -> HumanML263Evaluator:
        """Move the networks."""
        self.matcher.to(device)
        return self

    @torch.inference_mode()
    def encode_motions(
        self, motions: Sequence[np.ndarray], lengths: Sequence[int] | None = None, batch_size: int = 32
    ) -> Float32:
        """Embeddings (n, 512) of clips (frames, 263) in physical units, 20 fps, 4 to 196 frames.

        A clip's first ``length // 4 * 4`` frames are seen; `lengths` shortens clips before that. Longer clips are an
        error: a protocol says which part of them counts.
        """
        clips = [self._prepare(i, m, None if lengths is None else lengths[i]) for i, m in enumerate(motions)]
        out = []
        for start in range(0, len(clips), batch_size):
            part = clips[start : start + batch_size]
            batch = torch.zeros(len(part), self.config.max_frames, HML263.width)
            for row, clip in enumerate(part):
                batch[row, : len(clip)] = torch.from_numpy(clip)
            counts = torch.tensor([len(clip) for clip in part])
            out.append(self.matcher.embed_motion(batch.to(self.device), counts).float().cpu().numpy())
        return np.concatenate(out) if out else np.zeros((0, self.config.matcher.embedding), np.float32)

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str], batch_size: int = 32) -> Float32:
        """Embeddings (n, 512) of captions as "word/TAG word/TAG ...", the second field of HumanML3D's text lines."""
        if isinstance(captions, str):
            raise TypeError("captions must be a list of strings, got one string")
        rows = [self.words.encode(caption, self.config.max_words) for caption in captions]
        out = []
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            counts = torch.tensor([len(tags) for _, tags in part])
            words = _pad([vectors for vectors, _ in part]).to(self.device)
            tags = _pad([tags for _, tags in part]).to(self.device)
            out.append(self.matcher.embed_text(words, tags, counts).float().cpu().numpy())
        return np.concatenate(out) if out else np.zeros((0, self.config.matcher.embedding), np.float32)

    def _prepare(self, index: int, motion: np.ndarray, length: int | None) -> Float32:
        """A clip, checked, cut to complete movements, normalized."""
        if motion.ndim != 2 or motion.shape[1] != HML263.width:
            raise ValueError(
                f"motion {index}: expected (frames, {HML263.width}) of hml263 in physical units, got {motion.shape}"
            )
        frames = len(motion) if length is None else int(length)
        if not FRAMES_PER_MOVEMENT <= frames <= min(len(motion), self.config.max_frames):
            raise ValueError(
                f"motion {index}: {frames} frames of {len(motion)}; the evaluator sees {FRAMES_PER_MOVEMENT} to "
                f"{self.config.max_frames} frames at 20 fps"
            )
        clip = motion[: frames // FRAMES_PER_MOVEMENT * FRAMES_PER_MOVEMENT]
        if not np.isfinite(clip).all():
            raise ValueError(f"motion {index} holds NaN or infinite values")
        return np.asarray((clip - self.mean) / self.std, dtype=np.float32)

    # --- files ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_released(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        mean: str | os.PathLike[str],
        std: str | os.PathLike[str],
        glove: str | os.PathLike[str],
        config: HumanML263Config | None = None,
        device: str = "cpu",
    ) -> HumanML263Evaluator:
        """Read the published files: text_mot_match/model/finest.tar, meta/mean.npy, meta/std.npy, the glove folder.

        Optimizer states in the file are not read. A file without the three encoders is refused.
        """
        config = config or HumanML263Config()
        with torch.device("meta"):
            matcher = Matcher(config.matcher)
        for part in _PARTS:
            state = open_checkpoint(checkpoint, keys=(part,))
            assign(getattr(matcher, part), state, source=f"{checkpoint}: {part}", dtype=torch.float32)
        words = WordVectors.from_released(glove)
        return cls(config, matcher, words, *_statistics(Path(mean), Path(std))).to(device)._checked()

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, device: str = "cpu") -> HumanML263Evaluator:
        """Read what `save_pretrained` wrote."""
        folder = Path(folder)
        path = folder / "config.json"
        if not path.is_file():
            raise CheckpointError(f"{folder} is not a HumanML3D-263 evaluator: it has no config.json")
        fields = read_json(path, error=CheckpointError)
        if fields.pop("model_type", None) != MODEL_TYPE:
            raise CheckpointError(f"{path} is not a HumanML3D-263 evaluator's")
        config = typed(HumanML263Config, fields, path=str(path))
        with torch.device("meta"):
            matcher = Matcher(config.matcher)
        weights = find_weights(folder, "model")
        assign(matcher, open_checkpoint(weights), source=str(weights), dtype=torch.float32)
        stats = _statistics(folder / "stats/mean.npy", folder / "stats/std.npy")
        return cls(config, matcher, WordVectors.from_pretrained(folder), *stats).to(device)._checked()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an artifact folder."""
        folder = check_writable(folder)
        (folder / "stats").mkdir(exist_ok=True)
        write_module(self.matcher, folder, "model")
        np.save(folder / "stats/mean.npy", self.mean)
        np.save(folder / "stats/std.npy", self.std)
        self.words.save_pretrained(folder)
        write_json(folder / "config.json", {"model_type": MODEL_TYPE, **plain(self.config)})
        write_manifest(folder)

    def _checked(self) -> HumanML263Evaluator:
        sizes = (self.words.vectors.shape[1], len(TAGS))
        if sizes != (self.config.matcher.word, self.config.matcher.tags):
            raise CheckpointError(
                f"word vectors of {sizes[0]} and {sizes[1]} tags do not fit the networks, which read "
                f"{self.config.matcher.word} and {self.config.matcher.tags}"
            )
        return self


def _statistics(mean_path: Path, std_path: Path) -> tuple[Float32, Float32]:
    arrays = []
    for path in (mean_path, std_path):
        array = read_npy(path, shape=(HML263.width,), finite=True, error=CheckpointError)
        arrays.append(array.astype(np.float32))
    if not (arrays[1] > 0).all():
        raise CheckpointError(f"{std_path}: standard deviations must be positive")
    return arrays[0], arrays[1]


def _pad(rows: Sequence[Float32]) -> Tensor:
    batch = torch.zeros(len(rows), max(len(row) for row in rows), rows[0].shape[1])
    for i, row in enumerate(rows):
        batch[i, : len(row)] = torch.from_numpy(row)
    return batch
