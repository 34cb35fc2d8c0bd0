"""DeepSpeed under Lightning: only the parts that train, on GPUs and on CPUs (gloo), where a setup can be tried out."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor, nn

from hftrainer.models.shard_building import is_given_up, take_rows


def make_zero(stage: int, *, offload: str, kind: str) -> ZeRO:
    """A strategy of ZeRO stage 1, 2 or 3 on devices of a `kind` ("cpu", "cuda")."""
    if kind == "cpu":
        import deepspeed.ops

        # a compiled helper for messages through shared memory, half a minute of C++ at every first start
        getattr(deepspeed.ops, "__compatible_ops__", {})["deepspeed_shm_comm"] = False
    strategy = ZeRO(
        stage=stage,
        offload_optimizer=offload != "none",
        offload_parameters=offload == "all",
        pin_memory=offload != "none" and kind == "cuda",
        logging_batch_size_per_gpu=1,  # for its own throughput figures, which are not used
        exclude_frozen_parameters=True,
    )
    # torch's fused AdamW steps on the CPU too; DeepSpeed's own would need a compiler on the machine
    strategy.config["zero_force_ds_cpu_optimizer"] = False
    return strategy


class ZeRO(DeepSpeedStrategy):
    """Lightning's strategy, with frozen parts kept out of the engine, and without its insistence on CUDA.

    The engine converts all that it is given to bfloat16, shards it (stage 3) and writes it into checkpoints; a
    tokenizer must not be rounded, and a text encoder need not be saved.
    """

    _aside: dict[str, Any] = {}  # noqa: RUF012 -- replaced, never changed

    def setup_environment(self) -> None:
        """Without the check for CUDA."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Without the check of CUDA indices where there are none."""
        if self.root_device.type == "cuda":
            super().setup_distributed()
            return
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def setup(self, trainer: Any) -> None:
        """Make the engine of what trains; what is frozen goes to the device by itself."""
        self._aside = put_aside(self.lightning_module, self.root_device)
        if is_given_up(self.lightning_module):
            self._init_config_if_needed()
            shard(self.lightning_module, self.config, self.root_device)
        super().setup(trainer)

    def teardown(self) -> None:
        """Leave the task as it came."""
        put_back(self.lightning_module, self._aside)
        self._aside = {}
        super().teardown()

    def _setup_model_and_optimizer(self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        import deepspeed

        index = self.root_device.index
        engine, wrapped, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank if index is None else index),
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, wrapped


@torch.no_grad()
def shard(module: nn.Module, config: dict[str, Any], device: torch.device) -> None:
    """Make DeepSpeed's sharded parameters of the rows that `keep_shards` kept; all processes have to call it.

    One parameter at a time is complete on `device`. The engine leaves what is sharded already as it is, so that
    bfloat16 has to be cast to here.
    """
    import deepspeed

    dtype = torch.bfloat16 if config.get("bf16", {}).get("enabled") else None
    names: dict[nn.Parameter, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    first: Any = None
    rows = take_rows(module)
    for placeholder, places in names.items():
        if places[0] not in rows:
            continue
        complete = join_rows(rows.pop(places[0]).to(device, dtype), placeholder.shape)
        p = nn.Parameter(complete, placeholder.requires_grad)
        del complete
        for place in places:
            parent, _, name = place.rpartition(".")
            module.get_submodule(parent)._parameters[name] = p
        if first is None:
            first = p
            deepspeed.zero.Init(module=nn.ParameterList([p]), config_dict_or_path=config)
        else:
            first.convert_to_zero_parameters(param_list=[p])


def join_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of which each process has `rows_of`; a collective."""
    complete = torch.empty(shape, dtype=rows.dtype, device=rows.device)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for source, piece in enumerate(complete.chunk(world)):
        if source == rank:
            piece.copy_(rows)
        torch.distributed.broadcast(piece, source)
    return complete


def put_aside(task: Any, device: torch.device) -> dict[str, Any]:
    """Take the parts of a task's bundle in which nothing trains, and its buffers, out of what torch counts as modules.

    They stay attributes, so that the bundle works as before.
    """
    bundle = task.bundle
    parts = {
        name: part for name, part in bundle.named_children() if not any(p.requires_grad for p in part.parameters())
    }
    aside = {**parts, **bundle._buffers}
    for name, value in aside.items():
        (bundle._modules if name in parts else bundle._buffers).pop(name)
        bundle.__dict__[name] = value.to(device)
    return aside


def put_back(task: Any, aside: dict[str, Any]) -> None:
    """The inverse of `put_aside`."""
    for name, value in aside.items():
        registered = task.bundle._modules if isinstance(value, nn.Module) else task.bundle._buffers
        registered[name] = task.bundle.__dict__.pop(name)
