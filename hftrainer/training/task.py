"""What the tasks have in common: an optimizer with its schedule, and checkpoints without the frozen parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from hftrainer.config import ConfigError
from hftrainer.training.schedules import OptimizerConfig, make_optimizer


class Task(L.LightningModule):
    """A LightningModule over a bundle. It wires; the arithmetic is in the bundle, the networks and `losses`.

    `in_half`: the task can train parameters in 16 bits. `in_shares`: it says (`configure_model`, `deployed`) how its
    parameters are shared out over processes and put together again.
    """

    in_half = False
    in_shares = False

    def __init__(self, bundle: nn.Module, optimizer: OptimizerConfig):
        super().__init__()
        self.bundle = bundle
        self.optimizer_config = optimizer
        self.strict_loading = False  # checkpoints leave the frozen parts out
        self._draws_seed = torch.initial_seed()  # the run's, set before anything is built

    def trained(self) -> list[nn.Module]:
        """The parts of the bundle that this task trains; the others are frozen and stay in eval mode."""
        raise NotImplementedError

    def frozen_inside(self) -> list[nn.Module]:
        """What lies inside the trained parts and is frozen all the same; nothing by default."""
        return []

    def rate_of(self, part: nn.Module) -> float:
        """The learning rate of a trained part, in units of the configured one."""
        return 1.0

    def freeze_the_rest(self) -> None:
        """Call at the end of ``__init__``."""
        self.bundle.requires_grad_(False)
        for part in self.trained():
            part.requires_grad_(True)
        for part in self.frozen_inside():
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Task:
        """Train mode for the trained parts alone."""
        super().train(False)
        self.training = mode
        for part in self.trained():
            part.train(mode)
        for part in self.frozen_inside():
            part.eval()
        return self

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Let dropout and the like depend on seed, step and process alone: a resumed run draws what it would have."""
        part = index % self.trainer.accumulate_grad_batches
        numbers = [self._draws_seed, self.trainer.global_step, part, self.trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW over the trained parts."""
        groups: dict[float, list[nn.Parameter]] = {}
        for part in self.trained():
            groups.setdefault(self.rate_of(part), []).extend(part.parameters())
        optimizer, schedule = make_optimizer(groups, self.optimizer_config, int(self.trainer.max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resume checkpoint holds what trains; the frozen parts come from where they came from."""
        trained = {id(module) for part in self.trained() for module in part.modules()}
        frozen = {id(module) for part in self.frozen_inside() for module in part.modules()}
        kept = tuple(f"{name}." for name, module in self.named_modules() if id(module) in trained)
        left = tuple(f"{name}." for name, module in self.named_modules() if id(module) in frozen)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k.startswith(kept) and not k.startswith(left)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that lacks something that trains, which non-strict loading would pass over."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state = checkpoint.get("state_dict")
        if state is None:
            return  # DeepSpeed and fsdp2 have read, and checked, their shares
        missing = sorted(trained - state.keys())
        if missing:
            raise ValueError(f"the checkpoint lacks {len(missing)} trained tensors, e.g. {missing[0]}")

    # --- what `trainer` asks for: see strategies.py ------------------------------------------------------------------

    def to_half(self, dtype: torch.dtype) -> None:
        """Convert the parameters that train."""
        for part in self.trained():
            part.to(dtype)

    def checkpoint_activations(self) -> None:
        """Keep fewer activations than the backward pass needs, and compute the others again."""
        raise ConfigError(
            f"trainer.activation_checkpointing: {type(self).__name__} has too few activations to gain by it"
        )

    def compile_parts(self) -> None:
        """Compile the forward passes of what trains, in place: names of tensors stay as they are."""
        for part in self.trained():
            compile_forward(part)

    @contextlib.contextmanager
    def deployed(self, *, everywhere: bool = True) -> Iterator[Any]:
        """The bundle as it would be used and saved: whole and plain. All processes have to enter.

        With `everywhere` False only the first process gets it, in the CPU's memory, and the others None.
        """
        yield self.bundle if everywhere or self.global_rank == 0 else None

    def save_beside(self, folder: Path) -> None:
        """What belongs beside an artifact that was written to `folder`; nothing by default."""


def compile_forward(module: nn.Module) -> None:
    """`torch.compile` of a module's forward, for inputs of any length.

    The bound method is replaced, not the module: hooks of ddp, DeepSpeed and fsdp2 run outside of what is compiled, and
    no name gets a prefix.
    """
    module.forward = torch.compile(module.forward, dynamic=True)  # type: ignore[method-assign]
