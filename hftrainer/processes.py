"""Processes by name: which is this one, whether another one still runs, and ending with one's parent."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

PARENT = "HFTRAINER_PARENT"  # environment variable: the process that its children end with
_PR_SET_PDEATHSIG = 1


def this_process() -> tuple[str, int, int]:
    """Where this process runs (eight hex digits: the machine since its start, or the container), its number, and when
    it began. A number is used again some day; the three together are not."""
    return _place(), os.getpid(), _start(os.getpid())


def is_running(pid: int, start: int) -> bool:
    """Whether the process `pid` of this place that began at `start` still runs."""
    if sys.platform == "linux":
        return _start(pid) == start and start != 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def die_with_parent(parent: int | None = None) -> None:
    """End this process when its parent ends, however that happens; `parent` is its number, by default who it is now.

    Linux sends a signal; elsewhere a thread looks every second.
    """
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    else:
        threading.Thread(target=_wait_for_end, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before this was set
        os.kill(os.getpid(), signal.SIGTERM)


def die_with_parent_if_told() -> None:
    """`die_with_parent` if the environment says so; children of this process are not told."""
    told = os.environ.pop(PARENT, "")
    if told.isdigit():
        die_with_parent(int(told))


def _wait_for_end(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


@lru_cache
def _place() -> str:
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if "ns" in path else Path(path).read_text(encoding="ascii"))
        except OSError:
            continue
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


def _start(pid: int) -> int:
    """When a process began, in the kernel's ticks; 0 if there is none, it is dead and not collected, or cannot be
    seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
