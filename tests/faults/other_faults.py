"""Run by tests: faults that a job survives to tell of; it says what was wrong in a sentence, and a rerun ends as ever.

    python -m tests.faults.other_faults all --place /tmp/place --tries 20

From a random operation on the disk is full or read-only, a file is deleted underfoot, there is little memory, or the
same command runs twice at once. A run under a fault ends with status 0, or 1 and a sentence; never with a traceback.
The run after it has to give what an undisturbed one gives.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.forks import Ended, Moment, import_what_it_imports, memory_limit, run
from tests.faults.jobs import JOBS, Job, copied, prepare
from tests.faults.kill_jobs import check, content, done


@dataclass
class Trial:
    """A job with what an undisturbed run of it gives; `seen` counts how the disturbed ones ended."""

    name: str
    given: Path
    out: Path
    clean: dict[str, str] = field(default_factory=dict)
    timed: set[str] = field(default_factory=set)
    operations: int = 0

    @property
    def job(self) -> Job:
        return JOBS[self.name]

    @property
    def lines(self) -> list[list[str]]:
        return self.job.lines(self.given, self.out)

    def begin(self) -> None:
        """Two undisturbed runs."""
        import_what_it_imports(self.lines)
        shutil.rmtree(self.out, ignore_errors=True)
        found = []
        for _ in range(2):
            copied(self.job, self.given, self.out)
            ended = done(run(self.lines, self.out))
            found.append(content(self.out))
            shutil.rmtree(self.out)
        self.clean, self.operations = found[0], ended.operations
        self.timed = {name for name in found[0] if found[1][name] != found[0][name]}

    def restore(self) -> None:
        """Put back files of `given` that were deleted."""
        spare = self.given.with_name("spare")
        for path in spare.rglob("*"):
            target = self.given / path.relative_to(spare)
            if path.is_file() and not target.exists():
                shutil.copy2(path, target)

    def end(self, when: str) -> None:
        """The run after a fault, compared. What somebody deleted it need not bring back if it says so."""
        deleted = ", deleted," in when
        if self.name != "convert" or not (self.out / "made").is_dir():
            ended = run(self.lines, self.out)
            if deleted and self.job.refused and ended.status == 1 and self.job.refused[0] in ended.said:
                ended = run([[*line, *self.job.refused] for line in self.lines], self.out)
            if deleted and self.job.ends is not None and self.job.ends in ended.said:
                shutil.rmtree(self.out)
                return
            done(ended)
        found, wanted = content(self.out), self.clean
        if deleted and self.job.spare is not None:
            wanted = {name: digest for name, digest in wanted.items() if name in found or self.job.spare not in name}
        check(when, found, wanted, self.timed)
        shutil.rmtree(self.out)


def told(ended: Ended, when: str) -> str:
    """How a disturbed run ended; raises ``AssertionError`` for anything but success or a sentence."""
    assert "Traceback" not in ended.said, f"{when}: {ended.said[-3000:]}"
    assert ended.status in (0, 1, 3), f"{when}: status {ended.status}: {ended.said[-1500:]}"
    assert ended.status == 0 or ended.said.strip(), f"{when}: nothing was said"
    return "done" if ended.status == 0 else "said"


# --- faults -----------------------------------------------------------------------------------------------------------


def full(trial: Trial, rng: random.Random) -> str:
    """No file or folder can be made from some operation on."""

    def act(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    moment = Moment(operation=rng.randrange(max(1, trial.operations)), act=act, lasting=True)
    ended = run(trial.lines, trial.out, moment)
    if ended.status:
        assert "No space" in ended.said or "cannot write" in ended.said, ended.said[-1500:]
    return told(ended, f"{trial.name}, full disk at {moment.operation}")


def read_only(trial: Trial, rng: random.Random) -> str:
    """Nothing can be changed from some operation on; every other time from the first."""

    def act(event: str, arguments: tuple[Any, ...]) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))

    first = rng.choice((0, rng.randrange(max(1, trial.operations))))
    ended = run(trial.lines, trial.out, Moment(operation=first, act=act, lasting=True))
    return told(ended, f"{trial.name}, read-only at {first}")


def deleted(trial: Trial, rng: random.Random) -> str:
    """A file that is read, or one that was written, goes away."""
    number = rng.random()
    pool = [trial.given, trial.out] if rng.random() < 0.7 else [trial.out]

    def act(event: str, arguments: tuple[Any, ...]) -> None:
        files = sorted(path for folder in pool for path in folder.rglob("*") if path.is_file())
        if files:
            files[int(number * len(files))].unlink()

    moment = Moment(operation=rng.randrange(max(1, trial.operations)), act=act)
    ended = run(trial.lines, trial.out, moment)
    trial.restore()
    for name in trial.job.copies:  # what the job works in came from there, too
        for path in (trial.given / name).rglob("*"):
            target = trial.out / path.relative_to(trial.given)
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
    return told(ended, f"{trial.name}, a file deleted at {moment.operation}")


def little_memory(trial: Trial, rng: random.Random) -> str:
    """From 256 kB to 64 MB more than what is mapped already."""
    room = int(2 ** rng.uniform(18, 26))
    ended = run(trial.lines, trial.out, before=memory_limit(room))
    if ended.status in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, 127):  # 127: glibc
        return "crashed"  # in a library that does not look whether it got the memory; the next run has to cope
    return told(ended, f"{trial.name} with {room} bytes")


def twice_at_once(trial: Trial, rng: random.Random) -> str:
    """The same command in two processes; one may be told that the other is at work."""
    found: list[Ended] = []
    one = threading.Thread(target=lambda: found.append(run(trial.lines, trial.out)))
    one.start()
    found.append(run(trial.lines, trial.out))
    one.join()
    ways = [told(ended, f"{trial.name}, twice at once") for ended in found]
    return "both done" if ways == ["done", "done"] else "one refused" if "done" in ways else "none done"


FAULTS: dict[str, Callable[[Trial, random.Random], str]] = {
    "full": full, "read-only": read_only, "deleted": deleted, "little-memory": little_memory, "twice": twice_at_once,
}  # fmt: skip


def try_fault(trial: Trial, fault: str, tries: int, seed: int = 0) -> dict[str, Any]:
    """How disturbed runs ended; `wrong`: what was lost, or said as it should not be."""
    rng, seen, wrong = random.Random(f"{trial.name} {fault} {seed}"), Counter[str](), []
    for number in range(tries):
        copied(trial.job, trial.given, trial.out)
        try:
            seen[FAULTS[fault](trial, rng)] += 1
            trial.end(f"{trial.name}, {fault}, try {number}")
        except AssertionError as error:
            wrong.append(str(error))
            shutil.rmtree(trial.out, ignore_errors=True)
            trial.restore()
    return {"job": trial.name, "fault": fault, "seed": seed, "tries": tries, **seen, "wrong": wrong}


def main() -> int:
    """Try faults on the jobs that are named; a line of JSON for each pair, and status 1 where something is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", nargs="+", choices=["all", *JOBS])
    parser.add_argument("--place", type=Path, required=True, help="a new folder")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="which moments")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    args = parser.parse_args()
    given = args.place / "given"
    given.mkdir(parents=True)
    prepare(given)
    shutil.copytree(given, given.with_name("spare"))
    lost = 0
    for name in JOBS if "all" in args.jobs else args.jobs:
        trial = Trial(name, given, args.place / "out")
        trial.begin()
        for fault in args.faults:
            found = try_fault(trial, fault, args.tries, args.seed)
            lost += len(found["wrong"])
            print(json.dumps(found), flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
