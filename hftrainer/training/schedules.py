"""Learning-rate schedules as functions of numbers: a factor on the base rate for a step counted from 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class OptimizerConfig:
    """AdamW and its schedule.

    `schedule`: "constant"; "cosine", down to `final` times the rate at the last step (upstream's cosine was set to
    end before training did, and the rate rose again); "steps", multiplied by `gamma` at each of `drops` (upstream
    stepped its schedule once per process, so that its drop at 300000 came at 75000 on 4 devices: a drop here is at
    the step that it says). `warmup` steps come first, from 0 to the full rate.
    """

    lr: float = 4e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: int = 0
    final: float = 0.0
    drops: list[int] = field(default_factory=list)
    gamma: float = 0.05

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "cosine", "steps"):
            raise ValueError(f"schedule must be 'constant', 'cosine' or 'steps', got {self.schedule!r}")
        if len(self.betas) != 2:
            raise ValueError(f"betas are two numbers, got {self.betas}")


def warmup_factor(step: int, warmup: int) -> float:
    """0 at step 0, 1 from step `warmup` on."""
    return min(1.0, step / warmup) if warmup > 0 else 1.0


def cosine_factor(step: int, *, warmup: int, total: int, final: float = 0.0) -> float:
    """1 when the warm-up ends, `final` at step `total` and after."""
    progress = min(1.0, max(0.0, (step - warmup) / max(1, total - warmup)))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def steps_factor(step: int, *, drops: Sequence[int], gamma: float) -> float:
    """`gamma` to the number of drops that have come."""
    return float(gamma ** sum(step >= drop for drop in drops))


def factor(config: OptimizerConfig, total: int) -> Callable[[int], float]:
    """The configured schedule over `total` steps, warm-up included."""

    def at(step: int) -> float:
        warm = warmup_factor(step, config.warmup)
        if config.schedule == "cosine":
            return warm * cosine_factor(step, warmup=config.warmup, total=total, final=config.final)
        if config.schedule == "steps":
            return warm * steps_factor(step, drops=config.drops, gamma=config.gamma)
        return warm

    return at


def make_optimizer(
    groups: Mapping[float, Iterable[nn.Parameter]], config: OptimizerConfig, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over the parameters that train, and its schedule (stepped once per optimizer step).

    `groups`: parameters by their learning rate in units of ``config.lr``.
    """
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in part if p.requires_grad], "lr": config.lr * rate} for rate, part in groups.items()],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,  # one kernel for all parameters; a tenth of a step of nano on a CPU
    )
    # Lightning takes a fused optimizer for one that unscales float16 gradients by itself, and refuses to clip them.
    # With this they are unscaled before they are clipped; without a scaler (bfloat16) nothing changes.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor(config, total))
