"""Building a network of which each process keeps a shard: no process ever holds all of its parameters.

Within `keep_shards`, a module that is built under `sharded` gives its parameters up as soon as they have their first
values: a process keeps its rows (along the first axis, as torch's ``fully_shard`` cuts them) and puts a parameter on
the meta device in their place. Random numbers are drawn as they always are, so that the values are those of a model
that is built on one process. Of weights that are mapped from a file, `keep_rows` copies only a process's rows. `fill`
puts the rows into parameters that fully_shard has sharded; hftrainer/training/zero.py makes DeepSpeed's of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

_KEPT: ContextVar[tuple[int, int] | None] = ContextVar("kept", default=None)
_ROWS = "_kept_rows"


@contextlib.contextmanager
def keep_shards(rank: int, world: int) -> Iterator[None]:
    """Within the block, what is built under `sharded` keeps the shard of process `rank` of `world`."""
    token = _KEPT.set((rank, world))
    try:
        yield
    finally:
        _KEPT.reset(token)


@contextlib.contextmanager
def sharded() -> Iterator[None]:
    """Within the block parameters are given up as they are made, where `keep_shards` asks for it."""
    kept = _KEPT.get()
    if kept is None:
        yield
        return

    def built(parent: nn.Module, name: str, module: nn.Module | None) -> None:
        if module is not None:
            give_up(module, *kept)

    handle = register_module_module_registration_hook(built)
    try:
        yield
    finally:
        handle.remove()


def keep_rows(module: nn.Module) -> None:
    """Give the parameters of a module with mapped weights up, where `keep_shards` asks for it."""
    kept = _KEPT.get()
    if kept is not None:
        give_up(module, *kept)


def give_up(module: nn.Module, rank: int, world: int) -> None:
    """Keep one process's rows of every parameter of a module, and put the parameters on the meta device."""
    replaced: dict[nn.Parameter, nn.Parameter] = {}  # tied parameters stay one
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            if not p.is_meta:
                if p not in replaced:
                    replaced[p] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
                    setattr(replaced[p], _ROWS, rows_of(p.detach(), rank, world).clone())
                part._parameters[name] = replaced[p]


def rows_of(tensor: Tensor, rank: int, world: int) -> Tensor:
    """A process's rows; none where there are fewer pieces than processes."""
    pieces = tensor.chunk(world)
    return pieces[rank] if rank < len(pieces) else tensor[:0]


def is_given_up(module: nn.Module) -> bool:
    """Whether a module waits for `fill`."""
    return any(hasattr(p, _ROWS) for p in module.parameters())


def move(module: nn.Module, device: str | torch.device) -> None:
    """``module.to(device)``, but children that wait for `fill` stay where they are."""
    if not is_given_up(module):
        module.to(device)
        return
    for child in module.children():
        if not is_given_up(child):
            child.to(device)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else buffer.to(device)


def take_rows(module: nn.Module) -> dict[str, Tensor]:
    """The rows that were kept, by the names of their parameters; call before the module is sharded."""
    rows = {}
    for name, p in module.named_parameters():
        if hasattr(p, _ROWS):
            rows[name] = getattr(p, _ROWS)
            delattr(p, _ROWS)
    return rows


@torch.no_grad()
def fill(module: nn.Module, rows: dict[str, Tensor], device: torch.device) -> None:
    """Put the kept rows into the shards of a module that is on the meta device; `rows` is emptied on the way."""
    module.to_empty(device=device)
    for name, p in module.named_parameters():
        local = p.to_local() if hasattr(p, "to_local") else p  # a DTensor, whose module takes seconds to import
        local.copy_(rows.pop(name))
