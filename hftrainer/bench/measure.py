"""Rounds in which every way runs once, what they took, and what the machine could do at best."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hftrainer.files import write_json
from hftrainer.version import __version__


@dataclass(frozen=True)
class Way:
    """One way to do the work: `run` does `units` of it (tokens, clips, rows), `read` bytes of weights at least."""

    name: str
    run: Callable[[], object]
    units: float
    read: float = 0.0


@dataclass(frozen=True)
class Result:
    """Seconds of a way in each round, and the median of the rounds' ratios to the first way, per unit of work."""

    name: str
    seconds: list[float]
    units: float
    units_per_second: float
    spread: float
    ratio: float
    bandwidth_share: float | None


def interleave(ways: Sequence[Way], rounds: int, warm_up: bool = True, bandwidth: float = 0.0) -> list[Result]:
    """Run every way once a round, in turn, so that what else the machine does hits all alike."""
    if warm_up:
        for way in ways:
            way.run()
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            _synchronize()
            start = time.perf_counter()
            way.run()
            _synchronize()
            seconds[way.name].append(time.perf_counter() - start)
    base = [t / ways[0].units for t in seconds[ways[0].name]]
    results = []
    for way in ways:
        times = seconds[way.name]
        middle = statistics.median(times)
        results.append(
            Result(
                name=way.name,
                seconds=times,
                units=way.units,
                units_per_second=way.units / middle,
                spread=(max(times) - min(times)) / middle,
                ratio=statistics.median(b / (t / way.units) for b, t in zip(base, times, strict=True)),
                bandwidth_share=way.read / middle / bandwidth if way.read and bandwidth else None,
            )
        )
    return results


def table(results: Sequence[Result], unit: str) -> str:
    """The results as a Markdown table."""
    lines = [
        f"| way | seconds | {unit}/s | times the first | spread | share of bandwidth |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        share = "" if r.bandwidth_share is None else f"{r.bandwidth_share:.0%}"
        middle = statistics.median(r.seconds)
        lines.append(
            f"| {r.name} | {middle:.3f} | {r.units_per_second:,.1f} | {r.ratio:.2f} | {r.spread:.0%} | {share} |"
        )
    return "\n".join(lines)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "hftrainer": __version__,
        "python": platform.python_version(),
    }


def read_bandwidth(device: torch.device, size: int = 2**28) -> float:
    """Bytes a second that a plain sum over `size` bytes of float32 reads, the best of five."""
    data = torch.ones(size // 4, device=device)
    best = float("inf")
    for _ in range(6):
        _synchronize()
        start = time.perf_counter()
        data.sum()
        _synchronize()
        best = min(best, time.perf_counter() - start)
    return size / best


def matmul_rate(device: torch.device, dtype: torch.dtype, n: int = 1024) -> float:
    """Floating-point operations a second of an n x n matrix product, the best of five."""
    a, b = torch.ones(n, n, device=device, dtype=dtype), torch.ones(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        _synchronize()
        start = time.perf_counter()
        a @ b
        _synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def save(path: str | os.PathLike[str] | None, what: str, settings: Mapping[str, Any], results: Sequence[Result],
         **more: Any) -> None:  # fmt: skip
    """Write everything to a JSON file, if there is to be one."""
    if path is not None:
        rows = [asdict(result) for result in results]
        write_json(
            Path(path), json.loads(json.dumps({"bench": what, **settings, **more, "results": rows}, default=str))
        )


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
