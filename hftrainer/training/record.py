"""What a run's folder says of it: run.json, and the configuration of every start.

config.yaml, config.2.yaml, ...   resolved configuration of the first start and of later ones
run.json                          status, steps, results; each start with its code, command and changes
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hftrainer.config import ConfigError, read_yaml, save_yaml
from hftrainer.files import write_json
from hftrainer.readers import check_list, check_type, inside, json_fields, read_json
from hftrainer.training.changes import Change
from hftrainer.training.provenance import provenance

FINISHED, STOPPED_EARLY, RUNNING, FAILED = "finished", "stopped early", "running", "stopped"
_FILE = "run.json"


class RunRecord:
    """The record in a folder, which need not be there yet."""

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / _FILE
        self.values: dict[str, Any] = {"status": None, "starts": []}
        if path.is_file():
            found = read_json(path)
            json_fields(found, path, optional={"status": (str, type(None)), "step": int, "results": dict})
            for name, value in found.get("results", {}).items():
                check_type(value, float, f"{path}, 'results', {name!r}")
            for number, start in enumerate(check_list(found.get("starts", []), dict, f"{path}, 'starts'")):
                json_fields(start, f"{path}, start {number}", {"config": str}, {"processes": (int, type(None))})
                inside(folder, start["config"], what=f"{path}, start {number}")
            self.values |= found
        if not self.values["starts"] and (folder / "config.yaml").is_file():  # of an earlier release
            self.values["starts"] = [{"config": "config.yaml", "processes": None}]

    @property
    def status(self) -> str | None:
        """How the last start ended; None for a folder without a run."""
        return self.values["status"]  # type: ignore[no-any-return]

    @property
    def finished(self) -> bool:
        """Nothing is left to do."""
        return self.status in (FINISHED, STOPPED_EARLY)

    @property
    def step(self) -> int:
        """Optimizer steps that were taken."""
        return int(self.values.get("step", 0))

    @property
    def results(self) -> dict[str, float]:
        """The last validation's values."""
        return dict(self.values.get("results", {}))

    @property
    def processes(self) -> int | None:
        """How many took part in the last start."""
        starts = self.values["starts"]
        return starts[-1].get("processes") if starts else None

    def newest_config(self) -> dict[str, Any] | None:
        """The configuration of the last start."""
        starts = self.values["starts"]
        if not starts:
            return None
        path = self.folder / starts[-1]["config"]
        if not path.is_file():
            raise ConfigError(
                f"{path}, the configuration that the run was last started with, is missing; put it back, or train in a "
                "new folder with --new"
            )
        return read_yaml(path)

    def begin(self, resolved: Mapping[str, Any], changes: Sequence[Change], *, step: int, processes: int) -> None:
        """Record a start, from `step` on."""
        number = len(self.values["starts"]) + 1
        name = "config.yaml" if number == 1 else f"config.{number}.yaml"
        save_yaml(resolved, self.folder / name)
        start = {
            "config": name, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "from_step": step, "processes": processes,
            "changes": [{"field": c.path, "before": c.before, "now": c.now, "kind": c.kind} for c in changes],
            **provenance(),
        }  # fmt: skip
        self.values["starts"].append(start)
        self._write(status=RUNNING)

    def end(self, status: str, step: int, results: Mapping[str, float]) -> None:
        """Record how it ended."""
        self._write(status=status, step=step, results={k: v for k, v in results.items() if math.isfinite(v)})

    def lines(self) -> list[str]:
        """Status and results, to be printed."""
        out = [f"{self.folder}: {self.status} at step {self.step}"]
        return out + [f"  {name:28} {value:.6g}" for name, value in sorted(self.results.items())]

    def _write(self, **values: Any) -> None:
        self.values |= values
        write_json(self.folder / _FILE, self.values)


def run_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run was last started with; `ConfigError` for a folder that holds no run."""
    found = RunRecord(folder).newest_config()
    if found is None:
        raise ConfigError(f"{folder} is not the folder of a run: it has no config.yaml")
    return found


def choose_folder(folder: str, *, new: bool = False) -> str:
    """The output folder of a run: ``{run_id}`` filled in; with `new`, the first of folder-2, ... if there is a run."""
    if "{run_id}" in folder:
        folder = folder.replace("{run_id}", _run_id())
    path, number = Path(folder), 1
    while new and path.exists():
        number += 1
        path = Path(f"{folder}-{number}")
    return str(path)


def _run_id() -> str:
    """The same on all processes of a run, which the first one starts with what is in its environment."""
    return os.environ.setdefault("WANDB_RUN_ID", secrets.token_hex(4))
