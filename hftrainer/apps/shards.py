"""A set made by several processes: which shards run here, one worker each, and whether all is there at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hftrainer.apps.generate_set import Progress, Say, SetJob, SetResult, look, make_shards, silent
from hftrainer.apps.launch import parts, run_workers, visible_devices

Command = Callable[[Sequence[int], int], Sequence[str]]


def run_shards(
    job: SetJob,
    command: Command,
    *,
    workers: int = 1,
    total: int | None = None,
    base: int | None = None,
    logs: Path | None = None,
    say: Say = silent,
    progress: Progress = iter,
) -> SetResult:
    """Make the set, or from shard `base` on as many shards of `total` as there are workers; `job.claim` comes before.

    `command(shards, total)`: arguments of `hftrainer` by which a worker makes these shards; one worker is this process.
    Raises ``ValueError`` for shards that do not exist and for more workers than GPUs.
    """
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    total = total or workers
    here = list(range(total)) if base is None else list(range(base, min(total, base + workers)))
    if not here:
        raise ValueError(f"--shard-base {base}: shards are numbered 0 to {total - 1}")
    if workers == 1:
        return make_shards(job, here, total, say=say, progress=progress)
    split = parts(here, workers)
    places = visible_devices(len(split), "cpu" if job.settings.device == "cpu" else "cuda")
    logs = logs or job.out.parent / "_logs"
    files = [logs / f"{job.out.name}_s{part[0]}of{total}.log" for part in split]
    say(f"{len(job.requests)} motions in {total} shards by {len(split)} processes; logs are in {logs}")
    run_workers([command(part, total) for part in split], places, files)
    return look(job, here, total)


def report_lines(result: SetResult, shown: int = 10) -> list[str]:
    """What became of the set, for people."""
    lines = [f"failed: {name}: {reason}" for name, reason in list(result.failed.items())[:shown]]
    if result.failed:
        return [*lines, f"{len(result.failed)} motions are missing; run the command again"]
    if result.missing_elsewhere:
        here, others = (",".join(map(str, numbers)) for numbers in (result.here, result.elsewhere))
        return [
            f"shards {here} are done; {result.missing_elsewhere} of {result.wanted} motions are still missing, those "
            f"of shards {others}: run them elsewhere with --shard-base, or all of them here without it"
        ]
    return [f"all {result.wanted} motions are in {result.out}"]
