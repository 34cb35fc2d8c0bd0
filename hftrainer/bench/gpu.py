"""``hftrainer bench gpu``: what there is to learn of a GPU in a few minutes, useful when cut off at any point.

Stages run in processes with limits of their own, the most important first. Every figure is a line of gpu.jsonl as soon
as it is known, and summary.md is written again after each. A stage that fails or runs over its time is a line, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hftrainer.bench.gpu_common import Figures, Settings
from hftrainer.bench.gpu_stages import STAGES, run_stage
from hftrainer.files import write_text

LINES, SUMMARY = "gpu.jsonl", "summary.md"


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench gpu``; 1 if a stage failed."""
    if not args.pretend and not torch.cuda.is_available():
        raise ValueError("bench gpu needs a CUDA device, and torch sees none; --pretend runs all stages small on a CPU")
    return run(Settings(args.pretend, args.size), args.out, 60 * args.minutes)


def run(settings: Settings, out: Path, seconds: float) -> int:
    """All stages in `seconds`; how many failed, at most 1."""
    out.mkdir(parents=True, exist_ok=True)
    end, lines = time.monotonic() + seconds, list[Figures]()
    with open(out / LINES, "w", encoding="utf-8") as stream:
        for name, (limit, _) in STAGES.items():
            start = time.monotonic()
            for figures in _stage(name, settings, min(limit, end - start)):
                lines.append({"stage": name, **figures})
                stream.write(json.dumps(lines[-1]) + "\n")
                stream.flush()
                print(json.dumps(lines[-1]), flush=True)
                write_text(out / SUMMARY, summary(lines, settings))
    failed = [line for line in lines if "failed" in line]
    print(f"{len(lines)} figures in {out / LINES}, {len(failed)} stages failed; read {out / SUMMARY}")
    return int(bool(failed))


def summary(lines: list[Figures], settings: Settings) -> str:
    """The figures as a Markdown page, a table a stage."""
    text = ["# bench gpu" + (" (pretend: numbers mean nothing)" if settings.pretend else ""), ""]
    for name in STAGES:
        rows = [
            {k: v for k, v in line.items() if k not in ("stage", "table")} for line in lines if line["stage"] == name
        ]
        if not rows:
            continue
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text += [f"## {name}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        text += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows] + [""]
    return "\n".join(text)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "/")


def _stage(name: str, settings: Settings, limit: float) -> Iterator[Figures]:
    if limit < 1:
        yield {"failed": "no time was left"}
    elif settings.pretend:  # no device, so nothing that a process of its own would keep apart
        yield from run_stage(name, settings)
    else:
        command = [sys.executable, "-m", "hftrainer.bench.gpu_stages", name, json.dumps(asdict(settings))]
        yield from watch(command, limit)


def watch(command: list[str], limit: float) -> Iterator[Figures]:
    """The figures that a process prints within `limit` seconds, and a line that says so if it fails or takes longer."""
    # with what it starts itself (tests) it is one group, which ends together
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(limit, stop)
    timer.start()
    said: list[str] = []
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("figures "):
                    yield json.loads(line.removeprefix("figures "))
                else:
                    said = [*said[-30:], line]
            status = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                _kill(process)
    if late.is_set():
        yield {"failed": f"took longer than its {limit:.0f} s"}
    elif status:
        yield {"failed": f"status {status}: {''.join(said)[-1500:].strip()}"}


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
