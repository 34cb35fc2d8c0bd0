"""Run by tests: jobs in forks of a process that has imported everything once, so that a run takes as long as its work.

A job may be ended by SIGKILL at a moment: after so many seconds, or before its n-th operation on files below a folder.
The second kind finds the moments between two renames, which take microseconds and which a clock rarely hits.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import mmap
import os
import random
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrainer.cli import main as hftrainer

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link")
Lines = Sequence[Sequence[str]]
HUNG = 300.0  # seconds after which a job that nobody kills is killed: it would never end


@dataclass(frozen=True)
class Moment:
    """When to kill; `everyone`: the workers of the job at once with it, and not only the process that gets there.

    With `act` the job is not killed: `act(event, arguments)` is called before the operation, and with `lasting` before
    each one after it. What it raises is what the operation raises.
    """

    seconds: float | None = None
    operation: int | None = None
    everyone: bool = True
    act: Callable[[str, tuple[Any, ...]], None] | None = None
    lasting: bool = False

    def comes(self, count: int) -> bool:
        """Whether it is now, before operation `count`."""
        return self.operation is not None and (count == self.operation or (self.lasting and count > self.operation))


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status (-9 if it was killed), what it printed, operations on files, seconds."""

    status: int
    said: str
    operations: int
    seconds: float


class _Shared:
    """Numbers that a fork writes and its parent reads: operations so far."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        return int(struct.unpack("<q", self.memory[:8])[0])

    @count.setter
    def count(self, value: int) -> None:
        self.memory[:8] = struct.pack("<q", value)


def run(lines: Lines, folder: Path, moment: Moment | None = None, *, before: Callable[[], None] | None = None) -> Ended:
    """Run command lines one after the other in a fork; `folder`: where operations on files count. `before` is called
    in the fork, for limits and the like."""
    shared, start = _Shared(), time.monotonic()
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(lines, folder, moment, before, shared, said.fileno())
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        handle = os.pidfd_open(pid)
        try:
            left = moment.seconds if moment is not None and moment.seconds is not None else HUNG
            if not select.select([handle], [], [], left)[0]:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if moment is not None and moment.everyone else os.kill)(pid, signal.SIGKILL)
        finally:
            os.close(handle)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        text = said.read().decode(errors="replace")
    return Ended(status, text, shared.count, time.monotonic() - start)


def _child(
    lines: Lines, folder: Path, moment: Moment | None, before: Callable[[], None] | None, shared: _Shared, said: int
) -> None:
    status = 1
    try:
        os.setpgid(0, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
        _watch(folder, moment, shared)
        if before is not None:
            before()
        for line in lines:
            status = _command(line)
            if status:
                break
    except BaseException:  # noqa: BLE001 -- a child of fork must not return
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def _command(line: Sequence[str]) -> int:
    try:
        if line[0].startswith("tests."):  # a job that is no command: a module with `main(arguments)`
            return int(importlib.import_module(line[0]).main(line[1:]))
        return hftrainer(line)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1


def _watch(folder: Path, moment: Moment | None, shared: _Shared) -> None:
    """Count operations that change files below `folder`, in this process and its forks, and kill before one of them."""
    root, acting = str(folder), False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal acting
        if acting:
            return
        if event == "open":
            path, _, flags = arguments
            counts = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(root)
        else:
            counts = event in _CHANGES
        if not counts:
            return
        shared.count += 1
        if moment is None or not moment.comes(shared.count - 1):
            return
        if moment.act is None:
            (os.killpg if moment.everyone else os.kill)(
                os.getpgid(0) if moment.everyone else os.getpid(), signal.SIGKILL
            )
        else:
            acting = True
            try:
                moment.act(event, arguments)
            finally:
                acting = False

    sys.addaudithook(hook)


def import_what_it_imports(lines: Lines) -> None:
    """Run command lines in a fork and import here what they imported, so that later forks need not."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for line in lines:
                with contextlib.suppress(BaseException):
                    _command(line)
        with open(sink, "w") as out:
            out.write("\n".join(sys.modules))
        os._exit(0)
    os.close(sink)
    with open(source) as stream:
        names = stream.read().split("\n")
    os.waitpid(pid, 0)
    for name in names:
        if name and name not in sys.modules and name.partition(".")[0] in _LOADED:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()


_LOADED = ("hftrainer", "torch", "lightning", "numpy", "scipy", "transformers", "tokenizers", "safetensors", "einops",
           "tqdm", "PIL", "imageio_ffmpeg", "huggingface_hub", "sentencepiece", "lightning_fabric", "torchmetrics",
           "csv", "concurrent", "multiprocessing", "sklearn", "peft", "fsspec", "http", "email", "asyncio", "fastapi",
           "starlette", "uvicorn", "anyio", "pydantic", "httpx", "h11", "pyarrow", "pandas")  # fmt: skip


class ForkedWorker:
    """Stands for `subprocess.Popen` of ``python -m hftrainer ...`` where workers are started: a fork is enough."""

    def __init__(self, command: Sequence[str], *, env: dict[str, str], stdout: Any, stderr: Any):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.dup2(stdout.fileno(), 1)
                os.dup2(stdout.fileno(), 2)
                os.environ.clear()
                os.environ.update(env)
                status = _command(command[3:])
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def memory_limit(room: int) -> Callable[[], None]:
    """For `before`: at most `room` bytes more than are mapped."""

    def limit() -> None:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + room, resource.RLIM_INFINITY))

    return limit


def moments(took: float, operations: int, rng: random.Random) -> Moment:
    """A moment of a job that takes so long: every other one by the clock, every other one before an operation."""
    everyone = rng.random() < 0.7
    if rng.random() < 0.5 and operations:
        return Moment(operation=rng.randrange(operations), everyone=everyone)
    return Moment(seconds=rng.uniform(0, took), everyone=everyone)
