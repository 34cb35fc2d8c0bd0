"""How much memory a step takes beside weights and optimizer, found by taking one on tensors without content.

Every operation of a forward and a backward pass is seen (a dispatch mode of torch), and the storages that are alive are
added up. Nothing is computed: shapes and types are propagated, so that a model of any size takes seconds and no memory.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

log = logging.getLogger(__name__)
aten = torch.ops.aten


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step: `kept` from the forward for the backward pass; the most that was alive at once, gradients so far
    among it (`peak`) and without any (`peak_without_gradients`)."""

    kept: int
    peak: int
    peak_without_gradients: int


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that were made inside and are still there: `live` now, `peak` at most.

    `before`: tensors that were there, which views made inside share their storage with.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._before = {tensor.untyped_storage()._cdata for tensor in before}
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count what it made."""
        out = _every_frame(func, args) if func is aten.index.Tensor else None
        out = func(*args, **(kwargs or {})) if out is None else out
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._before or key in self._known or not size:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone(_: Any) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, gone)


def step_memory(task: Any, shape: Any, *, autocast: bool) -> StepMemory | None:
    """The memory of one step of `task`, whose parameters are on the meta device; None where it cannot be outlined.

    `task.outline_step(shape)` gives the loss of a batch. `autocast`: what is multiplied is cast to bfloat16.
    """
    if not hasattr(task, "outline_step"):
        return None
    with torch.device("cpu"), FakeTensorMode(allow_non_fake_inputs=True), _fake(task):
        found = [_pass(task, shape, autocast, keep=keep) for keep in (True, False)]
    return StepMemory(found[0][0], found[0][1], found[1][1])


def _pass(task: Any, shape: Any, autocast: bool, *, keep: bool) -> tuple[int, int]:
    """Bytes after the forward pass, and at most; gradients are freed at once unless they are to be kept."""
    handles = []
    if not keep:
        for p in task.parameters():
            if p.requires_grad:
                handles.append(p.register_post_accumulate_grad_hook(_drop_gradient))
    with LiveBytes([*task.parameters(), *task.buffers()]) as bytes_:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = task.outline_step(shape)
        kept = bytes_.live
        loss.backward()
        del loss
    for handle in handles:
        handle.remove()
    for p in task.parameters():
        p.grad = None
    return kept, bytes_.peak


def _drop_gradient(p: Tensor) -> None:
    p.grad = None


def _every_frame(func: Any, args: Any) -> Tensor | None:
    """``x[mask]`` where the mask is True everywhere, which nobody can know of a tensor without content."""
    source, indices = args[0], [index for index in args[1] if index is not None]
    if len(indices) != 1 or indices[0].dtype != torch.bool:
        return None
    mask = indices[0]
    return source.reshape(mask.numel(), *source.shape[mask.ndim :]).clone()  # type: ignore[no-any-return]


@contextlib.contextmanager
def _fake(task: nn.Module) -> Iterator[None]:
    """Within the block parameters and buffers are fake tensors of a CPU; types as on the meta device."""
    places = [
        (module, kind, name, tensor)
        for module in task.modules()
        for kind in ("_parameters", "_buffers")
        for name, tensor in getattr(module, kind).items()
        if tensor is not None
    ]
    made: dict[int, Tensor] = {}
    for module, kind, name, tensor in places:
        if id(tensor) not in made:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if kind == "_parameters" else fake
        getattr(module, kind)[name] = made[id(tensor)]
    try:
        yield
    finally:
        for module, kind, name, tensor in places:
            getattr(module, kind)[name] = tensor
