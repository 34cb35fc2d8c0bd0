"""What the tasks have in common: an optimizer with its schedule, and checkpoints without the frozen parts."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from hftrainer.config import ConfigError
from hftrainer.registry import Part
from hftrainer.training.optimizers import ParameterGroup, make_optimizer


@dataclass(frozen=True)
class BatchShape:
    """The largest batch of a device: `rows` of `frames`, or of `codes` (END among them) after `text` positions."""

    rows: int
    frames: int = 0
    codes: int = 0
    text: int = 0


class Task(L.LightningModule):
    """A LightningModule over a bundle. It wires; the arithmetic is in the bundle, the networks and `losses`.

    `supports_bf16_params`: the task can train parameters in 16 bits. `supports_sharding`: it says (`configure_model`,
    `inference_bundle`) how its parameters are sharded over processes and gathered again.
    """

    supports_bf16_params = False
    supports_sharding = False
    validates_in_shards = False  # its validation puts the results of several processes together
    logged: ClassVar[tuple[str, ...] | None] = None  # what validation logs; None: not known before it is run

    def __init__(self, bundle: nn.Module, optimizer: Part):
        super().__init__()
        self.bundle = bundle
        self.optimizer_part = optimizer
        self.strict_loading = False  # checkpoints leave the frozen parts out
        self._draws_seed = torch.initial_seed()  # the run's, set before anything is built
        self._part = 0  # which batch of the step this is
        self._sums: dict[str, Tensor] = {}
        self.repeated_batch = False  # this validation batch counts nothing; see `hftrainer.data.loader`
        self._groups: list[dict[str, Any]] = []

    def trained(self) -> list[nn.Module]:
        """The parts of the bundle that this task trains; the others are frozen and stay in eval mode."""
        raise NotImplementedError

    def frozen_inside(self) -> list[nn.Module]:
        """What lies inside the trained parts and is frozen all the same; nothing by default."""
        return []

    def lr_scale(self, part: nn.Module) -> float:
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
        """Train mode for the trained parts only."""
        super().train(False)
        self.training = mode
        for part in self.trained():
            part.train(mode)
        for part in self.frozen_inside():
            part.eval()
        return self

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Let dropout and the like depend only on seed, step and process: a resumed run draws what it would have."""
        self._part = index % self.trainer.accumulate_grad_batches
        numbers = [self._draws_seed, self.trainer.global_step, self._part, self.trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

    def log_step(self, values: Mapping[str, Tensor], shown: Collection[str] = ()) -> None:
        """Log ``train/...`` values of a training batch: their means over the batches of the step, on all processes.

        Those in `shown` are on the progress bar, too.
        """
        parts = self.trainer.accumulate_grad_batches
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = value if self._part == 0 else self._sums[name] + value
            mean = self._sums[name] / (self._part + 1)
            steps = self.trainer.global_step + 1
            if self._part == parts - 1 and steps % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
                mean = self.trainer.strategy.reduce(mean, reduce_op="mean")
            self.log(f"train/{name}", mean, prog_bar=name in shown)

    def log_validation(self, values: Mapping[str, Any], count: int) -> None:
        """Log ``val/...`` values of a validation batch; they are averaged over all batches, weighed by `count`."""
        # a float, because Lightning averages the sum of counts over processes and would round it to a whole number
        weight: Any = 0.0 if self.repeated_batch else float(count)
        self.log_dict(
            {f"val/{name}": value for name, value in values.items()}, batch_size=weight,
            sync_dist=self.validates_in_shards,
        )  # fmt: skip

    def on_validation_batch_start(self, batch: Any, index: int, loader: int = 0) -> None:
        """Is it this process's own?"""
        shard = getattr(getattr(self.trainer, "datamodule", None), "validation", None)
        self.repeated_batch = shard is not None and shard.repeated(index)

    def work_of(self, batch: Any) -> tuple[int, Tensor | int]:
        """How many motions a batch has, and how many tokens (frames, where it has no codes)."""
        lengths = getattr(batch, "lengths", None)
        return (len(batch[0]), 0) if lengths is None else (len(lengths), lengths.sum())

    def flops_per_token(self) -> float | None:
        """Floating-point operations that training takes for a token; None where nobody has counted them."""
        return None

    def configure_optimizers(self) -> dict[str, Any]:
        """The configured optimizer over the trained parts."""
        names = {id(p): name for name, p in self.named_parameters()}
        groups: dict[float, dict[str, nn.Parameter]] = {}
        for part in self.trained():
            groups.setdefault(self.lr_scale(part), {}).update({names[id(p)]: p for p in part.parameters()})
        by_rate = [ParameterGroup(parameters, scale) for scale, parameters in groups.items()]
        optimizer, schedule = make_optimizer(self.optimizer_part, by_rate, int(self.trainer.max_steps))
        self._groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """A checkpoint brings the learning rates and other numbers of the run that wrote it; the configured ones count.

        They differ only where `resume.allow` has let them.
        """
        (optimizer,), schedules = self.trainer.optimizers, self.lr_schedulers()
        schedule = schedules[0] if isinstance(schedules, list) else schedules
        for i, (group, wanted) in enumerate(zip(optimizer.param_groups, self._groups, strict=True)):
            changed = {k: v for k, v in wanted.items() if k not in ("lr", "initial_lr") and group.get(k) != v}
            group.update(changed)
            if schedule is None or group.get("initial_lr") == wanted["initial_lr"]:
                continue
            group["initial_lr"] = schedule.base_lrs[i] = wanted["initial_lr"]
        if schedule is not None and hasattr(schedule, "lr_lambdas"):
            for group, base, at in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
                group["lr"] = base * at(schedule.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resume checkpoint holds what trains; the frozen parts come from where they came from."""
        trained = {id(module) for part in self.trained() for module in part.modules()}
        frozen = {id(module) for part in self.frozen_inside() for module in part.modules()}
        kept = tuple(f"{name}." for name, module in self.named_modules() if id(module) in trained)
        left = tuple(f"{name}." for name, module in self.named_modules() if id(module) in frozen)
        state = checkpoint["state_dict"]
        mean, std = getattr(self.bundle, "mean", None), getattr(self.bundle, "std", None)
        if isinstance(mean, torch.Tensor) and isinstance(std, torch.Tensor):  # buffers that no state dict holds
            checkpoint["statistics"] = {"mean": mean.cpu(), "std": std.cpu()}
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k.startswith(kept) and not k.startswith(left)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint without something that trains, which non-strict loading would pass over."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state = checkpoint.get("state_dict")
        if state is None:
            return  # DeepSpeed and fsdp2 have read, and checked, their shards
        missing = sorted(trained - state.keys())
        if missing:
            raise ValueError(f"the checkpoint has no {missing[0]} and {len(missing) - 1} more tensors that train")
        for name, p in self.named_parameters():
            if name in trained and p.shape != state[name].shape:
                raise ValueError(
                    f"{name} is {tuple(state[name].shape)} in the checkpoint and {tuple(p.shape)} in this model: its "
                    "sizes (section model) cannot be changed within a run"
                )

    # --- what `trainer` asks for: see strategies.py ------------------------------------------------------------------

    def to_half(self, dtype: torch.dtype) -> None:
        """Convert the parameters that train."""
        for part in self.trained():
            part.to(dtype)

    def checkpoint_activations(self) -> None:
        """Keep fewer activations than the backward pass needs, and compute the others again."""
        raise ConfigError(
            f"trainer.activation_checkpointing: {type(self).__name__} has too few activations to benefit from it"
        )

    def compile_parts(self) -> None:
        """Compile the forward passes of what trains, in place: names of tensors stay as they are."""
        for part in self.trained():
            compile_forward(part)

    @contextlib.contextmanager
    def inference_bundle(self, *, everywhere: bool = True) -> Iterator[Any]:
        """The bundle as it would be used and saved: complete and plain. All processes have to enter.

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
