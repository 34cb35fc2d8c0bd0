"""Give readers many inputs; an exception that is not documented, more than 10 s or more than 2 GB is a find.

    python -m tests.fuzz.run all --runs 100000        the same inputs for the same --seed
    python -m tests.fuzz.run bvh json --first 5000    from input 5000 on
    python -m tests.fuzz.guided npy --runs 1000000    guided by what is covered, where atheris is installed

Inputs are tried in forks of this process, a few thousand each: what they leave behind goes with them, and one that
crashes or never returns costs its fork only. What is found is written to tests/fuzz/corpus/READER/, which the default
tests read from then on.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import tests.fuzz.folders  # noqa: F401 -- adds its readers
from tests.fuzz.readers import READERS

CORPUS = Path(__file__).parent / "corpus"
SECONDS, BYTES = 10, 2 << 30
FORK, STUCK = 5000, 60  # inputs of a fork; seconds after which one that does not answer to the alarm is killed
_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


class TooLong(BaseException):
    """More than `SECONDS`; no `Exception`, so that no reader takes it for damage."""


def try_input(reader: str, data: bytes, folder: Path) -> str | None:
    """What is wrong with how the reader takes these bytes: the traceback's end, or None."""
    found = READERS[reader]
    path = folder / found.name
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process's own time: other jobs may slow it down
    try:
        found.read(path)
    except (ValueError, OSError) as error:
        return "the message has a control character" if "\x1b" in str(error) else None
    except TooLong:
        return f"more than {SECONDS} s"
    except Exception:  # noqa: BLE001 -- which is what is looked for
        return traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def limits() -> None:
    """An alarm for time, and no more than 2 GB beyond what the interpreter has mapped."""

    def ring(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGPROF, ring)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def make_input(reader: str, seed: int, number: int) -> bytes:
    """Input `number`: a pure function of its arguments."""
    return READERS[reader].input(random.Random(f"{reader} {seed} {number}"))


class Progress:
    """Memory that a fork and its parent share: the input that is tried, and how many inputs were accepted."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 16)

    def read(self) -> tuple[int, int]:
        return struct.unpack("<qq", self.memory[:16])  # type: ignore[return-value]

    def write(self, number: int, accepted: int) -> None:
        self.memory[:16] = struct.pack("<qq", number, accepted)


def _try_all(reader: str, seed: int, first: int, last: int, progress: Progress, answers: int) -> None:
    """In a fork: try the inputs, and send what is found down the pipe as lines of JSON."""
    limits()
    accepted = progress.read()[1]
    counting = READERS[reader].read

    def count(path: Path) -> None:
        nonlocal accepted
        counting(path)
        accepted += 1

    READERS[reader].read = count
    kinds: set[str] = set()
    with tempfile.TemporaryDirectory(dir=_MEMORY) as place, open(answers, "w") as out:
        for number in range(first, last):
            progress.write(number, accepted)
            wrong = try_input(reader, make_input(reader, seed, number), Path(place))
            if wrong is not None and kind_of(wrong) not in kinds:
                kinds.add(kind_of(wrong))
                out.write(json.dumps([number, wrong]) + "\n")
                out.flush()
        progress.write(last, accepted)


def kind_of(wrong: str) -> str:
    """Finds of one kind come from one line with one error."""
    lines = [line.strip() for line in wrong.strip().splitlines()]
    places = [line for line in lines if line.startswith("File ")]
    return f"{places[-1] if places else ''} {lines[-1].partition(':')[0]}"


def fork_and_try(
    reader: str, seed: int, first: int, last: int, progress: Progress
) -> tuple[int, list[tuple[int, str]]]:
    """Where to go on, and what a fork found."""
    source, sink = os.pipe()
    progress.write(first, progress.read()[1])
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        status = 1
        with contextlib.suppress(KeyboardInterrupt):
            _try_all(reader, seed, first, last, progress, sink)
            status = 0
        os._exit(status)
    os.close(sink)
    seen, since, killed = first, time.monotonic(), False
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.1)
        number = progress.read()[0]
        if number != seen:
            seen, since = number, time.monotonic()
        elif time.monotonic() - since > STUCK and not killed:
            killed = True
            os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open(source) as stream:
        found = [(int(number), str(wrong)) for number, wrong in map(json.loads, stream)]
    number = progress.read()[0]
    if number < last:
        found.append(
            (number, f"more than {STUCK} s in one call" if killed else f"the process ended with status {status}")
        )
        return number + 1, found
    return last, found


def fuzz(reader: str, runs: int, seed: int = 0, first: int = 0) -> dict[str, Any]:
    """Try inputs `first` to `first + runs`; what there is to say of it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    READERS[reader].seeds  # made before the forks  # noqa: B018
    gc.freeze()
    found: dict[str, tuple[int, str]] = {}
    progress, start, at = Progress(), time.monotonic(), first
    while at < first + runs:
        at, new = fork_and_try(reader, seed, at, min(at + FORK, first + runs), progress)
        for number, wrong in new:
            if kind_of(wrong) not in found:
                found[kind_of(wrong)] = number, wrong
                keep(reader, make_input(reader, seed, number), f"input {number}\n{wrong}")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    result = {"reader": reader, "inputs": runs, "accepted": progress.read()[1], "finds": len(found),
              "cpu": round(used, 1),
              "seconds": round(time.monotonic() - start, 1), "seed": seed, "first": first}  # fmt: skip
    print(f"{reader:16} {runs:8} inputs {result['accepted']:8} accepted {result['cpu']:9.1f} s   "
          f"finds: {len(found)}", flush=True)  # fmt: skip
    return result


def keep(reader: str, data: bytes, wrong: str) -> None:
    """Put an input into the corpus."""
    path = CORPUS / reader / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"--- {reader}: {path}\n{wrong}", flush=True)


def main(arguments: Any = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="+", choices=["all", *READERS], metavar="reader")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--results", type=Path, help="append a line of JSON for each reader")
    args = parser.parse_args(arguments)
    finds = 0
    with contextlib.suppress(KeyboardInterrupt):
        for reader in READERS if "all" in args.readers else args.readers:
            result = fuzz(reader, args.runs, args.seed, args.first)
            finds += result["finds"]
            if args.results is not None:
                with open(args.results, "a") as stream:
                    stream.write(json.dumps(result) + "\n")
        return 1 if finds else 0
    return 130


if __name__ == "__main__":
    sys.exit(main())
