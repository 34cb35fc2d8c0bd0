"""Work in fresh processes: what a child tells about itself, and its memory, looked at every few milliseconds.

A child prints "phase NAME" where a part of its work begins and "figures JSON" at the end. What it takes after the phase
"limits" began does not count: there it measures the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hftrainer.bench.measure import machine, machine_line, read_bandwidth
from hftrainer.files import write_json

GIB = 1 << 30
Figures = dict[str, Any]
_FIELDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file"}
_EVERY = 0.004  # seconds between two looks


def interleave_processes(module: str, ways: Mapping[str, Mapping[str, Any]], rounds: int) -> dict[str, list[Figures]]:
    """Run ``python -m MODULE SETTINGS`` for the settings of every way, in turn, `rounds` times; figures by way."""
    if not Path("/proc/self/status").is_file():
        raise ValueError("memory of other processes is read from Linux's /proc, which this system does not have")
    found: dict[str, list[Figures]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, settings in ways.items():
            found[name].append(watch([sys.executable, "-m", module, json.dumps(settings)]))
    return found


def watch(command: Sequence[str]) -> Figures:
    """Run the child; its figures, and the peaks of its memory in each of its phases, in GiB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    peaks: dict[str, dict[str, int]] = {}
    phase = ["start"]

    def look() -> None:
        while process.poll() is None:
            peak = peaks.setdefault(phase[0], {})
            for kind, value in memory(process.pid).items():
                peak[kind] = max(peak.get(kind, 0), value)
            time.sleep(_EVERY)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    figures: Figures = {}
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("phase "):
                phase[0] = line.split()[1]
            elif line.startswith("figures "):
                figures |= json.loads(line.removeprefix("figures "))
            else:
                print(line, end="")
    status = process.returncode
    watcher.join()
    if status != 0:
        raise ValueError(f"the measured process ended with status {status}; its own message is above")
    peaks.pop("limits", None)
    for name, peak in peaks.items():
        if name != "start":
            figures |= {f"{name}_peak_{kind}_gib": value / GIB for kind, value in peak.items()}
    figures["peak_resident_gib"] = max(peak.get("resident", 0) for peak in peaks.values()) / GIB
    return figures


def memory(pid: int | str = "self") -> dict[str, int]:
    """Bytes of a process by kind; empty where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {kind: int(found[field].split()[0]) * 1024 for field, kind in _FIELDS.items() if field in found}


def bytes_read() -> int:
    """Bytes that this process got from files so far: those it asked for, and those of mapped files in its memory."""
    asked = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(asked["rchar"]) + memory()["file"]


def phase(name: str) -> None:
    """In a child: a part of the work begins."""
    print(f"phase {name}", flush=True)


def tell(figures: Figures, device: str) -> None:
    """In a child process, with the work done and its memory released: measure the machine and report the results."""
    phase("limits")
    place = torch.device(device)
    print(f"figures {json.dumps({**figures, 'bandwidth': read_bandwidth(place), 'machine': machine(place)})}")


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    """The median of every figure that is a number."""
    names = [name for name, value in rounds[0].items() if isinstance(value, (int, float))]
    return {name: statistics.median(figures[name] for figures in rounds) for name in names}


def figures_table(ways: Mapping[str, Sequence[Figures]]) -> str:
    """A Markdown table: a row for each figure, median and spread of each way, and the ratio to the first way."""
    first = next(iter(ways))
    titles = ["figure"]
    for name in ways:
        titles += [name, "spread"] if name == first else [name, "spread", "times the first"]
    rows = []
    for figure in dict.fromkeys(figure for rounds in ways.values() for figure in medians(rounds)):
        row = [figure]
        for name, rounds in ways.items():
            values = [figures[figure] for figures in rounds if figure in figures]
            base = [figures[figure] for figures in ways[first] if figure in figures]
            middle = statistics.median(values) if values else None
            row.append("" if middle is None else f"{middle:,.4g}")
            row.append(f"{(max(values) - min(values)) / abs(middle):.0%}" if middle else "")
            if name != first:
                pairs = [b / a for a, b in zip(base, values, strict=False) if a]
                row.append(f"{statistics.median(pairs):.2f}" if pairs else "")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows])


def missed(figures: Mapping[str, float], bars: Mapping[str, float | None]) -> bool:
    """Print which figures are above their bars, if any."""
    broken = {name: bar for name, bar in bars.items() if bar is not None and not figures.get(name, bar + 1) <= bar}
    for name, bar in broken.items():
        print(f"limit exceeded: {name} is {figures.get(name)}, the limit is {bar}", file=sys.stderr)
    return bool(broken)


def report(
    what: str, settings: Mapping[str, Any], ways: Mapping[str, list[Figures]], json_path: str | None
) -> dict[str, float]:
    """Print the table and write everything; the medians of the first way, which are also top-level keys of the file."""
    first = next(iter(ways.values()))
    middle = medians(first)
    print(f"{len(first)} rounds, each of fresh processes\n{machine_line(first[0]['machine'])}\n")
    print(figures_table(ways))
    if json_path is not None:
        everything = {"bench": what, **settings, "machine": first[0]["machine"], **middle, "ways": dict(ways)}
        write_json(json_path, json.loads(json.dumps(everything, default=str)))
    return middle
