"""LoRA adapters in peft's layout, merged into a transformer; peft itself is not needed for that.

adapter_config.json          rank r, lora_alpha, which layers
adapter_model.safetensors    base_model.model.<layer>.lora_A.weight (r, in) and .lora_B.weight (out, r)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hftrainer.models.checkpoint import CheckpointError, open_checkpoint
from hftrainer.models.motion.motionmillion.network import LLaMAHF
from hftrainer.readers import read_json

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
# what would change the arithmetic below, and the value at which it does not
_PLAIN = {"use_dora": False, "fan_in_fan_out": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}}


@torch.no_grad()
def merge_adapter(ar: LLaMAHF, folder: str | os.PathLike[str]) -> None:
    """Replace each adapted matrix W by W + (alpha / r) B A, computed in float32 and rounded to W's type once.

    Raises `CheckpointError` for an adapter of another kind or another model.
    """
    folder = Path(folder)
    settings = _read_config(folder)
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise CheckpointError(f"{folder}/adapter_config.json: r is {rank!r} and lora_alpha {alpha!r}")
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    state = open_checkpoint(folder / "adapter_model.safetensors")
    layers = {name[len(_PREFIX) : -len(_A)] for name in state if name.startswith(_PREFIX) and name.endswith(_A)}
    if not layers or len(state) != 2 * len(layers):
        raise CheckpointError(
            f"{folder}: expected pairs of {_PREFIX}...{_A} and {_B}, found e.g. {next(iter(state), None)}"
        )
    modules = dict(ar.named_modules())
    for layer in sorted(layers):
        module = modules.get(layer)
        if not isinstance(module, nn.Linear) or f"{_PREFIX}{layer}{_B}" not in state:
            raise CheckpointError(f"{folder}: this model has no linear layer {layer!r}, or the adapter no {_B} for it")
        a, b = state[f"{_PREFIX}{layer}{_A}"], state[f"{_PREFIX}{layer}{_B}"]
        weight = module.weight
        if a.shape != (rank, weight.shape[1]) or b.shape != (weight.shape[0], rank):
            raise CheckpointError(
                f"{folder}: {layer} is {tuple(weight.shape)}, its adapter {tuple(b.shape)} x {tuple(a.shape)}; it was "
                "made for a model of another size"
            )
        correction = scale * (b.float() @ a.float()).to(weight.device)
        module.weight = nn.Parameter((weight.float() + correction).to(weight.dtype), requires_grad=weight.requires_grad)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    try:
        settings: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a LoRA adapter: {error}") from error
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{path} describes no LoRA adapter")
    other = {key: settings[key] for key, plain in _PLAIN.items() if settings.get(key, plain) not in (plain, None)}
    if other:
        raise CheckpointError(f"{path}: only plain LoRA can be merged, this has {other}; merge it with peft")
    return settings
