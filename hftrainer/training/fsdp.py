"""torch's FSDP2 (`fully_shard`) under Lightning: one shard of every block on each process, sharded checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint import state_dict_loader as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from hftrainer.models.shard_building import fill, take_rows

META = "meta.pt"  # what Lightning's strategy calls all that is neither weights nor optimizer


class FSDP2(ModelParallelStrategy):
    """Data-parallel shards over all `processes`; no tensor parallelism.

    Differs from Lightning's in loading: its own expects the frozen parts in a checkpoint, which ours omit.
    """

    def __init__(self, *, processes: int, in_bfloat16: bool = False):
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1)
        self.policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if in_bfloat16 else None,
            reduce_dtype=torch.float32 if in_bfloat16 else None,
            # else what blocks are given is rounded too, angles of positions among it; activations are bfloat16 already
            cast_forward_inputs=False,
        )

    def shard(self, units: list[nn.Module], root: nn.Module, methods: list[str]) -> None:
        """Share out `units` one by one, and then what of `root` is left; `methods` of `root` are entered directly."""
        mesh = self.device_mesh["data_parallel"]
        rows = take_rows(root)
        for unit in units:
            fully_shard(unit, mesh=mesh, mp_policy=self.policy)
        fully_shard(root, mesh=mesh, mp_policy=self.policy)
        for method in methods:
            register_fsdp_forward_method(root, method)
        if rows:
            fill(root, rows, self.root_device)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Weights and optimizer of what trains, on any number of processes; the rest of the checkpoint is returned."""
        path = Path(self.broadcast(checkpoint_path))
        model = self.model
        assert model is not None
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        weights = {name: value for name, value in get_model_state_dict(model).items() if name in trained}
        dcp.load({"state_dict": weights}, checkpoint_id=path)
        model.load_state_dict(weights, strict=False)
        for i, optimizer in enumerate(self.optimizers):
            state = {f"optimizer_{i}": get_optimizer_state_dict(model, optimizer)}
            dcp.load(state, checkpoint_id=path)
            options = StateDictOptions(cpu_offload=True)
            set_optimizer_state_dict(model, optimizer, optim_state_dict=state[f"optimizer_{i}"], options=options)
        rest: dict[str, Any] = torch.load(path / META, map_location="cpu", weights_only=True)
        return rest
