"""What a device has to hold for training, in bytes, from the parameters, the precision and the strategy.

Sources for the shares: ZeRO (arXiv 1910.02054, section 5) for DeepSpeed's stages; torch's fully_shard for fsdp2; AdamW
keeps two numbers a parameter in the parameter's own type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NOT_COUNTED = (
    "activations, logits and other things of a step, buffers for communication, what is gathered for a block at a time "
    "(zero3, fsdp2), the CUDA context, fragmentation"
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of a model: parameters that train, those that do not in bytes, and copies that callbacks keep."""

    trained: int
    frozen_bytes: int
    averages: int = 0


@dataclass(frozen=True)
class Memory:
    """Bytes on each device by what they are for, in order; `on_cpu` are in the machine's memory instead."""

    parts: dict[str, float]
    on_cpu: dict[str, float]

    @property
    def total(self) -> float:
        """All on the device."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Spread:
    """A strategy as far as memory goes: which of weights, gradients and optimizer are in shares."""

    name: str
    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    zero: bool = False
    offload: str = "none"


def spread_of(strategy: str, offload: str, processes: int) -> Spread:
    """What a strategy shares out, by our name or Lightning's."""
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


def memory_per_device(sizes: Sizes, spread: Spread, precision: str, processes: int) -> Memory:
    """Bytes on one of `processes` devices. `precision`: 32-true, bf16-mixed, 16-mixed or bf16-true."""
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
    if precision.endswith("mixed"):
        # autocast keeps a copy of each matrix for the length of a step; fsdp2 casts a block at a time instead
        if spread.name != "fsdp2":
            parts["half-precision copies (autocast)"] = sizes.trained * 2
    if sizes.averages:
        parts["averaged weights (ema)"] = sizes.averages * sizes.trained * width / (processes if spread.weights else 1)
    parts["frozen parts"] = sizes.frozen_bytes
    return Memory({key: value for key, value in parts.items() if value}, on_cpu)
