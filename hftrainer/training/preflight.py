"""What can go wrong later is looked for before the first step, in seconds.

Without data (``hftrainer train --check``): names, types and ranges, monitors that nothing logs, optimizers that a
strategy cannot step. With them: validation that is empty, room on the disk, one validation batch, and what callbacks
try (a prompt, an evaluator).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import lightning as L

from hftrainer.config import ConfigError, Experiment
from hftrainer.data.plausible import problem_of_source
from hftrainer.data.prepare.verify_quick import quick_problem
from hftrainer.evaluation.vocabulary import current_name
from hftrainer.registry import CALLBACKS, TASKS
from hftrainer.training.strategies import is_zero

log = logging.getLogger(__name__)
_CHECKPOINTS = 2  # there is room for so many, as a new one is written before an old one is removed


def check_optimizer(experiment: Experiment) -> None:
    """Refuse an optimizer that the strategy cannot step."""
    _, config = TASKS.resolve(experiment.task, path="task")
    optimizer = getattr(config, "optimizer", None)
    if optimizer is None or not hasattr(optimizer, "registry"):
        return
    factory = optimizer.registry.get(optimizer.name)
    if is_zero(experiment.trainer.strategy) and not getattr(factory, "zero", True):
        raise ConfigError(
            f"task.optimizer.name={optimizer.name} cannot step DeepSpeed's flat shards of parameters; take adamw, or "
            "trainer.strategy=fsdp2"
        )


def warn_of_warmup(experiment: Experiment) -> None:
    """Say so when the warm-up is longer than the run."""
    _, config = TASKS.resolve(experiment.task, path="task")
    optimizer = getattr(config, "optimizer", None)
    schedule = getattr(getattr(optimizer, "config", None), "schedule", None)
    warmup, steps = getattr(getattr(schedule, "config", None), "warmup", 0), experiment.trainer.max_steps
    if steps is not None and experiment.trainer.max_epochs is None and warmup >= steps:
        log.warning(
            "task.optimizer.schedule.warmup=%d does not end before trainer.max_steps=%d: the full "
            "learning rate is never reached", warmup, steps,
        )  # fmt: skip


def check_monitors(experiment: Experiment) -> None:
    """Refuse a monitor that nothing logs, where task and callbacks say what they log (`logged`)."""
    factory = TASKS.get(experiment.task["name"])
    sources = [factory, *(CALLBACKS.get(section["name"]) for section in experiment.callbacks)]
    monitors = {
        f"callbacks[{i}].monitor": section["monitor"]
        for i, section in enumerate(experiment.callbacks)
        if isinstance(section.get("monitor"), str)
    }
    if not monitors:
        return
    if experiment.trainer.val_every_n_steps is None:
        path, name = next(iter(monitors.items()))
        raise ConfigError(f"{path}={name}: there is no validation; set trainer.val_every_n_steps")
    names = [getattr(source, "logged", None) for source in sources]
    if all(name is not None for name in names):
        known = {one for name in names for one in name or ()}
        for path, name in monitors.items():
            _check_monitor(path, current_name(name), known)


def _check_monitor(path: str, name: str, known: Iterable[str]) -> None:
    known = sorted(known)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{path}: nothing logs {name!r}; {hint}Logged: {', '.join(known) or 'nothing'}")


def check_data(experiment: Experiment, data: Any) -> None:
    """Refuse motions that are not what they are taken for, training without data, and a validation without data.

    The last unless none is wanted (``val_split: null``) and no callback waits for one.
    """
    for source in getattr(data.source, "sources", [data.source]):
        problem = problem_of_source(source) or quick_problem(source, codes=experiment.max_bad_samples == 0)
        if problem is not None:
            raise ConfigError(f"data.root={getattr(source.config, 'root', '?')}: {problem}. See: hftrainer data verify")
    if not len(data.dataset):
        raise ConfigError(
            f"data.train_split={getattr(data.source.config, 'train_split', None)} has no clips to train on; give it "
            "some (hftrainer data split), or name another split"
        )
    split = getattr(data.source.config, "val_split", None)
    waiting = any(section.get("name") != "ema" for section in experiment.callbacks)
    if experiment.trainer.val_every_n_steps is None or (split is None and not waiting):
        return
    if not len(data.val_batches):
        raise ConfigError(
            f"trainer.val_every_n_steps={experiment.trainer.val_every_n_steps}, but there is no validation data: "
            f"data.val_split={split} has no clips. Give it some (hftrainer data split), or write "
            "trainer.val_every_n_steps=null and remove the callbacks that run at validation"
        )


class Preflight(L.Callback):
    """The last checks, on the built run: room for checkpoints, one validation batch, what callbacks try.

    A callback with a method ``preflight(trainer, task)`` is given a turn; an error there ends the run before it begins.
    """

    def __init__(self, experiment: Experiment, output: Path, callbacks: list[Any]):
        self.experiment, self.output, self.callbacks = experiment, output, callbacks

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        """Is there room? Weights, two moments and an average, in checkpoints."""
        if not trainer.is_global_zero:
            return
        numbers = sum(p.numel() for p in task.parameters() if p.requires_grad)
        copies = 3 + sum(section.get("name") == "ema" for section in self.experiment.callbacks)
        wanted, free = _CHECKPOINTS * 4 * numbers * copies, shutil.disk_usage(self.output).free
        if free < wanted:
            raise ConfigError(
                f"output_dir={self.output}: {_CHECKPOINTS} checkpoints of this run take about {wanted / 1e9:.1f} GB, "
                f"and {free / 1e9:.1f} GB are free; free disk space, or choose another output_dir"
            )

    def on_sanity_check_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """A validation batch went through: are the monitors among what it, or a callback, logs?"""
        names = [getattr(callback, "logged", None) for callback in self.callbacks]
        seen = {*trainer.callback_metrics, *(one for name in names for one in name or ())}
        for i, callback in enumerate(self.callbacks):
            monitor = getattr(callback, "monitor", None) or getattr(getattr(callback, "config", None), "monitor", None)
            if not isinstance(monitor, str) or monitor in seen:
                continue
            if None not in names:
                _check_monitor(f"callbacks[{i}].monitor", monitor, seen)
            log.warning("callbacks[%d].monitor: nothing has logged %r so far; logged: %s", i, monitor, sorted(seen))
        for callback in self.callbacks:
            if hasattr(callback, "preflight"):
                callback.preflight(trainer, task)
