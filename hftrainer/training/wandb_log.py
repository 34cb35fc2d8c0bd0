"""Weights & Biases beside a run, never in its way."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from hftrainer.environment import without_secrets
from hftrainer.extras import need
from hftrainer.fields import choice, number
from hftrainer.files import write_json
from hftrainer.readers import read_json
from hftrainer.registry import LOGGERS
from hftrainer.training.faults import reason
from hftrainer.training.provenance import provenance

log = logging.getLogger(__name__)
START_SECONDS = 60  # that a server has to answer when a run starts
_PUBLIC = {"api.wandb.ai", "api.forge.coreweave.com"}  # names of one server; a login under either is good for both


@dataclass
class WandbConfig:
    """`offline`: None is offline unless a key is known or WANDB_MODE says otherwise. `models`: when best/ and last/
    become W&B artifacts: "end" of training, "always" (each time they are written), "never". `system_metrics_seconds`:
    how often load and memory are looked at; None: never. The rest is shown and searched for in W&B.
    """

    project: str = "hftrainer"
    entity: str | None = None
    run_name: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    offline: bool | None = None
    models: str = choice("end", ["end", "always", "never"])
    system_metrics_seconds: float | None = number(15.0, above=0)


@LOGGERS.register("wandb")
class WandbLog(Logger):  # type: ignore[misc]
    """Scalars at ``trainer/global_step``, the resolved configuration, the git revision, system metrics, media, models.

    The id of the run is kept in ``wandb_run.json``, and a resumed run takes it up. A server that does not answer makes
    the run an offline one; W&B's process dying makes the run continue without. Both are said once.
    """

    Config = WandbConfig

    def __init__(self, config: WandbConfig, *, output: Path, resolved: Mapping[str, Any], resumed: bool):
        need("wandb", "logging to Weights & Biases")
        self.config, self.output, self.resolved = config, output, dict(resolved)
        self._resumed, self._dead = resumed, False
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self.config.project

    @property
    def version(self) -> str:
        """The id of the run."""
        return str(self._identity()["id"])

    @property
    def save_dir(self) -> str:
        """Where ``wandb/`` lies."""
        return str(self.output)

    @property
    def run(self) -> Any:
        """W&B's run, started when first asked for; None on other processes and once W&B is dead."""
        if rank_zero_only.rank != 0 or self._dead:
            return None
        if self._run is None:
            self._start()
        return self._run

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The configuration goes in when the run starts."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Scalars at a step."""
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        self.safely(lambda run: run.log({**values, "trainer/global_step": step}))

    def safely(self, action: Callable[[Any], Any]) -> None:
        """Do something with the run, if there is one; an error ends W&B, not training."""
        try:
            run = self.run
            if run is not None:
                action(run)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is not worth a run
            self._give_up(error)

    def finalize(self, status: str) -> None:
        """Close the run, as finished or as failed."""
        run, self._run = self._run, None
        if run is not None and not self._dead:
            try:
                run.finish(exit_code=0 if status in ("success", "finished") else 1)
            except Exception as error:  # noqa: BLE001 -- as above
                self._give_up(error)

    def _start(self) -> None:
        import wandb

        made = provenance()
        settings: dict[str, Any] = {"init_timeout": START_SECONDS, "silent": True}
        if self.config.system_metrics_seconds is None:
            settings["x_disable_stats"] = True
        else:
            settings["x_stats_sampling_interval"] = self.config.system_metrics_seconds
        arguments: dict[str, Any] = {
            **self._identity(),
            "name": self.config.run_name or self.output.name,
            "group": self.config.group,
            "job_type": self.config.job_type,
            "tags": self.config.tags or None,
            "notes": self.config.notes,
            "dir": str(self.output),
            "config": {**without_secrets(self.resolved), **made},
        }
        mode = wandb_mode(self.config.offline)
        if mode != "offline":
            arguments["resume"] = "allow"
        try:
            self._run = wandb.init(mode=mode, settings=wandb.Settings(**settings), **arguments)
        except Exception as error:
            if mode != "online":
                raise
            log.warning("W&B cannot start online (%s); the run is recorded offline", reason(error))
            wandb.teardown()  # its process holds the id of the run that did not start
            arguments.pop("resume")
            self._run = wandb.init(mode="offline", settings=wandb.Settings(**settings), **arguments)
        self._run.define_metric("trainer/global_step")
        self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        write_json(self.output / "wandb_run.json", self._identity())
        if getattr(self._run, "offline", False):
            log.warning("W&B is offline; upload later with: wandb sync %s", Path(self._run.dir).parent)

    def _identity(self) -> dict[str, Any]:
        """Id, project and entity: the old ones if the run is continued, else new ones."""
        path = self.output / "wandb_run.json"
        if not hasattr(self, "_known"):
            if self._resumed and path.is_file():
                self._known: dict[str, Any] = read_json(path)
            else:
                new = run_id() if rank_zero_only.rank == 0 else ""
                self._known = {"id": new, "project": self.config.project, "entity": self.config.entity}
        return self._known

    def _give_up(self, error: Exception) -> None:
        if not self._dead:
            log.warning("W&B failed (%s). The run continues without it; scalars are in logs/.", reason(error))
        self._dead, self._run = True, None


def run_id() -> str:
    """W&B's id for a run that starts here: that of a sweep's trial (WANDB_RUN_ID), or a new one."""
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


def wandb_mode(offline: bool | None) -> Literal["online", "offline"] | None:
    """ "offline", "online", or None, which leaves it to the environment variable WANDB_MODE.

    Without a choice in the configuration or there, a run is online where a key for the server is known.
    """
    if offline is not None:
        return "offline" if offline else "online"
    if os.environ.get("WANDB_MODE"):
        return None
    return "online" if key_is_known() else "offline"


def key_is_known() -> bool:
    """Whether a login was stored, where W&B looks for one: its environment variables, or a netrc file."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url).netloc
    path = Path(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))
    try:
        known = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(name) is not None for name in ({host, *_PUBLIC} if host in _PUBLIC else {host}))
