"""Training as a function: `hftrainer.train`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError, Experiment, load_experiment, typed
from hftrainer.readers import FileError


@dataclass(frozen=True)
class TrainedRun:
    """A run that ended: its `folder`, how (`status`: "finished" or "stopped early"), after which `step`, and the values
    of its last validation."""

    folder: Path
    status: str
    step: int
    results: dict[str, float]

    def model(self, name: str = "best") -> Path:
        """A model folder of the run, "best" or "last", as the `artifact` callback wrote it."""
        path = self.folder / name
        if not path.is_dir():
            raise FileError(f"{self.folder} has no {name}/; its configuration needs the callback artifact")
        return path


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | Experiment,
    overrides: Sequence[str] = (),
    *,
    new: bool = False,
) -> TrainedRun:
    """Train what a configuration describes: a YAML file, its content as a mapping, or an `Experiment`.

    `overrides`: as on the command line, ``["trainer.max_steps=20"]``; only for a file. A run that is in its folder
    already is continued, or returned if it is finished; with `new` another folder beside it is taken. Raises
    `hftrainer.config.ConfigError` for a configuration that cannot be used.
    """
    from hftrainer.training.fit import fit
    from hftrainer.training.record import RunRecord

    record = RunRecord(fit(prepared(config, overrides, new=new)))
    return TrainedRun(record.folder, str(record.status), record.step, record.results)


def prepared(
    config: str | os.PathLike[str] | Mapping[str, Any] | Experiment, overrides: Sequence[str] = (), *, new: bool = False
) -> Experiment:
    """The experiment that `train` runs, its folder chosen."""
    if overrides and isinstance(config, (Experiment, Mapping)):
        raise ConfigError(
            f"overrides such as {next(iter(overrides))!r} are for a configuration file; change the mapping itself"
        )
    if isinstance(config, Experiment):
        experiment = config
    elif isinstance(config, Mapping):
        experiment = typed(Experiment, config)
    else:
        experiment = load_experiment(config, overrides)
    from hftrainer.training.record import choose_folder

    return dataclasses.replace(experiment, output_dir=choose_folder(experiment.output_dir, new=new))
