"""What a device has to hold for training, in bytes, from the parameters, the precision and the strategy.

Sources: ZeRO (arXiv 1910.02054, section 5) for DeepSpeed's stages; torch's fully_shard for fsdp2; AdamW
keeps two numbers a parameter in the parameter's own type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hftrainer.config import ConfigError
from hftrainer.training.activations import StepMemory

NOT_COUNTED = "the CUDA context and fragmentation (--card allows for 0.6 GB and 4 %), and buffers of NCCL"
_CONTEXT, _FRAGMENTATION = 0.6e9, 1.04
_BUCKET = 2e8  # numbers in each of DeepSpeed's buffers for gradients and for parameters, as Lightning sets them
_LIVE = 1e9  # parameters that ZeRO 3 keeps gathered at most
# Memory of cards, bytes, as the makers state them.
CARDS_BYTES = {
    "v100-16": 16e9, "v100-32": 32e9, "rtx3090-24": 24e9, "rtx4090-24": 24e9, "rtx5090-32": 32e9, "a10-24": 24e9,
    "l4-24": 24e9, "l40s-48": 48e9, "a100-40": 40e9, "a100-80": 80e9, "h100-80": 80e9, "h200-141": 141e9,
    "b200-180": 180e9,
}  # fmt: skip


def card_bytes(name: str) -> float:
    """The memory of a card; `ConfigError` for an unknown one, with the known ones."""
    if name not in CARDS_BYTES:
        raise ConfigError(f"--card: unknown card {name!r}; known: {', '.join(CARDS_BYTES)}")
    return CARDS_BYTES[name]


def fits(total: float, card: float) -> bool:
    """Whether so many bytes of tensors fit a card, with a CUDA context and what fragmentation takes."""
    return total * _FRAGMENTATION + _CONTEXT <= card


@dataclass(frozen=True)
class Sizes:
    """Numbers of a model: parameters that train, those that do not in bytes, and copies that callbacks keep."""

    trained: int
    frozen_bytes: int
    averages: int = 0
    block: int = 0  # parameters of the largest part that is gathered at a time
    root: int = 0  # parameters that are gathered for all of a step


@dataclass(frozen=True)
class Memory:
    """Bytes on each device by what they are for, in order; `on_cpu` are in CPU memory instead."""

    parts: dict[str, float]
    on_cpu: dict[str, float]

    @property
    def total(self) -> float:
        """All on the device."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Spread:
    """A strategy as far as memory goes: which of weights, gradients and optimizer are sharded."""

    name: str
    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    zero: bool = False
    offload: str = "none"


def _add_step(parts: dict[str, float], sizes: Sizes, spread: Spread, width: int, step: StepMemory) -> None:
    """What a step takes; autocast's copies of matrices are among the activations."""
    parts["activations kept for the backward pass"] = step.kept
    if spread.name == "single":
        parts.pop("gradients")
        parts["gradients and temporaries at the peak"] = step.peak - step.kept
        return
    parts["temporaries at the peak"] = step.peak_without_gradients - step.kept
    if spread.name == "fsdp2":  # the block in use, the next one, and what belongs to no block
        parts["gathered parameters"] = (2 * sizes.block + sizes.root) * width
    elif spread.zero:
        if spread.weights:
            parts["gathered parameters"] = min(sizes.trained, _LIVE) * width
        parts["buffers for communication"] = 2 * min(sizes.trained, _BUCKET) * width


def spread_of(strategy: str, offload: str, processes: int) -> Spread:
    """What a strategy shards, by our name or Lightning's."""
    name = strategy.lower()
    stage = re.search(r"(?:zero|deepspeed(?:_stage_)?)(\d)?", name)
    if stage is not None:
        number = int(stage.group(1) or 2)
        if "offload" in name:
            offload = "all" if number == 3 else "optimizer"
        return Spread(f"zero{number}", number >= 3, number >= 2, True, zero=True, offload=offload)
    if "fsdp" in name or "modelparallel" in name.replace("_", ""):
        return Spread("fsdp2", True, True, True)
    return Spread("ddp" if name == "ddp" or (name == "auto" and processes > 1) else "single")


def memory_per_device(
    sizes: Sizes, spread: Spread, precision: str, processes: int, step: StepMemory | None = None
) -> Memory:
    """Bytes on one of `processes` devices. `precision`: 32-true, bf16-mixed, 16-mixed or bf16-true.

    `step`: what a step takes beside them; with one device gradients are only there while activations go away, so that
    their sum at the peak counts, and `gradients` are excluded.
    """
    half = precision.endswith("-true") and not precision.startswith(("32", "64"))
    width = 2 if half else 4
    parts = {
        "weights": sizes.trained * width / (processes if spread.weights else 1),
        "gradients": sizes.trained * width / (processes if spread.gradients else 1),
    }
    # DeepSpeed steps a float32 copy of the weights; elsewhere AdamW steps the weights themselves
    state = 4 + 8 if spread.zero else 2 * width
    optimizer = sizes.trained * state / (processes if spread.optimizer else 1)
    on_cpu: dict[str, float] = {}
    name = "optimizer (float32 weights, two moments)" if spread.zero else "optimizer (two moments)"
    if spread.offload == "none":
        parts[name] = optimizer
    else:
        on_cpu[name] = optimizer
        if spread.offload == "all":
            on_cpu["weights"] = parts.pop("weights")
    if step is not None:
        _add_step(parts, sizes, spread, 2 if precision.startswith("bf16") else width, step)
    elif precision.endswith("mixed"):
        # autocast keeps a copy of each matrix for the length of a step; fsdp2 casts a block at a time instead
        if spread.name != "fsdp2":
            parts["half-precision copies (autocast)"] = sizes.trained * 2
    if sizes.averages:
        parts["averaged weights (ema)"] = sizes.averages * sizes.trained * width / (processes if spread.weights else 1)
    parts["frozen parts"] = sizes.frozen_bytes
    return Memory({key: value for key, value in parts.items() if value}, on_cpu)
