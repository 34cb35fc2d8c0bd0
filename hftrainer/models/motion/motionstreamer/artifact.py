"""The files of an evaluator: one folder that explains itself, in the layout that Motius gave it.

    config.json                sizes                    preprocessor_config.json   frame rate, lengths, where things are
    model.safetensors          text_encoder.* and motion_encoder.*
    stats/mean.npy, std.npy    of the motions it was trained on
    tokenizer/                 the language model's config.json and its tokenizer, as transformers has them
    manifest.json              bytes and SHA-256 of every file

Reads "motius-motionstreamer-272-evaluator" folders, which leave some sizes out (they are read off the tensors), and the
released Lightning checkpoint.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hftrainer.arrays import read_npy
from hftrainer.config import plain, typed
from hftrainer.files import atomic_folder, write_json
from hftrainer.manifest import write_manifest
from hftrainer.models.checkpoint import Checkpoint, CheckpointError, assign, open_checkpoint, write_module
from hftrainer.models.motion.motionstreamer.config import MotionStreamer272Config, TextModelConfig
from hftrainer.models.motion.motionstreamer.network import MotionEncoder, TextEncoder
from hftrainer.models.motion.motionstreamer.text_model import load_text_model, new_text_model
from hftrainer.readers import inside, read_json

if TYPE_CHECKING:
    from hftrainer.models.motion.motionstreamer.evaluator import MotionStreamer272Evaluator

MODEL_TYPE = "hftrainer-motionstreamer-272-evaluator"
MODEL_TYPES = (MODEL_TYPE, "motius-motionstreamer-272-evaluator")
Float64 = NDArray[np.float64]

# config.json's names where they are not ours
_STORED_AS = {"motion_features": "motion_nfeats"}
_PREPROCESSING = ("max_motion_length", "unit_length", "fps", "motion_representation")


@dataclass
class Parts:
    """A loaded or fresh evaluator, before it becomes a module."""

    config: MotionStreamer272Config
    text_encoder: TextEncoder
    motion_encoder: MotionEncoder
    tokenizer: Any  # None: training will make one
    mean: Float64
    std: Float64


def build(config: MotionStreamer272Config) -> Parts:
    """New encoders over a language model that is loaded, or new too."""
    tokenizer = None
    if config.text.source is not None:
        text_model, tokenizer = load_text_model(config.text.source)
    else:
        text_model = new_text_model(config.text)
    width = config.motion_features
    return Parts(config, *_encoders(config, text_model), tokenizer, np.zeros(width), np.ones(width))


def read(folder: Path) -> Parts:
    """Load an artifact folder, ours or Motius's."""
    stored, pre = _read_json(folder / "config.json"), _read_json(folder / "preprocessor_config.json")
    if stored.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type is {stored.get('model_type')!r}, expected one of {MODEL_TYPES}"
        )
    path = _inside(folder, stored.get("weights_file", "model.safetensors"))
    state = open_checkpoint(path)
    tokenizer_folder = _inside(folder, pre.get("tokenizer", "tokenizer"))
    text_model, tokenizer = load_text_model(tokenizer_folder, weights=False, local_files_only=True)
    config = _config_of(state, {**stored, **{k: pre[k] for k in _PREPROCESSING if k in pre}}, str(path))
    config.text = TextModelConfig(source=stored.get("text_backbone"))
    places = {name: _inside(folder, pre.get(name, f"stats/{name}.npy")) for name in ("mean", "std")}
    statistics = load_statistics(places["mean"], places["std"], config.motion_features)
    return _assemble(config, state, text_model, tokenizer, *statistics)


def read_lightning(
    checkpoint: Path,
    text_model: str | os.PathLike[str],
    mean: str | os.PathLike[str] | Float64,
    std: str | os.PathLike[str] | Float64,
) -> Parts:
    """Load the released ``epoch=99.ckpt``.

    Of its tensors those of ``textencoder.`` and ``motionencoder.`` are wanted; it also holds the training's decoder
    (``motiondecoder.``), its losses (``_losses.``) and a sentence model that filters negatives (``filter_model.``).
    """
    found = open_checkpoint(checkpoint, keys=("state_dict",))
    names = {}
    for name in found:
        part, _, rest = name.partition(".")
        if part in ("textencoder", "motionencoder") and not rest.endswith("position_ids"):  # of older transformers
            names[f"{part.removesuffix('encoder')}_encoder.{rest}"] = name
    missing = [part for part in ("text", "motion") if not any(n.startswith(f"{part}_encoder.") for n in names)]
    if missing:
        raise CheckpointError(
            f"{checkpoint} is not the evaluator's checkpoint: no tensor is called {missing[0]}encoder.*; it holds e.g. "
            f"{next(iter(found), None)!r}"
        )
    state = found.renamed(names)
    config = _config_of(state, {}, str(checkpoint))
    config.text = TextModelConfig(source=str(text_model))
    model, tokenizer = load_text_model(text_model, weights=False)
    return _assemble(config, state, model, tokenizer, *load_statistics(mean, std, config.motion_features))


def write(evaluator: MotionStreamer272Evaluator, folder: Path) -> None:
    """Write an artifact folder. It appears complete or not at all."""
    if evaluator.tokenizer is None:
        raise ValueError("this evaluator has no tokenizer yet: training gives it one, from its captions")
    config = plain(evaluator.config)
    text = config.pop("text")
    preprocessing = {name: config.pop(name) for name in _PREPROCESSING}
    with atomic_folder(folder) as staging:
        write_module(evaluator, staging, "model")
        evaluator.tokenizer.save_pretrained(staging / "tokenizer")
        evaluator.text_encoder.text_model.config.save_pretrained(staging / "tokenizer")
        (staging / "stats").mkdir()
        np.save(staging / "stats" / "mean.npy", evaluator.mean)
        np.save(staging / "stats" / "std.npy", evaluator.std)
        write_json(
            staging / "config.json",
            {
                "architectures": ["MotionStreamer272Evaluator"],
                "format_version": 1,
                "library_name": "hftrainer",
                "model_type": MODEL_TYPE,
                "weights_file": "model.safetensors",
                "text_backbone": text["source"],
                **{_STORED_AS.get(name, name): value for name, value in config.items()},
            },
        )
        places = {"mean": "stats/mean.npy", "std": "stats/std.npy", "tokenizer": "tokenizer"}
        write_json(staging / "preprocessor_config.json", {**preprocessing, **places})
        write_manifest(staging)


def load_statistics(
    mean: str | os.PathLike[str] | Float64, std: str | os.PathLike[str] | Float64, width: int
) -> tuple[Float64, Float64]:
    """Mean and standard deviation (width,) in float64, from arrays or .npy files, checked."""
    arrays = []
    for name, given in (("mean", mean), ("std", std)):
        where = name if isinstance(given, np.ndarray) else str(given)
        try:
            array = given if isinstance(given, np.ndarray) else read_npy(given, error=CheckpointError)
        except OSError as error:
            raise CheckpointError(f"{where} cannot be read: {error.strerror}") from error
        if array.shape != (width,) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise CheckpointError(
                f"{where}: expected {width} finite floats, the evaluator's own {name}, got shape {array.shape} of "
                f"{array.dtype}"
            )
        arrays.append(array.astype(np.float64))
    if not (arrays[1] > 0).all():
        raise CheckpointError(f"std: must be positive, channel {int(np.argmin(arrays[1]))} is not")
    return arrays[0], arrays[1]


# --- parts ------------------------------------------------------------------------------------------------------------


def _encoders(config: MotionStreamer272Config, text_model: nn.Module) -> tuple[TextEncoder, MotionEncoder]:
    sizes: dict[str, Any] = {
        "width": config.latent_dim,
        "layers": config.num_layers,
        "heads": config.num_heads,
        "hidden": config.ff_size,
        "dropout": config.dropout,
        "positions": config.positions,
    }
    text_width = int(text_model.config.hidden_size)  # type: ignore[union-attr, arg-type]
    return TextEncoder(text_model, text_width, **sizes), MotionEncoder(config.motion_features, **sizes)


def _assemble(
    config: MotionStreamer272Config,
    state: Checkpoint,
    text_model: nn.Module,
    tokenizer: Any,
    mean: Float64,
    std: Float64,
) -> Parts:
    text, motion = _encoders(config, text_model)
    both = nn.ModuleDict({"text_encoder": text, "motion_encoder": motion})
    assign(both, state, source=str(state.path), dtype=torch.float32)
    return Parts(config, text, motion, tokenizer, mean, std)


def _config_of(state: Checkpoint, stored: dict[str, Any], source: str) -> MotionStreamer272Config:
    """The sizes: those that are written down, the others read off the tensors (heads, which none shows, are 4)."""
    needed = {
        "embedding": "motion_encoder.skel_embedding.weight",
        "feed-forward": "motion_encoder.seqTransEncoder.layers.0.linear1.weight",
        "positions": "motion_encoder.sequence_pos_encoding.pe",
    }
    for name in needed.values():
        if name not in state:
            raise CheckpointError(f"{source} does not hold an evaluator: it has no {name!r}")
    latent, features = state.shape_of(needed["embedding"])
    layers = {m[1] for name in state if (m := re.match(r"motion_encoder\.seqTransEncoder\.layers\.(\d+)\.", name))}
    read_off = {
        "motion_features": features,
        "latent_dim": latent,
        "num_layers": len(layers),
        "ff_size": state.shape_of(needed["feed-forward"])[0],
        "positions": state.shape_of(needed["positions"])[0],
    }
    known = {f.name for f in fields(MotionStreamer272Config)} - {"text"}
    written = {name: stored[_STORED_AS.get(name, name)] for name in known if _STORED_AS.get(name, name) in stored}
    return typed(MotionStreamer272Config, {**read_off, **written}, path=source)


def _inside(folder: Path, name: Any) -> Path:
    """A path that a configuration names, which must lie in its folder."""
    return inside(folder, name, what=f"{folder} names a file", error=CheckpointError)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is not an evaluator's folder: it has no {path.name}")
    content: dict[str, Any] = read_json(path, error=CheckpointError)
    return content
