"""Seconds from the start of `hftrainer generate` to its first file, of one checkout or several in turn.

    git worktree add /tmp/before d9bf4a9
    python tools/first_file.py . --against /tmp/before --rounds 3

Runs are interleaved and ended at their first file; CPU seconds are those of the process until then.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPTS = (
    "a person walks forward, then waves with the left hand", "an exhausted person walks ahead",
    "a woman takes a bow", "someone runs as fast as possible",
)  # fmt: skip


def main() -> None:
    """Print each run, and the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--against", type=Path, help="an older checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="gotozero-nano")
    args = parser.parse_args()
    checkouts = [path.resolve() for path in (args.checkout, args.against) if path is not None]
    found: dict[Path, list[tuple[float, float]]] = {path: [] for path in checkouts}
    for number in range(args.rounds):
        for checkout in checkouts if number % 2 == 0 else checkouts[::-1]:
            found[checkout].append(first_file(checkout, args.model))
            print(f"{checkout}: {found[checkout][-1][0]:.2f} s CPU, {found[checkout][-1][1]:.2f} s", flush=True)
    medians = [[statistics.median(one) for one in zip(*found[path], strict=True)] for path in checkouts]
    for path, (cpu, wall) in zip(checkouts, medians, strict=True):
        print(f"{path}: median {cpu:.2f} s CPU, {wall:.2f} s")
    if len(medians) == 2:
        cpu, wall = (new / old for new, old in zip(*medians, strict=True))
        print(f"ratio: {cpu:.2f} of the CPU time, {wall:.2f} of the time")


def first_file(checkout: Path, model: str) -> tuple[float, float]:
    """CPU and wall seconds until a file lies in the output folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "hftrainer", "generate", *PROMPTS, "--model", model, "--out", str(out)]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not (out.is_dir() and any(name[0] != "." for name in os.listdir(out))):
                if process.poll() is not None:
                    raise SystemExit(f"{checkout}: generate ended with status {process.returncode} and no file")
                time.sleep(0.005)
            return _cpu_seconds(process.pid), time.perf_counter() - start
        finally:
            process.kill()
            process.wait()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
