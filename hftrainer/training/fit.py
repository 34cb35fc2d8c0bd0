"""From a configuration to a trained model: build the parts, give them to Lightning, resume where a run stopped."""

from __future__ import annotations

import dataclasses
import logging
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from hftrainer.config import ConfigError, Experiment, plain
from hftrainer.data.mixed import build_data, resolve_data
from hftrainer.extras import need
from hftrainer.files import check_writable
from hftrainer.models.shard_building import keep_shards
from hftrainer.readers import FileError
from hftrainer.registry import CALLBACKS, LOGGERS, MODELS, TASKS
from hftrainer.training import changes as differences
from hftrainer.training.building import build_with
from hftrainer.training.callbacks.artifact import damaged
from hftrainer.training.changes import Change
from hftrainer.training.preflight import Preflight, check_data, check_monitors, check_optimizer, warn_of_warmup
from hftrainer.training.record import FAILED, FINISHED, STOPPED_EARLY, RunRecord, run_config
from hftrainer.training.strategies import (
    check_resume,
    check_strategy,
    find_devices,
    prepare_task,
    shards_parameters,
    shutdown_process_group,
    trainer_arguments,
    writes_folders,
)

log = logging.getLogger(__name__)


def check_experiment(experiment: Experiment) -> dict[str, Any]:
    """Check every section against its schema without building anything; the resolved configuration, defaults filled."""
    check_strategy(experiment.trainer, [str(section.get("name")) for section in experiment.callbacks])
    resolved: dict[str, Any] = plain(experiment)
    for section, registry in (("model", MODELS), ("task", TASKS)):
        resolved[section] = _resolved(registry, getattr(experiment, section), section)
    _check_parts(experiment)
    resolved["data"] = resolve_data(experiment.data)
    for name, registry in (("callbacks", CALLBACKS), ("loggers", LOGGERS)):
        sections = getattr(experiment, name)
        resolved[name] = [_resolved(registry, section, f"{name}[{i}]") for i, section in enumerate(sections)]
    check_optimizer(experiment)
    check_monitors(experiment)
    return resolved


def _check_parts(experiment: Experiment) -> None:
    """What a model's configuration says of its parts fits, as far as that can be known without files (`check`)."""
    _, config = MODELS.resolve(experiment.model, path="model")
    check = getattr(config, "check", None)
    if check is not None:
        try:
            check()
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error


def fit(experiment: Experiment) -> Path:
    """Run an experiment to its end; the folder with its checkpoints, artifacts, logs and record.

    A run that is finished already trains nothing. `ConfigError`: the configuration cannot be used, or differs from that
    of the run that it would continue.
    """
    L = need("lightning", "training")
    from hftrainer.data.loader import PlannedData

    _quieten()
    resolved = check_experiment(experiment)
    warn_of_warmup(experiment)
    output = check_writable(experiment.output_dir)
    record = RunRecord(output)
    resume = find_checkpoint(experiment, output)
    if resume is not None:
        check_resume(resume, experiment.trainer, find_devices(experiment.trainer).processes)
    changes = _changes(experiment, resolved, record, resume)
    if resume is not None and is_finished(experiment, record, changes):
        return output
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    callbacks = _build_callbacks(experiment, output)  # before the model: missing requirements show up in seconds
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    source = build_data(experiment.data)
    data = PlannedData(
        source, seed=experiment.seed, num_workers=experiment.num_workers, prefetch=experiment.prefetch,
        max_bad_samples=experiment.max_bad_samples, limit_val_batches=experiment.trainer.limit_val_batches,
        new_order=any(change.path == "seed" for change in changes),
    )  # fmt: skip
    check_data(experiment, data)
    experiment = with_steps(experiment, data)
    trainer = _make_trainer(experiment, output, resolved, resume is not None, callbacks)
    with building(experiment, trainer):
        bundle = MODELS.build(experiment.model, path="model")
        task = TASKS.build(experiment.task, path="task", bundle=bundle, source=source)
    prepare_task(task, experiment.trainer)
    _on_first(record.begin)(resolved, changes, step=record.step if resume else 0, processes=trainer.world_size)
    _train(trainer, task, data, resume, record)
    return output


def _train(trainer: Any, task: Any, data: Any, resume: Path | None, record: RunRecord) -> None:
    from hftrainer.training.ending import end_properly

    end_properly(trainer)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=resume)
    except BaseException:
        _on_first(record.end)(FAILED, int(trainer.global_step), {})
        raise
    _on_first(_check_models)(record, int(trainer.global_step))
    early = trainer.global_step < trainer.max_steps
    results = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    _on_first(record.end)(STOPPED_EARLY if early else FINISHED, int(trainer.global_step), results)
    shutdown_process_group()


def _check_models(record: RunRecord, step: int) -> None:
    """Raise `FileError` if somebody deleted files of the run's models while others were written."""
    if found := damaged(record.folder):
        record.end(FAILED, step, {})
        raise FileError(f"files of {record.folder / found[0]} were deleted meanwhile; run the same command again")


def building(experiment: Experiment, trainer: Any) -> AbstractContextManager[None]:
    """A process builds only its shard of parameters that are sharded, unless the task sets all weights itself."""
    own_start = experiment.task.get("init_std") is not None or experiment.task.get("fsq_init")
    if not shards_parameters(experiment.trainer.strategy) or own_start or experiment.task.get("lora"):
        return nullcontext()
    return keep_shards(trainer.global_rank, trainer.world_size)


def _changes(experiment: Experiment, resolved: dict[str, Any], record: RunRecord, resume: Path | None) -> list[Change]:
    """How the configuration differs from that of the run that is continued, all of it allowed."""
    if resume is None:
        return []
    if experiment.resume.checkpoint == "auto":
        home, before, processes = record.folder, record.newest_config(), record.processes
    else:
        home = resume.resolve().parents[1]
        before, processes = run_config(home), RunRecord(home).processes
    if before is None:
        return []
    now = find_devices(experiment.trainer).processes
    found = differences.compare(differences.resolved_again(before, check_experiment), resolved, processes, now)
    differences.refuse(found, experiment.resume.allow, run=str(home))
    for change in found:
        _on_first(log.warning)("continued with another %s%s", change, "" if change.kind == "free" else ", as allowed")
    return found


def is_finished(experiment: Experiment, record: RunRecord, changes: Sequence[Change]) -> bool:
    """Whether nothing is left to do; says so, with the results."""
    if not record.finished or experiment.resume.checkpoint != "auto":
        return False
    longer = any(change.path in differences.LENGTH for change in changes)
    incomplete = [str(record.folder / name) for name in damaged(record.folder)]
    if incomplete and record.status == FINISHED:
        _on_first(log.warning)("files of %s are missing; it is written again", " and ".join(incomplete))
        return False
    go_on = longer if record.status == FINISHED else differences.EARLY_STOP in experiment.resume.allow
    if go_on:
        return False
    if incomplete:  # to write it as at the end of training would be to train beyond that end
        raise FileError(
            f"files of {' and '.join(incomplete)} are missing, of a run that a callback had stopped; make a model of a "
            f"checkpoint with: hftrainer convert run {record.folder} --out FOLDER"
        )
    more = (
        "a callback had stopped it; use resume.allow=[early_stop] to continue"
        if record.status == STOPPED_EARLY
        else "increase trainer.max_steps to continue; use --new to train again in a new folder"
    )
    _on_first(print)("\n".join(record.lines()) + f"\nnothing was trained: {more}")
    return True


def with_steps(experiment: Experiment, data: Any) -> Experiment:
    """The experiment with `trainer.max_steps` set where it is given in epochs."""
    config = experiment.trainer
    if config.max_epochs is None:
        return experiment
    batches = find_devices(config).processes * config.accumulate_grad_batches
    steps = max(1, round(config.max_epochs * data.plan.batches_per_epoch / batches))
    if config.max_steps is not None:
        steps = min(steps, config.max_steps)
    return dataclasses.replace(experiment, trainer=dataclasses.replace(config, max_steps=steps))


def find_checkpoint(experiment: Experiment, output: Path) -> Path | None:
    """The checkpoint to continue from: the newest of this run ("auto"), a given one, or none."""
    wanted = experiment.resume.checkpoint
    if wanted == "never":
        return None
    if wanted != "auto":
        path = Path(wanted)
        if not path.exists():
            raise ConfigError(f"resume: there is no checkpoint {wanted!r}")
        return path
    last = output / "checkpoints" / "last.ckpt"  # a file, or a folder of shards
    if last.is_file() and not zipfile.is_zipfile(last):
        others = sorted(path for path in last.parent.glob("step-*.ckpt") if zipfile.is_zipfile(path))
        remedy = f"continue from an earlier one with resume={others[-1]}" if others else "start again with resume=never"
        raise ConfigError(f"{last} is not a complete checkpoint (a damaged disk?); {remedy}")
    return last if last.exists() else None


def _build_callbacks(experiment: Experiment, output: Path) -> list[Any]:
    """Those of the configuration; see `build_with`."""
    return [
        build_with(CALLBACKS, section, f"callbacks[{i}]", output_dir=output)
        for i, section in enumerate(experiment.callbacks)
    ]


def _make_trainer(
    experiment: Experiment, output: Path, resolved: dict[str, Any], resumed: bool, callbacks: list[Any]
) -> Any:
    import lightning as L

    from hftrainer.training.callbacks.checkpoints import Checkpoints
    from hftrainer.training.callbacks.ema import EMA
    from hftrainer.training.callbacks.final_validation import FinalValidation
    from hftrainer.training.callbacks.not_finite import NotFiniteGuard
    from hftrainer.training.callbacks.progress import Progress
    from hftrainer.training.callbacks.speed import Speed
    from hftrainer.training.callbacks.stopping import StopOnSignal
    from hftrainer.training.callbacks.trace import Trace
    from hftrainer.training.checkpoint_io import AtomicCheckpointIO
    from hftrainer.training.loggers import make_loggers

    config = experiment.trainer
    # The average of the weights is swapped out last, after every other callback has seen it in place.
    callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, EMA))
    callbacks += [
        Preflight(experiment, output, list(callbacks)),
        NotFiniteGuard(config.on_nan, config.max_skipped_in_a_row),
        FinalValidation(wanted=config.val_every_n_steps is not None),
        StopOnSignal(),
        Checkpoints(output / "checkpoints", every=config.checkpoint_every_n_steps, keep=config.keep_last_checkpoints),
        Speed(),
    ]
    if config.profiler == "torch":
        callbacks.append(Trace(output / "trace", *config.profile_steps))
    if config.progress_bar:
        callbacks.append(Progress())
    where = trainer_arguments(config)
    if not writes_folders(config.strategy):
        where["plugins"] = [*where.get("plugins", []), AtomicCheckpointIO()]
    assert config.max_steps is not None
    return L.Trainer(
        max_steps=config.max_steps,
        max_epochs=-1,
        **where,
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        val_check_interval=(config.val_every_n_steps or config.max_steps + 1) * config.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        log_every_n_steps=config.log_every_n_steps,
        deterministic=config.deterministic,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0 if config.val_every_n_steps is None else 1,
        default_root_dir=output,
        callbacks=callbacks,
        logger=make_loggers(experiment, output, resolved, resumed=resumed),
    )


def _quieten() -> None:
    """Lightning's advertisements are not the user's news; its warnings are."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for expected in ("does not have many workers", "in eval mode at the start", "exists and is not empty"):
        warnings.filterwarnings("ignore", message=f".*{expected}.*")


def _on_first(action: Any) -> Any:
    """The action, on the first process."""
    return rank_zero_only(action)


def _resolved(registry: Any, section: dict[str, Any], path: str) -> dict[str, Any]:
    _, config = registry.resolve(section, path=path)
    return {"name": section["name"], **plain(config)}
