"""The one LightningDataModule: any registered dataset, in the order of its plan, resumable at any batch."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from hftrainer.data.guarded import GuardedDataset
from hftrainer.data.order import PlanSampler


class PlannedData(L.LightningDataModule):
    """Feeds `source` (a dataset of the DATASETS registry) to the trainer.

    Training never runs out: Lightning sees one endless epoch and stops at ``trainer.max_steps``. The number of
    batches used so far is part of every checkpoint.
    """

    def __init__(self, source: Any, *, seed: int, num_workers: int = 0, max_bad_samples: int = 0):
        super().__init__()
        self.source, self.seed, self.num_workers = source, seed, num_workers
        self.max_bad_samples = max_bad_samples
        self._start = 0
        self._per_epoch = 1

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the first unused one on."""
        dataset = self.source.train()
        plan = self.source.plan(dataset, self.seed)
        self._per_epoch = plan.batches_per_epoch
        sampler = PlanSampler(
            plan,
            start=self._start,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        return DataLoader(
            GuardedDataset(dataset, self.max_bad_samples),
            batch_sampler=sampler,
            collate_fn=self.source.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Ready-made validation batches."""
        batches = self.source.val()
        return DataLoader(batches, batch_size=None) if batches else []

    @property
    def epochs(self) -> float:
        """How many times the training data has been gone through."""
        trainer = self.trainer
        batches = trainer.global_step * trainer.accumulate_grad_batches * trainer.world_size
        return float(batches / self._per_epoch)

    def state_dict(self) -> dict[str, Any]:
        """How many batches each process has used, and how many processes there are."""
        used = self.trainer.global_step * self.trainer.accumulate_grad_batches
        return {"batches": used, "processes": self.trainer.world_size, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were used, also on another number of processes."""
        if state["seed"] != self.seed:
            raise ValueError(f"the checkpoint's data order has seed {state['seed']}, this run's has {self.seed}")
        world = self.trainer.world_size
        used = state["batches"] * state.get("processes", world)
        self._start, rest = divmod(used, world)
        if rest:
            raise ValueError(
                f"the checkpoint has used {used} batches on {state['processes']} processes, which {world} processes "
                f"cannot share; resume on a number that divides {used}"
            )
