"""Optimizers by name. An entry of OPTIMIZERS is a ``torch.optim.Optimizer`` whose ``from_config(config, groups=)``
builds it from named parameters with their learning rates; its ``Config`` has at least `lr` and a `schedule`.

`zero`: whether DeepSpeed can step it on its flat shards of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.extras import need, quiet
from hftrainer.fields import number
from hftrainer.registry import OPTIMIZERS, SCHEDULES, Part, part

T = TypeVar("T", bound=torch.optim.Optimizer)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters by name, and their learning rate in units of the configured one."""

    parameters: dict[str, nn.Parameter]
    lr_scale: float = 1.0


@dataclass
class OptimizerConfig:
    """What all optimizers have: the full learning rate and how it changes over the run."""

    lr: float = number(4e-4, above=0)
    weight_decay: float = number(0.0, at_least=0)
    schedule: Part = part(SCHEDULES, "cosine")


@dataclass
class AdamConfig(OptimizerConfig):
    """`betas` of the two moments; `eps` is added to the root of the second."""

    betas: list[float] = number([0.9, 0.999], at_least=0, below=1)
    eps: float = number(1e-8, above=0)

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"betas are two numbers, got {list(self.betas)}")


@OPTIMIZERS.register("adamw")
class AdamW(torch.optim.AdamW):
    """AdamW, one fused kernel for all parameters; a tenth of a step of nano on a CPU."""

    Config = AdamConfig
    zero: ClassVar[bool] = True

    @classmethod
    def from_config(cls, config: AdamConfig, *, groups: Sequence[ParameterGroup]) -> AdamW:
        """See the module."""
        return _clippable(cls(torch_groups(groups, config.lr), **_adam_arguments(config), fused=True))


@OPTIMIZERS.register("adam")
class Adam(torch.optim.Adam):
    """Adam: weight decay is part of the gradient."""

    Config = AdamConfig
    zero: ClassVar[bool] = True

    @classmethod
    def from_config(cls, config: AdamConfig, *, groups: Sequence[ParameterGroup]) -> Adam:
        """See the module."""
        return _clippable(cls(torch_groups(groups, config.lr), **_adam_arguments(config), fused=True))


@OPTIMIZERS.register("adamw8bit")
class AdamW8bit:
    """AdamW whose moments are kept in 8 bits with a scale for each block of 256 (arXiv 2110.02861), by torchao."""

    Config = AdamConfig
    zero: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: AdamConfig, *, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """torchao's optimizer. Tensors of fewer than 4096 numbers keep moments in 32 bits."""
        with quiet():
            need("torchao", "task.optimizer.name=adamw8bit")
            from torchao.optim import AdamW8bit as EightBit
        optimizer: torch.optim.Optimizer = EightBit(torch_groups(groups, config.lr), **_adam_arguments(config))
        return optimizer


@dataclass
class MuonConfig(AdamConfig):
    """`momentum` is Muon's; `betas` and `eps` are AdamW's, which moves what Muon does not.

    `adamw_for`: matrices whose name has one of these parts are AdamW's all the same. Embeddings always are.
    """

    weight_decay: float = number(0.1, at_least=0)
    momentum: float = number(0.95, at_least=0, below=1)
    adamw_for: list[str] | None = None

    def named(self) -> list[str]:
        """`adamw_for`, by default tables of a vocabulary."""
        return ["wte", "lm_head"] if self.adamw_for is None else list(self.adamw_for)


@OPTIMIZERS.register("muon")
class Muon(torch.optim.Optimizer):
    """Matrices by torch's Muon (Jordan et al. 2024), everything else by AdamW, as one optimizer.

    Muon's steps are scaled to AdamW's mean size (arXiv 2502.16982, section 2.2), so that one learning rate is good
    for both.
    """

    Config = MuonConfig
    zero: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: MuonConfig, *, groups: Sequence[ParameterGroup]) -> Muon:
        """See the module."""
        matrices, others = [], []
        for group in groups:
            chosen = {
                name: p
                for name, p in group.parameters.items()
                if p.ndim == 2 and not any(part in name.split(".") for part in config.named())
            }
            rest = {name: p for name, p in group.parameters.items() if name not in chosen}
            matrices += [ParameterGroup(chosen, group.lr_scale)] if chosen else []
            others += [ParameterGroup(rest, group.lr_scale)] if rest else []
        return cls(matrices, others, config)

    def __init__(self, matrices: Sequence[ParameterGroup], others: Sequence[ParameterGroup], config: MuonConfig):
        if not matrices:
            raise ConfigError("task.optimizer.name=muon: no trainable parameter is a matrix; use adamw")
        self._muon = torch.optim.Muon(
            torch_groups(matrices, config.lr), lr=config.lr, weight_decay=config.weight_decay,
            momentum=config.momentum, adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        self._adamw = (
            torch.optim.AdamW(torch_groups(others, config.lr), **_adam_arguments(config), fused=True)
            if others
            else None
        )
        parts = {"muon": self._muon} if self._adamw is None else {"muon": self._muon, "adamw": self._adamw}
        super().__init__(
            [{**group, "kind": kind} for kind, inner in parts.items() for group in inner.param_groups], defaults={}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both, on this optimizer's groups and state."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for kind, inner in (("muon", self._muon), ("adamw", self._adamw)):
            if inner is not None:
                inner.param_groups = [group for group in self.param_groups if group["kind"] == kind]
                inner.state = self.state  # loading a checkpoint replaces it
                inner.step()  # type: ignore[no-untyped-call]
        return loss


def torch_groups(groups: Sequence[ParameterGroup], lr: float) -> list[dict[str, Any]]:
    """Groups as torch takes them, only trainable parameters."""
    return [
        {"params": [p for p in group.parameters.values() if p.requires_grad], "lr": lr * group.lr_scale}
        for group in groups
    ]


def make_optimizer(
    chosen: Part, groups: Sequence[ParameterGroup], total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The configured optimizer over the parameters that train, and its schedule (stepped once per optimizer step)."""
    trained = [
        ParameterGroup({name: p for name, p in group.parameters.items() if p.requires_grad}, group.lr_scale)
        for group in groups
    ]
    optimizer: torch.optim.Optimizer = chosen.build(groups=[group for group in trained if group.parameters])
    factor = chosen.config.schedule.build(total=total)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor.__call__)


def _adam_arguments(config: AdamConfig) -> dict[str, Any]:
    betas = (config.betas[0], config.betas[1])
    return {"lr": config.lr, "betas": betas, "eps": config.eps, "weight_decay": config.weight_decay}


def _clippable(optimizer: T) -> T:
    """Lightning takes a fused optimizer for one that unscales float16 gradients by itself, and refuses to clip them.
    With this they are unscaled before they are clipped; without a scaler (bfloat16) nothing changes."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def moment_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state, as far as it is tensors of more than one number."""
    values = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(value.nbytes for value in values if value.ndim)
