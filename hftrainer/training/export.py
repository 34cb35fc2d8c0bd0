"""A model folder from a run's newest checkpoint: for a run that ended before it wrote one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hftrainer.config import ConfigError, read_yaml
from hftrainer.models.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from hftrainer.registry import DATASETS, MODELS

_PREFIX = "bundle."


def export_run(run: Path, out: Path, checkpoint: Path | None = None, tokenizer: Path | None = None) -> Any:
    """Put what a run's checkpoint (a file, or a folder of DeepSpeed) has trained into its model; write that to `out`.

    Frozen parts come from where the run took them, and so does the tokenizer with its statistics, but for `tokenizer`,
    a model folder. The weights are those of the last step, not their moving average. Needs neither Lightning nor
    DeepSpeed.
    """
    config = run / "config.yaml"
    if not config.is_file():
        raise ConfigError(f"{run} is not the folder of a run: it has no config.yaml")
    resolved = read_yaml(config)
    if resolved["task"].get("lora"):
        raise ConfigError(f"{run} trained an adapter, see {run}/last-adapter; merge it with hftrainer convert adapter")
    path = checkpoint or run / "checkpoints" / "last.ckpt"
    if not path.exists():
        raise ConfigError(f"there is no checkpoint {path}")
    if (path / ".metadata").is_file():
        raise ConfigError(f"{path} was written by fsdp2; resume the run, whose artifact callback writes a model folder")
    section = resolved["model"]
    if tokenizer is not None:
        section = {**section, "init": {**(section.get("init") or {}), "tokenizer": str(tokenizer)}}
    state = open_checkpoint(path, prefix=_PREFIX)
    bundle = MODELS.build(section, path="model")
    _restore(bundle, state)
    unset: list[str] = getattr(bundle, "untrained_parts", lambda names: [])(set(state))
    if unset:
        raise ConfigError(f"{run} neither loaded nor trained its {unset[0]}; give one with --{unset[0]}")
    _restore_statistics(bundle, state, path, resolved)
    bundle.save_pretrained(out)
    return bundle


def _restore(bundle: torch.nn.Module, state: Checkpoint) -> None:
    """Copy the checkpoint's tensors into the model, which has to have each of them."""
    there = bundle.state_dict(keep_vars=True)
    for name in state:
        if name not in there:
            raise CheckpointError(f"{state.path}: the model of config.yaml has no tensor {name!r}")
        if tuple(there[name].shape) != tuple(state.shape_of(name)):
            raise CheckpointError(
                f"{state.path}: {name} has shape {tuple(state.shape_of(name))}, the model of config.yaml "
                f"{tuple(there[name].shape)}"
            )
        there[name].data.copy_(state[name])


def _restore_statistics(bundle: Any, state: Checkpoint, path: Path, resolved: dict[str, Any]) -> None:
    """Statistics of a tokenizer that was trained in this run: the checkpoint's own, else those of its data."""
    if getattr(bundle, "tokenizer_sha256", None) is not None or not hasattr(bundle, "set_statistics"):
        return
    try:
        saved = open_checkpoint(path, keys=("statistics",))
        values = [saved[name].numpy() for name in ("mean", "std")]
    except (CheckpointError, KeyError):  # of an earlier release, or of DeepSpeed
        source = DATASETS.build(resolved["data"], path="data")
        if getattr(source, "statistics", None) is None:
            raise ConfigError(f"{path} holds no statistics of the motions, and neither do its data") from None
        values = list(source.statistics)
    bundle.set_statistics(*values)
