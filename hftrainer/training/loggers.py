"""Where scalars go: CSV always, TensorBoard and Weights & Biases on request. No log ends a run."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from hftrainer.config import Experiment
from hftrainer.extras import need
from hftrainer.files import write_text
from hftrainer.training.faults import reason

log = logging.getLogger(__name__)


def make_loggers(experiment: Experiment, output: Path, resolved: Mapping[str, Any], *, resumed: bool) -> list[Any]:
    """The loggers of a run. `resolved` is the configuration for W&B; a `resumed` run goes on in its old W&B run."""
    config = experiment.logger
    loggers: list[Any] = [CsvLog(output)]
    if config.tensorboard:
        need("tensorboard", "logging to TensorBoard")
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(output, name="tensorboard", version=""))
    if config.wandb:
        need("wandb", "logging to Weights & Biases")
        from hftrainer.training.wandb_log import WandbLog

        loggers.append(WandbLog(config, output, resolved, resumed=resumed))
    return loggers


class CsvLog(Logger):  # type: ignore[misc]
    """``logs/version_N/metrics.csv``, one version each time the run is started; a row is on disk when it is logged.

    Lightning's keeps a hundred rows in memory, and writes the file anew over itself when a column is new.
    """

    def __init__(self, output: Path):
        self._output = output
        self._file: Path | None = None
        self._columns: list[str] = []
        self._lost = 0

    @property
    def name(self) -> str:
        """Of the folder."""
        return "logs"

    @property
    def version(self) -> int:
        """Counted from 0, chosen when the first row is written."""
        return int(self.file.parent.name.removeprefix("version_"))

    @property
    def file(self) -> Path:
        """Where the rows go."""
        if self._file is None:
            taken = [int(p.name.removeprefix("version_")) for p in self._output.glob("logs/version_*")]
            self._file = self._output / "logs" / f"version_{max(taken, default=-1) + 1}" / "metrics.csv"
        return self._file

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The configuration is in config.yaml."""

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row; a full disk loses it, and says so once."""
        row = {name: float(value) for name, value in metrics.items()} | {"step": step}
        try:
            self._append(row)
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                log.warning("%s cannot be written: %s. Training goes on without those rows.", self.file, reason(error))

    def _append(self, row: Mapping[str, Any]) -> None:
        new = sorted(set(row) - set(self._columns))
        if new:
            columns = sorted({*self._columns, *new})
            self.file.parent.mkdir(parents=True, exist_ok=True)
            old = self._rows()
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, columns)
            writer.writeheader()
            writer.writerows(old)
            write_text(self.file, text.getvalue())
            self._columns = columns
        with self.file.open("a", newline="") as stream:
            csv.DictWriter(stream, self._columns).writerow(row)

    def _rows(self) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        with self.file.open(newline="") as stream:
            return list(csv.DictReader(stream))
