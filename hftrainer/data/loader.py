"""The one LightningDataModule: any registered dataset, in the order of its plan, resumable at any sample."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from hftrainer.data.guarded import GuardedDataset
from hftrainer.data.order import BatchPlan, PlanSampler, Position


class TimedLoader(DataLoader[Any]):
    """A data loader that counts the seconds for which training waited for it."""

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


class ValidationShard(Sequence[Any]):
    """The validation batches of one of `world` processes: every `world`-th one.

    All processes have equally many, because some strategies validate in step: where batches are missing at the end, the
    last one of a process is `repeated`, and counts nothing.
    """

    def __init__(self, batches: Sequence[Any], chosen: Sequence[int], rank: int, world: int):
        self.batches = batches
        self.numbers = list(chosen[rank::world])
        self.own = len(self.numbers)
        missing = -(-len(chosen) // world) - self.own
        self.numbers += [(self.numbers or list(chosen))[-1]] * missing

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        return self.batches[self.numbers[index]]

    def repeated(self, index: int) -> bool:
        """Whether another process, or this one, has validated this batch already."""
        return index >= self.own


class PlannedData(L.LightningDataModule):
    """Feeds `source` (a dataset of the DATASETS registry) to the trainer.

    Training never runs out: Lightning sees one endless epoch and stops at ``trainer.max_steps``. The position in the
    data is part of every checkpoint. `new_order`: a seed that differs from the checkpoint's is taken up, not refused.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        num_workers: int = 0,
        prefetch: int = 2,
        max_bad_samples: int = 0,
        limit_val_batches: float | None = None,
        new_order: bool = False,
    ):
        super().__init__()
        self.source, self.seed, self.num_workers, self.prefetch = source, seed, num_workers, prefetch
        self.max_bad_samples, self.limit_val_batches, self.new_order = max_bad_samples, limit_val_batches, new_order
        self.validation: ValidationShard | None = None
        self.loader: TimedLoader | None = None
        self._start_step = 0

    @cached_property
    def dataset(self) -> Any:
        """The training items."""
        return self.source.train()

    @cached_property
    def plan(self) -> BatchPlan:
        """Their order."""
        plan: BatchPlan = self.source.plan(self.dataset, self.seed)
        return plan

    @cached_property
    def val_batches(self) -> Sequence[Any]:
        """All validation batches."""
        batches: Sequence[Any] = self.source.val()
        return batches

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the first unused one on."""
        workers = self.num_workers
        self.loader = TimedLoader(
            GuardedDataset(self.dataset, self.max_bad_samples),
            batch_sampler=PlanSampler(self.plan, rank=self.trainer.global_rank, world=self.trainer.world_size),
            collate_fn=self.source.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=self.prefetch if workers else None,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )
        return self.loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Ready-made validation batches: this process's, where the task can put results of several together."""
        if not self.val_batches:
            return []
        chosen = limited(len(self.val_batches), self.limit_val_batches)
        apart = getattr(self.trainer.lightning_module, "validates_in_shards", False)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if apart else (0, 1)
        self.validation = ValidationShard(self.val_batches, chosen, rank, world)
        pinned = self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(self.validation, batch_size=None, pin_memory=pinned)  # type: ignore[arg-type]

    @property
    def taken(self) -> int:
        """Batches that all processes together have used since the start of the run."""
        trainer = self.trainer
        steps = trainer.global_step - self._start_step
        return int(self.plan.start.batches + steps * trainer.accumulate_grad_batches * trainer.world_size)

    @property
    def position(self) -> Position:
        """Where the run is in its data."""
        return self.plan.position(self.taken)

    @property
    def epochs(self) -> float:
        """How many times the training data has been gone through."""
        return self.plan.epochs(self.taken)

    def state_dict(self) -> dict[str, Any]:
        """The position, in samples, and what it was reached with."""
        return {"position": self.position.plain(), "step": self.trainer.global_step, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the samples that were used, with any batch size and number of processes."""
        if state["seed"] != self.seed and not self.new_order:
            raise ValueError(f"the checkpoint's data order has seed {state['seed']}, this run's has {self.seed}")
        if "position" not in state:
            raise ValueError(
                "the checkpoint is from an earlier release, which counted batches instead of "
                "samples; finish the run with "
                "that release, or start a new one from its weights"
            )
        self._start_step = state["step"]
        self.plan.start_at(Position.from_plain(state["position"]))


def limited(count: int, limit: float | None) -> list[int]:
    """Numbers of the validation batches that are used: all, or `limit` of them (below 1: a share), evenly apart.

    Batches are often sorted by length, so that the first ones would be the shortest.
    """
    if limit is None:
        return list(range(count))
    wanted = max(1, round(limit * count)) if limit < 1 else int(limit)
    chosen: list[int] = np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)).tolist()
    return chosen
