"""From a configuration to a trained model: build the parts, give them to Lightning, resume where a run stopped."""

from __future__ import annotations

import inspect
import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError, Experiment, plain, save_yaml
from hftrainer.extras import need
from hftrainer.files import check_writable, write_json
from hftrainer.registry import CALLBACKS, DATASETS, MODELS, TASKS
from hftrainer.training.strategies import (
    check_resume,
    check_strategy,
    leave_together,
    prepare_task,
    trainer_arguments,
    writes_folders,
)


def check_experiment(experiment: Experiment) -> dict[str, Any]:
    """Check every section against its schema without building anything; the resolved configuration, defaults filled."""
    check_strategy(experiment.trainer, [str(section.get("name")) for section in experiment.callbacks])
    resolved: dict[str, Any] = plain(experiment)
    for section, registry in (("model", MODELS), ("task", TASKS), ("data", DATASETS)):
        resolved[section] = _resolved(registry, getattr(experiment, section), section)
    resolved["callbacks"] = [
        _resolved(CALLBACKS, section, f"callbacks[{i}]") for i, section in enumerate(experiment.callbacks)
    ]
    return resolved


def fit(experiment: Experiment) -> Path:
    """Run an experiment to ``trainer.max_steps``; the folder with its checkpoints, artifacts, logs and config.yaml."""
    L = need("lightning", "training")
    from hftrainer.data.loader import PlannedData
    from hftrainer.training.provenance import provenance

    # Lightning's advertisements are not the user's news; its warnings are
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for expected in ("does not have many workers", "in eval mode at the start", "exists and is not empty"):
        warnings.filterwarnings("ignore", message=f".*{expected}.*")
    resolved = check_experiment(experiment)
    output = check_writable(experiment.output_dir)
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    source = DATASETS.build(experiment.data, path="data")
    bundle = MODELS.build(experiment.model, path="model")
    task = TASKS.build(experiment.task, path="task", bundle=bundle, source=source)
    prepare_task(task, experiment.trainer)
    resume = find_checkpoint(experiment, output)
    trainer = _make_trainer(experiment, output, resolved, resume is not None)
    if resume is not None:
        check_resume(resume, experiment.trainer, trainer.world_size)
    save_yaml(resolved, output / "config.yaml")
    write_json(output / "run.json", provenance())
    data = PlannedData(source, seed=experiment.seed, num_workers=experiment.num_workers,
                       max_bad_samples=experiment.max_bad_samples)  # fmt: skip
    trainer.fit(task, datamodule=data, ckpt_path=resume)
    leave_together()
    return output


def find_checkpoint(experiment: Experiment, output: Path) -> Path | None:
    """The checkpoint to go on from: the newest of this run ("auto"), a given one, or none."""
    if experiment.resume == "never":
        return None
    if experiment.resume != "auto":
        path = Path(experiment.resume)
        if not path.exists():
            raise ConfigError(f"resume: there is no checkpoint {experiment.resume!r}")
        return path
    last = output / "checkpoints" / "last.ckpt"  # a file, or a folder of shares
    if last.is_file() and not zipfile.is_zipfile(last):
        others = sorted(path for path in last.parent.glob("step-*.ckpt") if zipfile.is_zipfile(path))
        remedy = f"go on from an earlier one with resume={others[-1]}" if others else "start anew with resume=never"
        raise ConfigError(f"{last} is not a whole checkpoint (a damaged disk?); {remedy}")
    return last if last.exists() else None


def _make_trainer(experiment: Experiment, output: Path, resolved: dict[str, Any], resumed: bool) -> Any:
    import lightning as L
    from lightning.pytorch.callbacks import TQDMProgressBar

    from hftrainer.training.callbacks.checkpoints import Checkpoints
    from hftrainer.training.callbacks.final_validation import FinalValidation
    from hftrainer.training.callbacks.not_finite import NotFiniteGuard
    from hftrainer.training.callbacks.stopping import StopOnSignal
    from hftrainer.training.checkpoint_io import AtomicCheckpointIO
    from hftrainer.training.loggers import make_loggers

    config = experiment.trainer
    callbacks: list[Any] = [
        _build_callback(section, f"callbacks[{i}]", output) for i, section in enumerate(experiment.callbacks)
    ]
    # The average of the weights is swapped out last, after every other callback has seen it in place.
    callbacks.sort(key=lambda callback: type(callback).__name__ == "EMA")
    callbacks += [
        NotFiniteGuard(config.on_nan, config.max_skipped_in_a_row),
        FinalValidation(wanted=config.val_every_n_steps is not None),
        StopOnSignal(),
        Checkpoints(output / "checkpoints", every=config.checkpoint_every_n_steps, keep=config.keep_last_checkpoints),
    ]
    if config.progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    where = trainer_arguments(config)
    if not writes_folders(config.strategy):
        where["plugins"] = [*where.get("plugins", []), AtomicCheckpointIO()]
    return L.Trainer(
        max_steps=config.max_steps,
        max_epochs=-1,
        **where,
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        val_check_interval=(config.val_every_n_steps or config.max_steps + 1) * config.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        limit_val_batches=config.limit_val_batches,
        log_every_n_steps=config.log_every_n_steps,
        deterministic=config.deterministic,
        enable_progress_bar=config.progress_bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=output,
        callbacks=callbacks,
        logger=make_loggers(experiment, output, resolved, resumed=resumed),
    )


def _build_callback(section: dict[str, Any], path: str, output: Path) -> Any:
    factory, config = CALLBACKS.resolve(section, path=path)
    if not hasattr(factory, "Config"):
        return factory(**config)
    wants_folder = "output_dir" in inspect.signature(factory).parameters
    return factory(config, output_dir=output) if wants_folder else factory(config)


def _resolved(registry: Any, section: dict[str, Any], path: str) -> dict[str, Any]:
    _, config = registry.resolve(section, path=path)
    return {"name": section["name"], **plain(config)}
