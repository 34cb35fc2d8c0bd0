"""``hftrainer bench serve``: a server under load, against the scheduler on the same prompts without one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hftrainer.bench.measure import machine, machine_line
from hftrainer.bench.processes import memory
from hftrainer.bench.serve_load import load, request
from hftrainer.files import write_json
from hftrainer.models.motion.motionmillion.engine.prompts import PromptRunner
from hftrainer.processes import PARENT

_WHO = ("a person", "someone", "a man", "a woman", "the character")
_WHAT = ("walks forward", "runs", "waves with the right hand", "takes a bow", "squats", "turns left", "dances", "kicks")
_HOW = ("", " slowly", " as an old person", " happily", " again and again")
_MIB = 1 << 20
_SOAKED = 1.0  # seconds of each motion of the soak: what a request leaves behind hardly depends on its length
Address = tuple[str, int]


@dataclass(frozen=True)
class ServeBench:
    """`requests` at the same moment; `soak`: requests for a second of motion, a thousand at a time, to watch memory."""

    model: str = "gotozero-nano"
    requests: int = 1000
    rows: int = 32
    rounds: int = 3
    soak: int = 0


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench serve``; 1 if a request was lost."""
    figures = run(ServeBench(args.model, args.requests, args.rows, args.rounds, args.soak), args.json)
    return 1 if figures["lost"] else 0


def run(bench: ServeBench, json_path: str | None = None) -> dict[str, Any]:
    """Measure, print, write the figures."""
    from hftrainer.zoo.load import load_pipeline

    pipeline = load_pipeline(bench.model)
    bodies = list(itertools.islice(_bodies(), bench.requests))
    rounds, lost, memories = [], [], []
    with tempfile.TemporaryDirectory() as folder, server(bench.model, Path(folder), bench) as (address, pid):
        for _ in range(bench.rounds):
            cpu = time.process_time()
            direct = _directly(pipeline, bodies, bench.rows)
            cpu = time.process_time() - cpu
            before, cpu_before = _metric(address, "hftrainer_codes_total"), _cpu_seconds(pid)
            plain = load(address, bodies, mixed=False)
            codes, cpu_served = _metric(address, "hftrainer_codes_total") - before, _cpu_seconds(pid) - cpu_before
            served = codes / plain.elapsed
            mixed = load(address, bodies, mixed=True)
            _until_idle(address)
            lost += plain.lost + mixed.lost
            rounds.append(
                {"direct": direct, "served": served, "ratio": served / direct, "plain": plain.figures(),
                 "mixed": mixed.figures(), "direct_cpu": cpu, "served_cpu": cpu_served, "codes": codes}
            )  # fmt: skip
        for start in range(0, bench.soak, 1000):
            count = min(1000, bench.soak - start)
            short = [{**body, "seconds": _SOAKED} for body in itertools.islice(_bodies(), count)]
            soaked = load(address, short, mixed=True)
            _until_idle(address)
            lost += soaked.lost
            memories.append(memory(pid).get("resident", 0) / _MIB)
    figures = {
        "bench": "serve", **asdict(bench), "machine": machine(torch.device("cpu")), "rounds": rounds, "lost": lost[:20],
        "resident_mib": [round(value, 1) for value in memories],
    }  # fmt: skip
    _print(bench, figures["machine"], rounds, lost, memories)
    if json_path is not None:
        write_json(json_path, figures)
    return figures


@contextlib.contextmanager
def server(model: str, jobs: Path, bench: ServeBench) -> Iterator[tuple[Address, int]]:
    """A server in a process of its own: its address and process number."""
    command = [
        sys.executable, "-m", "hftrainer", "serve", "--model", model, "--port", "0", "--jobs", str(jobs),
        "--rows", str(bench.rows), "--queue", str(4 * bench.requests + 1000), "--device", "cpu",
    ]  # fmt: skip
    told = {**os.environ, PARENT: str(os.getpid())}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=told)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://([\d.]+):(\d+)/", line)
        if found is None:
            raise ValueError(f"the server did not start: {line.strip() or f'status {process.wait()}'}")
        yield (found[1], int(found[2])), process.pid
    finally:
        process.terminate()
        process.communicate()  # waits, and closes the pipe


def _bodies() -> Iterator[dict[str, Any]]:
    """Requests without an end: texts of several lengths, each with seeds of its own."""
    for seed in itertools.count():
        for who, what, how in itertools.product(_WHO, _WHAT, _HOW):
            yield {"prompt": f"{who} {what}{how}", "seed": seed}


def _directly(pipeline: Any, bodies: list[dict[str, Any]], rows: int) -> float:
    """Codes a second of the scheduler, with texts encoded, but nothing decoded to frames or written."""
    captions = [body["prompt"] for body in bodies]
    wanted = [
        pipeline._bounded(pipeline.request(body["prompt"], body["seed"], pipeline.sampling), body["prompt"])
        for body in bodies
    ]
    encoder = pipeline.bundle.text_encoder
    began, codes = time.monotonic(), 0
    runner = PromptRunner(pipeline.bundle.ar, encoder, rows)
    for done in runner.run(wanted, encoder.positions(pipeline.count_tokens(captions)), pipeline.sampling):
        codes += len(done.codes)
    return codes / (time.monotonic() - began)


def _metric(address: Address, name: str) -> float:
    _, text = asyncio.run(request(address, "GET", "/metrics"))
    values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text.decode(), re.M)
    return sum(float(value) for value in values)


def _cpu_seconds(pid: int) -> float:
    """Processor time that all threads of a process have used; 0 where the system does not say."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return 0.0
    fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _until_idle(address: Address) -> None:
    """Wait until what clients left behind is gone; ``ValueError`` if a row never becomes free."""
    for _ in range(600):
        if _metric(address, "hftrainer_running_rows") + _metric(address, "hftrainer_waiting_motions") == 0:
            return
        time.sleep(0.1)
    raise ValueError("a minute after the last client has left, the server still makes motions: rows were not freed")


def _print(
    bench: ServeBench, about: dict[str, Any], rounds: list[dict[str, Any]], lost: list[str], memories: list[float]
) -> None:
    print(f"{bench.requests} requests at once, {bench.rows} rows, {bench.model}")
    print(f"{machine_line(about)}\n")
    if rounds:
        _print_rounds(rounds)
    print(f"lost: {len(lost)}")
    for sentence in lost[:5]:
        print(f"  {sentence}")
    if memories:
        print("resident memory after each thousand, MiB: " + ", ".join(f"{value:.0f}" for value in memories))


def _print_rounds(rounds: list[dict[str, Any]]) -> None:
    print("| round | scheduler, codes/s | served, codes/s | ratio | CPU, s | p50, s | p99, s | mixed p50, s | p99, s |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for number, one in enumerate(rounds, start=1):
        plain, mixed = one["plain"], one["mixed"]
        print(
            f"| {number} | {one['direct']:.0f} | {one['served']:.0f} | {one['ratio']:.2f} | "
            f"{one['direct_cpu']:.0f}, {one['served_cpu']:.0f} | {plain['p50']} | "
            f"{plain['p99']} | {mixed['p50']} | {mixed['p99']} |"
        )
    print(f"\nmedian ratio {statistics.median(one['ratio'] for one in rounds):.2f}")
