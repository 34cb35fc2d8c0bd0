"""Parameters that are sharded over several processes: the local shard, and the full tensor gathered again.

Under ddp, single and ZeRO 1 and 2 a parameter is its own shard. Under fsdp2 it is a DTensor; under ZeRO 3 DeepSpeed
keeps the shard beside an empty parameter. Everything that gathers has to be called by all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def reshard(module: nn.Module) -> None:
    """Release parameters that were gathered for a forward pass, so that only shards remain."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def is_zero3(p: Tensor) -> bool:
    """Whether DeepSpeed shards this parameter."""
    return hasattr(p, "ds_tensor")


def is_sharded(module: nn.Module) -> bool:
    """Whether no process has all of a module's parameters."""
    return any(isinstance(p, DTensor) or is_zero3(p) for p in module.parameters())


def local_shard(p: Tensor) -> Tensor:
    """This process's shard of a parameter, itself and not a copy; changing it changes the parameter."""
    if is_zero3(p):
        raise NotImplementedError("a ZeRO 3 shard cannot be changed from outside")
    whole_or_share = p.detach()
    return whole_or_share.to_local() if isinstance(whole_or_share, DTensor) else whole_or_share


def shard_like(whole: Tensor, p: Tensor) -> Tensor:
    """The part of `whole` that `local_shard(p)` holds."""
    if not isinstance(p, DTensor):
        return whole
    mesh, placements = p.device_mesh, p.placements
    # every process has the full tensor, so nothing has to be sent
    start = torch.distributed.tensor.distribute_tensor(whole.to(p.device), mesh, placements, src_data_rank=None)
    return start.to_local()


def gather_full(share: Tensor, p: Tensor) -> Tensor:
    """The full tensor of which each process has the shard `share`, laid out as the parameter `p` is; a collective."""
    if not isinstance(p, DTensor):
        return share
    return DTensor.from_local(
        share, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    ).full_tensor()


def full_state(module: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """All parameters and persistent buffers in full, by name, copied if they were sharded; a collective.

    One tensor is gathered at a time; with `keep` False nothing is kept (a process that only takes part).
    """
    reshard(module)
    state: dict[str, Tensor] = {}
    buffers = {
        name: value for name, value in module.state_dict(keep_vars=True).items() if not isinstance(value, nn.Parameter)
    }
    for name, p in module.named_parameters(remove_duplicate=False):
        if is_zero3(p):
            import deepspeed

            with deepspeed.zero.GatheredParameters([p]):
                value = p.detach().clone() if keep else None
        else:
            detached = p.detach()
            value = detached.full_tensor() if isinstance(detached, DTensor) else detached
        if keep and value is not None:
            state[name] = value
    return {**state, **buffers} if keep else {}
