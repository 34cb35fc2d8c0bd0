"""Decoding steps as CUDA graphs: one launch a step instead of some nine hundred.

A graph replays fixed shapes on fixed memory, so there is one for each number of rows and of live slots, the latter
rounded up to 64; attention thus reads at most 63 slots too many. Graphs share one memory pool.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

LIVE_MULTIPLE = 64
_WARM_UP = 2  # steps before a capture, in which libraries set themselves up


class Stepped(Protocol):
    """What can be captured: state in tensors that `step` changes in place."""

    def step(self, live: int) -> None:
        """One step; see `RowState.step`."""

    def tensors(self) -> list[Tensor]:
        """The small ones, which a warm-up must leave as they were."""

    @property
    def slots(self) -> int:
        """The most live slots there can be."""


class StepGraphs:
    """`step` of one state on a CUDA device, captured when a shape is first met."""

    def __init__(self, state: Stepped):
        self.state = state
        self.graphs: dict[int, Any] = {}
        self.pool: Any = None

    def step(self, live: int) -> None:
        """As the state's own `step`, replayed."""
        live = live_bucket(live, self.state.slots)
        if live not in self.graphs:
            self.graphs[live] = self._capture(live)
        self.graphs[live].replay()

    def _capture(self, live: int) -> Any:
        before = [tensor.clone() for tensor in self.state.tensors()]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self.state.step(live)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            self.state.step(live)
        self.pool = graph.pool()
        for tensor, was in zip(self.state.tensors(), before, strict=True):
            tensor.copy_(was)
        return graph


def live_bucket(live: int, slots: int) -> int:
    """`live` rounded up to `LIVE_MULTIPLE`, at most `slots`."""
    return min(-(-live // LIVE_MULTIPLE) * LIVE_MULTIPLE, slots)
