"""Decoding steps as CUDA graphs: one launch a step instead of some thousand. Optional reading.

A graph replays fixed shapes on fixed memory, so there is one for each number of rows, of slots that are read (rounded
up to 64; attention thus reads at most 63 too many; where attention knows each row's length, one graph serves all) and
way of sampling. They share one memory pool, stay with the batch whose memory they use, and so serve later calls.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch

log = logging.getLogger(__name__)

KV_MULTIPLE = 64
_MOST = 64  # graphs that are kept; settings that change with every call would otherwise collect more and more


class Stepped(Protocol):
    """What can be captured: state in tensors that `step` changes in place."""

    params: Any
    model: Any
    guidance: Any

    def __len__(self) -> int: ...

    def step(self, kv_len_bound: int) -> None:
        """One step; see `DecodeBatch.step`."""

    def slots_of_graph(self, kv_len_bound: int) -> int:
        """The bound of slots that a graph is made for, to serve a step that reads at most `kv_len_bound`."""


class StepGraphs:
    """`step` of a batch on a CUDA device, captured when a shape is first met."""

    def __init__(self, device: torch.device):
        self.device = device
        self.graphs: dict[tuple[Any, ...], Any] = {}
        self._stream: Any = None  # one, as every new one would keep a workspace of cuBLAS's
        self._pool: Any = None

    def step(self, batch: Stepped, kv_len_bound: int) -> None:
        """As the batch's own `step`, replayed. Batches of as many rows must be the same memory."""
        kv_len = batch.slots_of_graph(kv_len_bound)
        key = (len(batch), kv_len, batch.params, batch.guidance is None)
        # whatever device is current: work for another one would miss the capture, and the replay would do nothing
        with torch.cuda.device(self.device):
            if key in self.graphs:
                self.graphs[key].replay()
                return
            step = self._step_of(batch)
            try:
                step(kv_len)  # this step is real, and libraries set themselves up in it
            except torch._dynamo.exc.TorchDynamoException as error:  # type: ignore[attr-defined]
                log.warning("steps run uncompiled, with the same codes, as the compiler failed: %s", _cause(error))
                batch.model.compile_steps, step = False, batch.step
                step(kv_len)
            if len(self.graphs) >= _MOST:
                self.graphs.clear()
            self.graphs[key] = self._capture(step, kv_len)

    def _step_of(self, batch: Stepped) -> Callable[[int], None]:
        if not batch.model.compile_steps:
            return batch.step
        torch._dynamo.config.recompile_limit = max(_MOST, torch._dynamo.config.recompile_limit)
        return compiled(batch.step)

    def _capture(self, step: Callable[[int], None], kv_len: int) -> Any:
        """A graph of the step; nothing of it runs now."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            # "thread_local": what other threads do with the device meanwhile is none of the capture's business
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step(kv_len)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # a broken capture cannot end well; the cause is what counts
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        self._pool = graph.pool()
        return graph


def compiled(step: Callable[[int], None]) -> Callable[[int], None]:
    """`step` with its kernels fused by inductor, rounding to bfloat16 where the eager step does."""
    options: dict[str, Any] = {"emulate_precision_casts": True}
    made: Callable[[int], None] = torch.compile(step, dynamic=False, fullgraph=True, options=options)
    return made


def _cause(error: Exception) -> str:
    """What a compiler that failed says in its first line; torch wraps it in an error of its own."""
    inner = getattr(error, "inner_exception", error)
    return f"{type(inner).__name__}: {(str(inner).splitlines() or [''])[0]}"


def kv_bucket(kv_len: int, max_seq_len: int) -> int:
    """`kv_len` rounded up to `KV_MULTIPLE`, at most `max_seq_len`."""
    return min(-(-kv_len // KV_MULTIPLE) * KV_MULTIPLE, max_seq_len)
