"""What differs between the configuration that a run was trained with and the one that is to continue it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hftrainer.config import ConfigError, Experiment, typed
from hftrainer.registry import CALLBACKS, OPTIMIZERS

# These say where and how a run goes, not what is computed; everything else does.
FREE = (
    "output_dir", "num_workers", "prefetch", "max_bad_samples", "resume", "loggers", "callbacks",
    "trainer.accelerator", "trainer.strategy", "trainer.offload", "trainer.activation_checkpointing", "trainer.compile",
    "trainer.val_every_n_steps", "trainer.limit_val_batches", "trainer.log_every_n_steps",
    "trainer.checkpoint_every_n_steps", "trainer.keep_last_checkpoints", "trainer.deterministic",
    "trainer.progress_bar", "trainer.on_nan", "trainer.max_skipped_in_a_row", "trainer.profiler",
    "trainer.profile_steps", "data.in_memory",
)  # fmt: skip
# A checkpoint cannot be continued with another one of these.
FIXED = ("task.name", "task.optimizer.name", "model.name")
# The rows of a step are their product.
STEP_SIZE = ("trainer.accumulate_grad_batches", "trainer.devices", "trainer.num_nodes")
LENGTH = ("trainer.max_steps", "trainer.max_epochs")
EARLY_STOP = "early_stop"
_ABSENT = "(not there)"


@dataclass(frozen=True)
class Change:
    """A field that was `before` and is `now`. `kind`: "free", "mathematics" or "fixed"."""

    path: str
    before: Any
    now: Any
    kind: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before} -> {self.now}"


def compare(
    before: Mapping[str, Any], now: Mapping[str, Any], processes_before: int | None, processes: int
) -> list[Change]:
    """The differences of two resolved configurations, run by so many processes."""
    old, new = dict(_flat(before)), dict(_flat(now))
    paths = [path for path in [*old, *(p for p in new if p not in old)] if old.get(path) != new.get(path)]
    same_step = _rows(old, processes_before or processes) == _rows(new, processes)
    changes = [
        Change(path, old.get(path, _ABSENT), new.get(path, _ABSENT), _kind(path, now, same_step)) for path in paths
    ]
    if not same_step and not any(change.path in (*STEP_SIZE, "data.batch_size") for change in changes):
        changes.append(Change("trainer.devices", f"{processes_before} processes", f"{processes}", "mathematics"))
    return changes


def refuse(changes: Sequence[Change], allow: Sequence[str], *, run: str) -> list[Change]:
    """Raise `ConfigError` with the list of what may not change; else the changes of the mathematics, to be applied.

    `allow`: fields, or sections that they are in.
    """
    known = [change.path for change in changes] + [EARLY_STOP]
    fixed = [change for change in changes if change.kind == "fixed"]
    if fixed:
        raise ConfigError(
            f"the checkpoint of {run} cannot be continued with another {fixed[0]}; start a new run from its weights "
            "(resume=never, another output_dir, model.init)"
        )
    refused = [c for c in changes if c.kind == "mathematics" and not any(_inside(c.path, one) for one in allow)]
    if refused:
        names = ",".join(change.path for change in refused)
        raise ConfigError(
            f"{run} was trained with other settings than these:",
            *(f"  {change}" for change in refused),
            f"To apply them from here on: 'resume.allow=[{names}]'. To keep that run unchanged: --new, or another "
            "output_dir",
        )
    idle = [one for one in allow if one != EARLY_STOP and not any(_inside(path, one) for path in known)]
    if idle and not changes:
        return []
    return [change for change in changes if change.kind == "mathematics"]


def resolved_again(config: Mapping[str, Any], resolve: Any) -> Mapping[str, Any]:
    """A recorded configuration with the defaults of fields that came since; as it is where that cannot be done."""
    try:
        resolved: Mapping[str, Any] = resolve(typed(Experiment, config))
        return resolved
    except ConfigError:
        return config


def _kind(path: str, now: Mapping[str, Any], same_step: bool) -> str:
    if path in FIXED:
        return "fixed"
    if path in STEP_SIZE:
        return "free" if same_step else "mathematics"
    if path in LENGTH:
        return "mathematics" if _uses_total(now) else "free"
    if path.startswith("callbacks.") and _trains(path.split(".")[1]):
        return "mathematics"
    if path.startswith("data.val_") or any(_inside(path, one) for one in FREE):
        return "free"
    return "mathematics"


def _uses_total(config: Mapping[str, Any]) -> bool:
    """Whether the learning rate depends on how many steps there are in all."""
    optimizer = config["task"].get("optimizer")
    if not isinstance(optimizer, Mapping) or "schedule" not in optimizer:
        return True
    chosen = OPTIMIZERS.part(optimizer, path="task.optimizer").config.schedule
    return bool(getattr(chosen.registry.get(chosen.name), "uses_total", True))


def _trains(name: str) -> bool:
    """Whether a callback has a part in what is trained."""
    try:
        return bool(getattr(CALLBACKS.get(name), "changes_training", False))
    except ConfigError:
        return False


def _rows(flat: Mapping[str, Any], processes: int) -> int:
    rows = flat.get("data.batch_tokens") or flat.get("data.batch_size") or 1
    return int(rows) * processes * int(flat.get("trainer.accumulate_grad_batches", 1))


def _inside(path: str, section: str) -> bool:
    return path == section or path.startswith(f"{section}.")


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        where = f"{path}.{key}" if path else str(key)
        if where in ("callbacks", "loggers") and isinstance(value, (list, tuple)):
            value = {str(one.get("name")): one for one in value}
        if isinstance(value, Mapping) and value:
            yield from _flat(value, where)
        else:
            yield where, value
