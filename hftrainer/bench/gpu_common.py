"""What the stages of ``hftrainer bench gpu`` share: settings, models of random weights, a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig

Figures = dict[str, Any]
M = TypeVar("M", bound=nn.Module)
TINY: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 64, "vocab_size": 602, "clip_dim": 16}


@dataclass(frozen=True)
class Settings:
    """`size` is that of the large model."""

    pretend: bool = False
    size: str = "7B"

    def model(self, size: str, dtype: torch.dtype = torch.bfloat16, **fields: Any) -> LLaMAHF:
        """A transformer of this size."""
        config = LLaMAHFConfig(**TINY) if self.pretend else LLaMAHFConfig.from_name(size, **fields)
        return self.make(lambda: LLaMAHF(config), dtype)

    def make(self, build: Callable[[], M], dtype: torch.dtype) -> M:
        """A module with random weights of `dtype`, made on the device."""
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            if self.pretend:
                return build().to("cuda:0").eval().requires_grad_(False)
            with torch.device("cuda:0"):
                return build().eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(default)


def timed(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Milliseconds of the first call, and of a later one on average."""
    start = time.perf_counter()
    work()
    wait()
    first = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return 1e3 * first, 1e3 * (time.perf_counter() - start) / times


def wait() -> None:
    """Until the device has done what it was given."""
    torch.cuda.synchronize()
