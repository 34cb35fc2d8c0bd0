"""Where scalars go: CSV always, TensorBoard and Weights & Biases on request. No log ends a run."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from hftrainer.config import Experiment
from hftrainer.extras import need
from hftrainer.files import write_text
from hftrainer.registry import LOGGERS
from hftrainer.training.building import build_with
from hftrainer.training.faults import reason

log = logging.getLogger(__name__)


def make_loggers(experiment: Experiment, output: Path, resolved: Mapping[str, Any], *, resumed: bool) -> list[Any]:
    """The loggers of a run, CSV always among them. `resolved` is the configuration; `resumed`: the run is continued."""
    sections = list(experiment.loggers)
    if not any(section.get("name") == "csv" for section in sections):
        sections.insert(0, {"name": "csv"})
    runtime = {"output": output, "resolved": resolved, "resumed": resumed}
    return [build_with(LOGGERS, section, f"loggers[{i}]", **runtime) for i, section in enumerate(sections)]


@LOGGERS.register("tensorboard")
class TensorBoardLog(TensorBoardLogger):  # type: ignore[misc]
    """Scalars in ``tensorboard/``."""

    @dataclass
    class Config:
        """Nothing to choose."""

    @classmethod
    def from_config(cls, config: Config, *, output: Path) -> TensorBoardLog:
        """See `make_loggers`."""
        need("tensorboard", "logging to TensorBoard")
        return cls(output, name="tensorboard", version="")


@LOGGERS.register("csv")
class CsvLog(Logger):  # type: ignore[misc]
    """``logs/version_N/metrics.csv``, one version each time the run is started; a row is on disk when it is logged.

    Lightning's keeps a hundred rows in memory, and rewrites the file in place when a column is new.
    """

    @dataclass
    class Config:
        """Nothing to choose."""

    @classmethod
    def from_config(cls, config: Config, *, output: Path) -> CsvLog:
        """See `make_loggers`."""
        return cls(output)

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
        # Lightning sees one endless epoch; progress/epochs has those of the data
        row = {name: float(value) for name, value in metrics.items() if name != "epoch"} | {"step": step}
        try:
            self._append(row)
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                log.warning(
                    "%s cannot be written: %s. Training continues without those rows.", self.file, reason(error)
                )

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
