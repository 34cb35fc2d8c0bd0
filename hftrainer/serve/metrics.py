"""Counters, gauges and histograms in Prometheus's text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)  # seconds
Labels = tuple[tuple[str, str], ...]
_HELP = {
    "hftrainer_requests_total": ("counter", "HTTP requests by route, method and status."),
    "hftrainer_request_seconds": ("histogram", "Seconds from the first byte of a request to the last of its answer."),
    "hftrainer_motions_total": ("counter", "Motions by how they ended."),
    "hftrainer_motion_seconds": ("histogram", "Seconds from a motion's request to its end."),
    "hftrainer_codes_total": ("counter", "Codes of finished motions."),
    "hftrainer_waiting_motions": ("gauge", "Motions that wait for a row."),
    "hftrainer_running_rows": ("gauge", "Rows that decode a motion."),
    "hftrainer_rows": ("gauge", "Rows that can decode a motion."),
    "hftrainer_live_sessions": ("gauge", "Live sessions."),
    "hftrainer_jobs": ("gauge", "Jobs that are kept."),
    "process_resident_memory_bytes": ("gauge", "Resident memory."),
}


class Metrics:
    """Counters and histograms. `gauges` are functions, called when the metrics are requested."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, Labels], float] = defaultdict(float)
        self._times: dict[tuple[str, Labels], list[float]] = {}
        self.gauges: dict[str, Callable[[], Mapping[Labels, float]]] = {
            "process_resident_memory_bytes": lambda: {(): float(resident_bytes())}
        }

    def count(self, name: str, by: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += by

    def time(self, name: str, seconds: float, **labels: str) -> None:
        """Add to a histogram."""
        with self._lock:
            cells = self._times.setdefault((name, tuple(sorted(labels.items()))), [0.0] * (len(BOUNDS) + 2))
            cells[bisect_left(BOUNDS, seconds)] += 1
            cells[-1] += seconds

    def text(self) -> str:
        """What is sent to Prometheus."""
        with self._lock:
            counts, times = dict(self._counts), {key: list(cells) for key, cells in self._times.items()}
        lines: dict[str, list[str]] = {name: [] for name in _HELP}
        for (name, labels), value in counts.items():
            lines[name].append(f"{name}{_spelt(labels)} {value:.0f}")
        for name, ask in self.gauges.items():
            lines[name] += [f"{name}{_spelt(labels)} {value:.0f}" for labels, value in ask().items()]
        for (name, labels), cells in times.items():
            total = 0.0
            for bound, cell in zip((*BOUNDS, float("inf")), cells[:-1], strict=True):
                total += cell
                edge = "+Inf" if bound == float("inf") else f"{bound:g}"
                lines[name].append(f"{name}_bucket{_spelt((*labels, ('le', edge)))} {total:.0f}")
            lines[name] += [f"{name}_sum{_spelt(labels)} {cells[-1]:.6f}", f"{name}_count{_spelt(labels)} {total:.0f}"]
        out = []
        for name, found in lines.items():
            if found:
                kind, what = _HELP[name]
                out += [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *found]
        return "\n".join(out) + "\n"


def _spelt(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0
