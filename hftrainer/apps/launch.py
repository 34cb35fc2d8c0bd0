"""Several processes of one command, each with its part of the work: which is this one's, and starting all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from hftrainer.processes import PARENT

_TAIL = 8


def shard_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Shard and number of shards that torchrun (RANK, WORLD_SIZE) or a SLURM array gives this process; None without."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if "SLURM_ARRAY_TASK_ID" in environment and "SLURM_ARRAY_TASK_COUNT" in environment:
        first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{n}", d)) for n, d in (("MIN", 0), ("STEP", 1)))
        task, total = int(environment["SLURM_ARRAY_TASK_ID"]), int(environment["SLURM_ARRAY_TASK_COUNT"])
        index, left = divmod(task - first, step)
        if left or not 0 <= index < total:
            raise ValueError(
                f"SLURM task {task} is not in its array of {total} from {first} in steps of {step}; "
                "give --num-shards and --shard-index"
            )
        return index, total
    return None


def parts(shards: Sequence[int], workers: int) -> list[list[int]]:
    """The shards of each worker, one after another in turn; workers without any are left out."""
    return [list(shards[worker::workers]) for worker in range(workers) if list(shards[worker::workers])]


def visible_devices(workers: int, device: str, environment: Mapping[str, str] = os.environ) -> list[dict[str, str]]:
    """Environment of each worker: one GPU each, of those that this process may see."""
    if device == "cpu":
        return [{} for _ in range(workers)]
    given = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if "CUDA_VISIBLE_DEVICES" not in environment:
        import torch

        given = [str(number) for number in range(torch.cuda.device_count())]
    if workers > len(given):
        raise ValueError(
            f"{workers} workers requested, but {len(given)} GPUs are visible; use fewer workers, or --device cpu"
        )
    return [{"CUDA_VISIBLE_DEVICES": given[worker]} for worker in range(workers)]


def run_workers(
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    logs: Sequence[Path],
    *,
    wait: float = 0.5,
) -> list[int]:
    """Run `hftrainer` with each command's arguments, all at once; their exit statuses. Output goes to the logs.

    One that fails does not stop the others, and its last lines are printed. If this process ends early, however it
    ends, so do they.
    """
    running: list[subprocess.Popen[bytes]] = []
    streams: list[IO[bytes]] = []
    try:
        for arguments, extra, log in zip(commands, environments, logs, strict=True):
            log.parent.mkdir(parents=True, exist_ok=True)
            streams.append(open(log, "ab"))
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "hftrainer", *arguments],
                    env={**_without_ranks(os.environ), **extra, PARENT: str(os.getpid())},
                    stdout=streams[-1],
                    stderr=subprocess.STDOUT,
                )
            )
        while any(process.poll() is None for process in running):
            time.sleep(wait)
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            process.wait()
        for stream in streams:
            stream.close()
    for number, (process, log) in enumerate(zip(running, logs, strict=True)):
        if process.returncode:
            print(f"worker {number} ended with status {process.returncode}; {log} ends:", file=sys.stderr)
            print("\n".join(f"  {line}" for line in tail(log)), file=sys.stderr)
    return [process.returncode for process in running]


def tail(path: Path) -> list[str]:
    """The last lines of a log."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]


def _without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """Workers are told their shards; what tells this process its own must not reach them."""
    ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    return {name: value for name, value in environment.items() if name not in ours}
