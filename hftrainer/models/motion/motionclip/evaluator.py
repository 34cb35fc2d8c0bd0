"""The MotionCLIP-135 evaluator: network, statistics, tokenizer.

    bundle_config.json              text_config, motion_config, projection_dim, logit_scale_init_value
    motionclip_model.safetensors    text_model.*, motion_model.*, text_projection, motion_projection, logit_scale
    stats.json                      transl, global_orient.rotation_6d, body_pose.rotation_6d: mean and std of each
    tokenizer/                      CLIP's

Published artifacts hold only the first two; statistics and tokenizer are then arguments of `from_pretrained`, and
`save_pretrained` writes all four.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hftrainer.files import check_writable, write_json
from hftrainer.manifest import write_manifest
from hftrainer.models.checkpoint import CheckpointError, assign, find_weights, open_checkpoint, write_module
from hftrainer.models.identity import weights_identity
from hftrainer.models.motion.motionclip.network import MotionCLIP, TowerConfig
from hftrainer.motion.representation.spec import MOTION135
from hftrainer.readers import read_json
from hftrainer.registry import EVALUATORS

Float32 = NDArray[np.float32]

CONFIG, STATS, WEIGHTS = "bundle_config.json", "stats.json", "motionclip_model"
MAX_FRAMES = 300
_STATS_PARTS = (("transl", 3), ("global_orient.rotation_6d", 6), ("body_pose.rotation_6d", 126))
_SMALLEST_STD = 1e-6
_CLIP_END = 49407


@EVALUATORS.register("motionclip135")
class MotionCLIP135Evaluator:
    """Embeddings (n, 512) of captions and of motions (frames, 135) in the "columns" layout, 30 fps.

    `mean` and `std` (135,) are those the network was trained with. `tokenizer` is CLIP's, as transformers has it.
    """

    artifact_files = (CONFIG,)  # published folders name no class

    def __init__(self, network: MotionCLIP, mean: Float32, std: Float32, tokenizer: Any, config: dict[str, Any]):
        self.network, self.mean, self.std = network.eval(), mean, np.maximum(std, _SMALLEST_STD)
        self.tokenizer, self._config = tokenizer, config

    @property
    def representation(self) -> str:
        """The name of what motions it reads, in the layout "columns"."""
        return MOTION135.name

    @property
    def max_frames(self) -> int:
        """The longest motion that it reads."""
        return MAX_FRAMES

    def identity(self) -> str:
        """SHA-256 over weights and statistics: what an embedding depends on beside its content."""
        return weights_identity(self.network, {"mean": self.mean, "std": self.std})

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.network.logit_scale.device

    @property
    def logit_scale(self) -> float:
        """Factor of cosines in training: exp of the parameter, at most 100."""
        return min(100.0, float(self.network.logit_scale.detach().exp()))

    def to(self, device: str | torch.device) -> MotionCLIP135Evaluator:
        """Move the network."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def encode_motions(
        self,
        motions: Sequence[np.ndarray],
        lengths: Sequence[int] | None = None,
        batch_size: int = 32,
        *,
        normalize: bool = False,
    ) -> Float32:
        """Projections (n, 512) of clips (frames, 135), of which the first 300 frames at most are seen.

        `normalize` puts them on the unit sphere; the published metrics do not.
        """
        clips = [_prepare(i, m, None if lengths is None else lengths[i]) for i, m in enumerate(motions)]
        out = []
        for start in range(0, len(clips), batch_size):
            part = clips[start : start + batch_size]
            counts = torch.tensor([len(clip) for clip in part])
            batch = torch.zeros(len(part), int(counts.max()), MOTION135.width)
            for row, clip in enumerate(part):
                batch[row, : len(clip)] = torch.from_numpy(np.asarray((clip - self.mean) / self.std, dtype=np.float32))
            mask = torch.arange(batch.shape[1])[None] < counts[:, None]
            out.append(self.network.embed_motion(batch.to(self.device), mask.to(self.device)).float().cpu().numpy())
        return self._gather(out, normalize)

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str], batch_size: int = 32, *, normalize: bool = False) -> Float32:
        """Projections (n, 512) of captions; tokens past the network's positions are cut off, the end token kept."""
        if isinstance(captions, str):
            raise TypeError("captions must be a list of strings, got one string")
        positions = len(self.network.text_model.embeddings.position_embedding.weight)
        out = []
        for start in range(0, len(captions), batch_size):
            part = list(captions[start : start + batch_size])
            rows = self.tokenizer(part, padding=True, truncation=True, max_length=positions, return_tensors="pt")
            ids, mask = rows["input_ids"].to(self.device), rows["attention_mask"].bool().to(self.device)
            out.append(self.network.embed_text(ids, mask).float().cpu().numpy())
        return self._gather(out, normalize)

    def _gather(self, parts: list[Float32], normalize: bool) -> Float32:
        width = self.network.text_projection.out_features
        values = np.concatenate(parts) if parts else np.zeros((0, width), np.float32)
        return values / np.linalg.norm(values, axis=-1, keepdims=True) if normalize else values

    # --- files ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        stats: str | os.PathLike[str] | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        **hub: Any,
    ) -> MotionCLIP135Evaluator:
        """Read an artifact.

        `stats`: the JSON file with the training data's statistics, `tokenizer`: a folder with CLIP's tokenizer or its
        hub name (openai/clip-vit-base-patch32); both are needed where the artifact does not hold them.
        """
        from transformers import AutoTokenizer

        folder = Path(folder)
        config = _read_json(folder / CONFIG)
        stats = _part(folder, STATS, stats, "the statistics of its training data (a JSON file)", "stats")
        tokenizer = _part(folder, "tokenizer", tokenizer, "CLIP's tokenizer (a folder or hub name)", "tokenizer")
        weights = find_weights(folder, WEIGHTS)
        state = open_checkpoint(weights)
        shapes = {name: state.shape_of(name) for name in state}
        with torch.device("meta"):
            network = build(config, shapes, source=str(folder / CONFIG))
        assign(network, state, source=str(weights), dtype=torch.float32)
        try:
            loaded = AutoTokenizer.from_pretrained(str(tokenizer), **hub)
        except OSError as error:
            raise ValueError(
                f"the tokenizer {str(tokenizer)!r} cannot be loaded: {str(error).splitlines()[0]}"
            ) from error
        return cls(network, *read_stats(Path(stats)), loaded, config).to(device)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an artifact folder that needs nothing else to load."""
        folder = check_writable(folder)
        write_module(self.network, folder, WEIGHTS)
        write_json(folder / CONFIG, self._config)
        content: dict[str, Any] = {}
        start = 0
        for name, size in _STATS_PARTS:
            at = content
            for key in name.split("."):
                at = at.setdefault(key, {})
            at |= {k: v[start : start + size].tolist() for k, v in (("mean", self.mean), ("std", self.std))}
            start += size
        write_json(folder / STATS, content)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        write_manifest(folder)


def build(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, source: str) -> MotionCLIP:
    """The network that bundle_config.json and the weights' shapes describe.

    Layers and heads are not visible in shapes and come from the file; numbers of positions are not in every file and
    come from the shapes.
    """
    towers = {}
    for name, part in (("text_config", "text_model"), ("motion_config", "motion_model")):
        fields = config.get(name)
        if not isinstance(fields, Mapping):
            raise CheckpointError(f"{source}: expected an object {name!r}, got {fields!r}")
        if fields.get("hidden_act", "quick_gelu") != "quick_gelu":
            raise CheckpointError(f"{source}: {name}.hidden_act is {fields['hidden_act']!r}, expected 'quick_gelu'")
        positions = shapes.get(f"{part}.embeddings.position_embedding.weight")
        if positions is None:
            raise CheckpointError(f"{source}: the weights beside it have no {part}; is this a MotionCLIP?")
        known = {f.name for f in dataclasses.fields(TowerConfig)} - {"positions"}
        missing = sorted(known - {"layer_norm_eps"} - fields.keys())
        if missing:
            raise CheckpointError(f"{source}: {name} has no {', '.join(missing)}")
        towers[name] = TowerConfig(**{key: fields[key] for key in known & fields.keys()}, positions=positions[0])
    dim = shapes.get("motion_model.embeddings.motion_projection.weight", (0, 0))[-1]
    if dim != MOTION135.width:
        raise CheckpointError(f"{source}: this MotionCLIP reads {dim} features a frame, not {MOTION135.width}")
    text = config["text_config"]
    end = int(text.get("eos_token_id", _CLIP_END))
    return MotionCLIP(
        towers["text_config"],
        towers["motion_config"],
        vocab_size=int(text.get("vocab_size", _CLIP_END + 1)),
        eos_token_id=_CLIP_END if end == 2 else end,  # 2 stands in CLIP's old configurations, and was never its id
        projection_dim=int(config.get("projection_dim", 512)),
    )


def read_stats(path: Path) -> tuple[Float32, Float32]:
    """Mean and standard deviation (135,) from the statistics file: translation, root rotation, 21 body rotations."""
    content = _read_json(path)
    out: dict[str, list[float]] = {"mean": [], "std": []}
    for name, size in _STATS_PARTS:
        part: Any = content.get(name)
        if part is None:
            part = content
            for key in name.split("."):
                part = part.get(key) if isinstance(part, Mapping) else None
        for kind, values in out.items():
            found = np.asarray(part[kind] if isinstance(part, Mapping) and kind in part else [], dtype=np.float64)
            if found.size != size or not np.isfinite(found).all():
                raise CheckpointError(f"{path}: expected {size} finite numbers as {name}.{kind}, got {found.size}")
            values += found.reshape(-1).tolist()
    return np.asarray(out["mean"], np.float32), np.asarray(out["std"], np.float32)


def _prepare(index: int, motion: np.ndarray, length: int | None) -> np.ndarray:
    if motion.ndim != 2 or motion.shape[1] != MOTION135.width:
        raise ValueError(f"motion {index}: expected (frames, {MOTION135.width}) of motion135, got {motion.shape}")
    frames = len(motion) if length is None else int(length)
    if not 1 <= frames <= len(motion):
        raise ValueError(f"motion {index}: {frames} frames asked for, it has {len(motion)}")
    clip = motion[: min(frames, MAX_FRAMES)]
    if not np.isfinite(clip).all():
        raise ValueError(f"motion {index} holds NaN or infinite values")
    six = clip[:, MOTION135["joint_rotations"]].reshape(-1, 6)
    # a matrix column has length 1; which numbers make up the first column tells the layouts apart
    off, other = (float(np.abs(np.linalg.norm(first, axis=-1) - 1).max()) for first in (six[:, :3], six[:, ::2]))
    if off > 0.05 and other < 0.01:
        raise ValueError(
            f"motion {index} has its rotations in the layout columns_interleaved, MotionCLIP-135 reads columns; "
            "convert with motion272_to_motion135(motion, layout='columns')"
        )
    return clip


def _part(
    folder: Path, name: str, given: str | os.PathLike[str] | None, what: str, argument: str
) -> str | os.PathLike[str]:
    if given is not None:
        return given
    if not (folder / name).exists():
        raise CheckpointError(f"{folder} has no {name}: give {what} as {argument}=")
    return folder / name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path, error=CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return content
