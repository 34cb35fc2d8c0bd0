"""When a run saves what it needs to be continued: in steps, at the end, when it is asked to stop, and when it fails."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from hftrainer.training.checkpoint_io import AtomicCheckpointIO, clear_leftovers, point_at
from hftrainer.training.faults import CheckpointFailed, Stopped, reason

log = logging.getLogger(__name__)
LAST = "last.ckpt"


class Checkpoints(Checkpoint):  # type: ignore[misc]
    """``step-00001000.ckpt`` every `every` steps, the newest `keep` of them, and ``last.ckpt``, which is the newest.

    A save that fails (a full disk) is reported and tried again next time, as long as there is an older checkpoint;
    without one, and at the end of training, it is an error. An exception in training saves first, on one process: the
    state is that of the last complete step. (Of several processes, the others would wait for the one that failed.)
    """

    def __init__(self, folder: Path, *, every: int, keep: int):
        self.folder, self.every, self.keep = folder, every, max(1, keep)
        self.saved: list[str] = []
        self._last_step = -1
        self._stepping = self._whole = False

    def on_fit_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Remove what a kill kept the last save from removing; a run that is complete does not save again."""
        if trainer.is_global_zero:
            self._remove_old()
        self.saved = self.saved[-self.keep :]

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Where training starts there is nothing new to save."""
        self._last_step = trainer.global_step
        if trainer.is_global_zero and self.folder.is_dir():
            clear_leftovers(self.folder)

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: Any) -> None:
        """From here to the end of the batch weights and optimizer may be between two steps."""
        self._stepping = True

    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Save every so many steps."""
        self._stepping = False
        stepped = (index + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step != self._last_step and trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Save the end; what is last must be there."""
        if trainer.global_step != self._last_step:
            self.save(trainer)
        if trainer.global_step != self._last_step:
            raise CheckpointFailed(
                f"training is done, but step {trainer.global_step} could not be saved to "
                f"{self.folder}; free disk space, and "
                "the same command continues from the checkpoint before"
            )

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        """Save what is there, unless that was done, a step is half taken, or other processes know of no exception."""
        stopped = isinstance(exception, Stopped)
        if isinstance(exception, CheckpointFailed) or trainer.state.fn != "fit" or self._last_step < 0:
            return
        if self._stepping or (trainer.world_size > 1 and not stopped):
            log.warning(
                "the run continues from %s", self.folder / LAST if (self.folder / LAST).exists() else "its start"
            )
            return
        try:
            if trainer.global_step != self._last_step:
                self.save(trainer, whole=True)
        except Exception as error:  # noqa: BLE001 -- the first error is the one to report
            log.warning("nothing could be saved: %s", reason(error))
        if self._last_step == trainer.global_step > 0 and trainer.is_global_zero:
            log.warning("saved at step %d; the same command continues from there", trainer.global_step)

    def save(self, trainer: L.Trainer, *, whole: bool = False) -> None:
        """Save now. With `whole` the state is between two batches, after the last hook of a step."""
        path = self.folder / f"step-{trainer.global_step:08d}.ckpt"
        error = self._write(trainer, path, whole)
        if error is not None:
            if not (self.folder / LAST).exists():
                raise CheckpointFailed(f"the first checkpoint could not be written to {path}: {reason(error)}")
            log.warning("step %d was not saved: %s. Training continues.", trainer.global_step, reason(error))
            return
        self._last_step = trainer.global_step
        if trainer.is_global_zero:
            point_at(self.folder / LAST, path)
            self._remove_old()
        self.saved = self.saved[-self.keep :]
        trainer.strategy.barrier("checkpoint is in place")

    def _remove_old(self) -> None:
        for name in self.saved[: -self.keep]:
            _remove(self.folder / name)

    def _write(self, trainer: L.Trainer, path: Path, whole: bool) -> OSError | None:
        """Write, on all processes; the error of the one that writes, on all of them."""
        before = list(self.saved)
        self.saved = [name for name in self.saved if name != path.name] + [path.name]
        self._whole = whole
        errors: list[OSError] = []
        io = trainer.strategy.checkpoint_io
        try:
            if isinstance(io, AtomicCheckpointIO):
                with io.holding() as errors:
                    trainer.save_checkpoint(path)
            else:
                trainer.save_checkpoint(path)
        except OSError as failed:
            if trainer.world_size > 1:
                raise
            errors = [failed]
        finally:
            self._whole = False
        error: OSError | None = trainer.strategy.broadcast(errors[0] if errors else None, src=0)
        if error is not None:
            self.saved = before
        return error

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A state that is saved outside of `on_train_batch_end` says that its steps are complete, and that is all.

        Lightning's counters stand in the middle of a batch or of a validation then, and would shift what is logged,
        accumulated and validated after resuming.
        """
        if not self._whole:
            return
        loops = checkpoint["loops"]["fit_loop"]
        batches = trainer.global_step * trainer.accumulate_grad_batches
        for part in ("total", "current"):
            counts = loops["epoch_loop.batch_progress"][part]
            counts.update(dict.fromkeys(counts, batches))
            counts = loops["epoch_loop.val_loop.batch_progress"][part]
            counts.update(dict.fromkeys(counts, counts["completed"]))
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """Which checkpoints are this run's, to be removed in their turn."""
        return {"saved": list(self.saved)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with them."""
        self.saved = [name for name in state["saved"] if re.fullmatch(r"step-\d+\.ckpt", name)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
