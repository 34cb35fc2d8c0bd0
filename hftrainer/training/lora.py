"""LoRA (arXiv 2106.09685): train a low-rank correction of a transformer's matrices instead of the matrices, by peft.

W x becomes W x + (alpha / rank) B A dropout(x), with A (rank, in) random and B (out, rank) zero, so that training
starts from the transformer as it is. A run writes an adapter in peft's layout, and a model with the correction merged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.extras import need
from hftrainer.files import atomic_folder
from hftrainer.models.checkpoint import write_safetensors

_NAME = "default"  # peft's for the only adapter


@dataclass
class LoRAConfig:
    """`targets`: linear layers by the end of their names; the default are all inside the blocks."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["c_attn", "c_proj", "c_fc1", "c_fc2"])

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise ValueError(f"lora needs a rank of at least 1 and targets, got {self.rank} and {self.targets}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout lies in [0, 1), got {self.dropout}")


def add_lora(network: nn.Module, config: LoRAConfig) -> None:
    """Put adapters beside the linear layers that `config.targets` names, in place."""
    peft = need("peft", "task.lora")
    linear = {name.rpartition(".")[2] for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    unknown = sorted(set(config.targets) - linear)
    if unknown:
        raise ConfigError(f"task.lora.targets: there is no linear layer called {unknown}; known: {sorted(linear)}")
    peft.inject_adapter_in_model(_peft_config(config), network, adapter_name=_NAME)


def adapters(network: nn.Module) -> list[nn.Module]:
    """The modules that LoRA trains, with their dropouts."""
    return [part for layer in _layers(network).values() for part in (layer.lora_A, layer.lora_B, layer.lora_dropout)]


@torch.no_grad()
def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors under the names that they have without adapters, with the corrections added.

    Added in float32 and rounded once; the network keeps its own weights as they are.
    """
    state = {
        name.replace(".base_layer.", "."): value.detach()
        for name, value in network.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in _layers(network).items():
        a, b = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
        weight = state[f"{name}.weight"]
        state[f"{name}.weight"] = (weight.float() + layer.scaling[_NAME] * (b.float() @ a.float())).to(weight.dtype)
    return state


def save_adapter(network: nn.Module, config: LoRAConfig, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as peft's `PeftModel.save_pretrained` does."""
    tensors = {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": value.detach().float().cpu().contiguous()
        for name, value in network.state_dict().items()
        if ".lora_" in name
    }
    with atomic_folder(folder) as staging:
        types = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
        write_safetensors(staging / "adapter_model.safetensors", types, lambda name: tensors[name])
        _peft_config(config).save_pretrained(str(staging))


def _layers(network: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in network.named_modules() if hasattr(module, "lora_A")}


def _peft_config(config: LoRAConfig) -> Any:
    peft = need("peft", "task.lora")
    return peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(config.targets),
        bias="none", inference_mode=False,
    )  # fmt: skip
