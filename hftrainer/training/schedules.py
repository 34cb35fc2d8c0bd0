"""Learning-rate schedules: a factor on the base rate for a step counted from 0.

A schedule is a class of the registry SCHEDULES, built with its ``Config`` and the run's `total` steps, and called with
a step. `uses_total` says whether the factor depends on `total`: a run of such a schedule cannot be made longer without
changing the steps that it has yet to take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hftrainer.config import ConfigError
from hftrainer.fields import number
from hftrainer.registry import SCHEDULES


@dataclass
class WarmupConfig:
    """`warmup` steps come first, from 0 to the full rate."""

    warmup: int = number(0, at_least=0)


class Schedule:
    """Base of the schedules: the warm-up is the same for all, `after_warmup` is theirs."""

    uses_total: ClassVar[bool] = True

    def __init__(self, config: WarmupConfig, *, total: int):
        self.config, self.total = config, total

    def __call__(self, step: int) -> float:
        """The factor for the step after `step` steps have been taken."""
        return self.warmup_factor(step) * self.after_warmup(step)

    def warmup_factor(self, step: int) -> float:
        """0 at step 0, 1 from step ``config.warmup`` on."""
        return min(1.0, step / self.config.warmup) if self.config.warmup > 0 else 1.0

    def progress(self, step: int) -> float:
        """0 when the warm-up ends, 1 at step `total` and after."""
        return min(1.0, max(0.0, (step - self.config.warmup) / max(1, self.total - self.config.warmup)))

    def after_warmup(self, step: int) -> float:
        """The factor without the warm-up."""
        raise NotImplementedError


@SCHEDULES.register("constant")
class Constant(Schedule):
    """The full rate to the end."""

    Config = WarmupConfig
    uses_total = False

    def after_warmup(self, step: int) -> float:
        """1."""
        return 1.0


@dataclass
class DecayConfig(WarmupConfig):
    """Down to `min_lr_ratio` times the rate at the last step."""

    min_lr_ratio: float = number(0.0, at_least=0, at_most=1)


@SCHEDULES.register("cosine")
class Cosine(Schedule):
    """Half a cosine (upstream's was set to end before training did, and the rate rose again)."""

    Config = DecayConfig
    config: DecayConfig

    def after_warmup(self, step: int) -> float:
        """1 when the warm-up ends, `min_lr_ratio` at the last step and after."""
        low = self.config.min_lr_ratio
        return low + (1 - low) * (1 + math.cos(math.pi * self.progress(step))) / 2


@SCHEDULES.register("linear")
class Linear(Schedule):
    """A straight line."""

    Config = DecayConfig
    config: DecayConfig

    def after_warmup(self, step: int) -> float:
        """1 when the warm-up ends, `min_lr_ratio` at the last step and after."""
        return 1 - (1 - self.config.min_lr_ratio) * self.progress(step)


@dataclass
class StableDecayConfig(DecayConfig):
    """The last `decay` steps go down; the steps before them have the full rate."""

    decay: int = number(1000, at_least=1)


@SCHEDULES.register("wsd")
class WarmupStableDecay(Schedule):
    """Warm-up, full rate, and a linear decay at the end (MiniCPM, arXiv 2404.06395)."""

    Config = StableDecayConfig
    config: StableDecayConfig

    def after_warmup(self, step: int) -> float:
        """1 until `decay` steps are left, `min_lr_ratio` at the last step and after."""
        decay = max(1, min(self.config.decay, self.total - self.config.warmup))
        gone = min(1.0, max(0.0, 1 - (self.total - step) / decay))
        return 1 - (1 - self.config.min_lr_ratio) * gone


@SCHEDULES.register("inverse_sqrt")
class InverseSqrt(Schedule):
    """sqrt(warmup / step) after the warm-up ("Attention is all you need", equation 3, with a free base rate)."""

    Config = WarmupConfig
    uses_total = False

    def after_warmup(self, step: int) -> float:
        """1 when the warm-up ends."""
        start = max(1, self.config.warmup)
        return math.sqrt(start / max(step, start))


@dataclass
class StepsConfig(WarmupConfig):
    """Multiplied by `gamma` at each of the `milestones`, which are steps."""

    milestones: list[int] = number([], at_least=1)
    gamma: float = number(0.05, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(f"milestones must ascend, got {list(self.milestones)}")


@SCHEDULES.register("steps")
class Steps(Schedule):
    """A staircase.

    Upstream stepped its schedule once per process, so that its drop at 300000 came at 75000 on 4 devices: a milestone
    here is at the step that it says.
    """

    Config = StepsConfig
    config: StepsConfig
    uses_total = False

    def after_warmup(self, step: int) -> float:
        """`gamma` to the number of milestones that have been reached."""
        return float(self.config.gamma ** sum(step >= milestone for milestone in self.config.milestones))
