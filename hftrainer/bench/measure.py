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
    """One way to do the work: `run` does `units` of it (tokens, clips, rows).

    `read`: bytes that a run reads from memory at least, weights and caches; a function where only the run shows it.
    `flops`: operations of its matrix products at least.
    """

    name: str
    run: Callable[[], object]
    units: float
    read: float | Callable[[], float] = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class Result:
    """Seconds of a way in each round, and the median of the rounds' ratios to the first way, per unit of work.

    The shares are of what the machine reads and multiplies at best; None where a way does not say what it does.
    """

    name: str
    seconds: list[float]
    units: float
    units_per_second: float
    spread: float
    ratio: float
    read: float
    bandwidth_share: float | None
    matmul_share: float | None = None


def interleave(
    ways: Sequence[Way], rounds: int, warm_up: bool = True, bandwidth: float = 0.0, matmul: float = 0.0
) -> list[Result]:
    """Run every way once a round, in turn, so that what else the machine does hits all alike.

    `bandwidth` (bytes a second) and `matmul` (operations a second) are limits that were measured in this process.
    """
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
        read = way.read() if callable(way.read) else way.read
        results.append(
            Result(
                name=way.name,
                seconds=times,
                units=way.units,
                units_per_second=way.units / middle,
                spread=(max(times) - min(times)) / middle,
                ratio=statistics.median(b / (t / way.units) for b, t in zip(base, times, strict=True)),
                read=read,
                bandwidth_share=read / middle / bandwidth if read and bandwidth else None,
                matmul_share=way.flops / middle / matmul if way.flops and matmul else None,
            )
        )
    return results


def table(results: Sequence[Result], unit: str) -> str:
    """The results as a Markdown table; columns without any value are omitted."""
    columns: dict[str, Callable[[Result], str]] = {
        "way": lambda r: r.name,
        "seconds": lambda r: f"{statistics.median(r.seconds):.3f}",
        f"{unit}/s": lambda r: f"{r.units_per_second:,.1f}",
        "times the first": lambda r: f"{r.ratio:.2f}",
        "spread": lambda r: f"{r.spread:.0%}",
        "GB read": lambda r: f"{r.read / 1e9:.3g}" if r.read else "",
        "share of bandwidth": lambda r: _share(r.bandwidth_share),
        "share of matrix product": lambda r: _share(r.matmul_share),
    }
    cells = {title: [cell(result) for result in results] for title, cell in columns.items()}
    shown = {title: column for title, column in cells.items() if any(column)}
    rows = [list(shown), ["---"] * len(shown), *map(list, zip(*shown.values(), strict=True))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


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


def machine_line(about: Mapping[str, Any]) -> str:
    """What `machine` returned, as people read it."""
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}"
    load = "" if about["load"] is None else f", load {about['load']}"
    versions = f"torch {about['torch']}, hftrainer {about['hftrainer']}, Python {about['python']}"
    return f"{about['device']}, {threads}{load}; {versions}"


def read_bandwidth(device: torch.device, size: int | None = None) -> float:
    """Bytes a second that a plain sum over `size` bytes of float32 reads, the best of five; more than caches hold."""
    size = size or (2**32 if device.type == "cuda" else 2**28)
    data = torch.ones(size // 4, device=device)
    best = float("inf")
    for _ in range(6):
        _synchronize()
        start = time.perf_counter()
        data.sum()
        _synchronize()
        best = min(best, time.perf_counter() - start)
    return size / best


def matmul_rate(device: torch.device, dtype: torch.dtype, n: int | None = None) -> float:
    """Floating-point operations a second of an n x n matrix product, the best of five; one that fills the device."""
    n = n or (8192 if device.type == "cuda" else 1024)
    a, b = torch.ones(n, n, device=device, dtype=dtype), torch.ones(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        _synchronize()
        start = time.perf_counter()
        a @ b
        _synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def against_limits(
    ways: Sequence[Way], rounds: int, device: torch.device, dtype: torch.dtype
) -> tuple[list[Result], dict[str, Any]]:
    """`interleave`, beside what the machine reads and multiplies at best; what to `save` of both."""
    limits = {"bandwidth": read_bandwidth(device), "matmul": matmul_rate(device, dtype)}
    results = interleave(ways, rounds, bandwidth=limits["bandwidth"], matmul=limits["matmul"])
    return results, {"machine": machine(device), "limits": limits}


def show(title: str, results: Sequence[Result], unit: str, facts: Mapping[str, Any], note: str = "") -> None:
    """Print what `against_limits` gave."""
    limits = facts["limits"]
    print(f"{title}\n{machine_line(facts['machine'])}")
    print(f"read bandwidth {limits['bandwidth'] / 1e9:.1f} GB/s, matrix product {limits['matmul'] / 1e9:.0f} GFLOP/s")
    print(f"{note}\n\n{table(results, unit)}" if note else f"\n{table(results, unit)}")


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
