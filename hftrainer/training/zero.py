"""DeepSpeed under Lightning: the parts that train alone, on GPUs and on CPUs (gloo), where a setup can be tried out."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import nn


def make_zero(stage: int, *, offload: str, kind: str) -> ZeRO:
    """A strategy of ZeRO stage 1, 2 or 3 on devices of a `kind` ("cpu", "cuda")."""
    if kind == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is first imported
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
    # torch's fused AdamW steps on the CPU as DeepSpeed's own does, without a compiler on the machine
    strategy.config["zero_force_ds_cpu_optimizer"] = False
    return strategy


class ZeRO(DeepSpeedStrategy):
    """Lightning's strategy, with frozen parts kept out of the engine, and without its insistence on CUDA.

    The engine converts all that it is given to bfloat16, and writes it into checkpoints; a tokenizer must not be
    rounded, and a text encoder need not be saved. So the engine is made while the frozen parts are elsewhere.
    """

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

    def _setup_model_and_optimizer(self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        import deepspeed

        index = self.root_device.index
        with without_frozen_parts(model):
            engine, wrapped, _, _ = deepspeed.initialize(
                args=argparse.Namespace(device_rank=self.local_rank if index is None else index),
                config=self.config,
                model=model,
                model_parameters=[p for p in model.parameters() if p.requires_grad],
                optimizer=optimizer,
                lr_scheduler=lr_scheduler,
                dist_init_required=False,
            )
        for part in _frozen(model):
            part.to(self.root_device)
        return engine, wrapped


@contextlib.contextmanager
def without_frozen_parts(task: Any) -> Iterator[None]:
    """Within the block, the task's bundle has only the parts in which something trains, and no buffers."""
    bundle = task.bundle
    names = [name for name, part in bundle.named_children() if not _trains(part)]
    parts = {name: bundle._modules.pop(name) for name in names}
    buffers = dict(bundle._buffers)
    bundle._buffers.clear()
    try:
        yield
    finally:
        bundle._modules.update(parts)
        bundle._buffers.update({name: value.to(_device_of(task)) for name, value in buffers.items()})


def _frozen(task: Any) -> list[nn.Module]:
    return [part for part in task.bundle.children() if not _trains(part)]


def _trains(part: nn.Module) -> bool:
    return any(p.requires_grad for p in part.parameters())


def _device_of(task: Any) -> Any:
    return next(p.device for p in task.parameters() if p.requires_grad)
