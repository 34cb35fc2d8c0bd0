"""A small classifier of what a motion is (content) and how it is done (style), to evaluate generated motions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hftrainer.config import plain, typed
from hftrainer.files import write_json
from hftrainer.hub import find_model
from hftrainer.models.checkpoint import CheckpointError, assign, open_checkpoint, write_module
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.readers import read_json
from hftrainer.registry import MODELS


@dataclass
class ActionClassifierConfig:
    """`contents` and `styles` are the labels; an empty list is filled in by training from its data.

    `representation`: that of the motions.
    """

    contents: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    width: int = 96
    depth: int = 4
    dropout: float = 0.2
    representation: str = DEFAULT


class ActionLogits(NamedTuple):
    """Logits (b, contents) and (b, styles)."""

    content: Tensor
    style: Tensor


@MODELS.register("action_classifier")
class ActionClassifier(nn.Module):
    """Strided convolutions over time, then mean and maximum over the frames that exist, then one linear map a head.

    Sees physical units through its own statistics, without root position, so where a clip stands does not matter.
    """

    Config = ActionClassifierConfig
    mean: Tensor
    std: Tensor

    def __init__(self, config: ActionClassifierConfig):
        super().__init__()
        self.config = config
        features = get_representation(config.representation).width
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        widths = [features] + [config.width] * config.depth
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 5, stride=2, padding=2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.depth))
        self.dropout = nn.Dropout(config.dropout)
        self.content = nn.Linear(2 * config.width, max(1, len(config.contents)))
        self.style = nn.Linear(2 * config.width, max(1, len(config.styles)))

    def forward(self, motion: Tensor, lengths: Tensor) -> ActionLogits:
        """Classify motions (b, t, features), padded past `lengths` (b,)."""
        x = ((motion - self.mean) / self.std).transpose(1, 2)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(x * _mask(lengths, x.shape[2])[:, None])
            lengths = (lengths + 1) // 2
            x = self.dropout(torch.relu(norm(x.transpose(1, 2)))).transpose(1, 2)
        mask = _mask(lengths, x.shape[2])[:, None]
        mean = (x * mask).sum(dim=2) / mask.sum(dim=2)
        top = (x + (mask - 1) * 1e4).amax(dim=2)
        pooled = torch.cat([mean, top], dim=1)
        return ActionLogits(self.content(pooled), self.style(pooled))

    @torch.inference_mode()
    def classify(self, motions: Sequence[np.ndarray], batch_size: int = 64) -> tuple[list[str], list[str]]:
        """Likeliest content and style of each motion (T_i, features)."""
        contents, styles = [], []
        for start in range(0, len(motions), batch_size):
            part = motions[start : start + batch_size]
            lengths = torch.tensor([len(m) for m in part])
            batch = torch.zeros(len(part), int(lengths.max()), len(self.mean))
            for row, motion in enumerate(part):
                batch[row, : len(motion)] = torch.from_numpy(np.ascontiguousarray(motion, dtype=np.float32))
            logits = self(batch, lengths)
            contents += [self.config.contents[i] for i in logits.content.argmax(dim=1).tolist()]
            styles += [self.config.styles[i] for i in logits.style.argmax(dim=1).tolist()]
        return contents, styles

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors."""
        folder = Path(folder)
        write_module(self, folder, "model")
        write_json(folder / "config.json", {"model_type": "action_classifier", **plain(self.config)})

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> ActionClassifier:
        """Read what `save_pretrained` wrote, from a folder or the hub."""
        folder = find_model(
            name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
        path = folder / "config.json"
        if not path.is_file():
            raise CheckpointError(f"{folder} is not an action classifier: it has no config.json")
        fields = read_json(path, error=CheckpointError)
        if fields.pop("model_type", None) != "action_classifier":
            raise CheckpointError(f"{path} is not the config of an action classifier")
        model = cls(typed(ActionClassifierConfig, fields, path=str(path)))
        weights = folder / "model.safetensors"
        assign(model, open_checkpoint(weights), source=str(weights))
        return model.eval()


def _mask(lengths: Tensor, size: int) -> Tensor:
    return (torch.arange(size, device=lengths.device)[None] < lengths[:, None]).float()
