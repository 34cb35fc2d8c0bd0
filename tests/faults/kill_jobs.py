"""Run by tests: a job is killed by SIGKILL at many moments and run again; the result has to be that of one run.

    python -m tests.faults.kill_jobs all /tmp/place --kills 200

Half of the moments are spread evenly over the job's time, half over its operations on files. After a kill everything
that records call finished is noted, and the rerun must leave it as it is. Files that differ between two runs that
nobody killed (they hold a time) are left out of the comparison, and named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from hftrainer.files import sha256
from hftrainer.models.checkpoint import open_checkpoint, tensor_hash
from tests.faults.forks import Ended, import_what_it_imports, moments, run
from tests.faults.jobs import JOBS, Job, copied, prepare

STARTS = re.compile(r"config\.\d+\.yaml")  # a run's record of each time that it was started
LEFT_OUT = ("logs", "_logs", "wandb", "lightning_logs", "_served")
SECONDS = re.compile(rb'"seconds": [\d.]+')  # in an evaluation's report: how long it took
FOLDER = "folder"


@dataclass
class Outcome:
    """What was tried of a job, and what held: `kept`: finished items that reruns found and left."""

    job: str
    seed: int = 0
    kills: int = 0
    at_operations: int = 0
    reruns: int = 0
    kept: int = 0
    files: int = 0
    timed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    one_run: float = 0.0
    operations: int = 0


def weights_hash(path: Path) -> str:
    """Of the weights in a training checkpoint; its counters say how often the run was started."""
    found = open_checkpoint(path)
    hashes = [f"{name} {tensor_hash(found[name])}" for name in sorted(found)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Of what a rerun must give again."""
    if path.suffix == ".ckpt":
        return weights_hash(path)
    if path.name == "run.json":
        record = json.loads(path.read_bytes())
        del record["starts"]  # each with its time, and a rerun adds one
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()
    if path.parent.name == "cache":  # rows are in the order of their last use, which two runs at once share
        with np.load(path) as found:
            rows = sorted(key.tobytes() + row.tobytes() for key, row in zip(found["keys"], found["rows"], strict=True))
        return hashlib.sha256(b"".join(rows)).hexdigest()
    if path.name == "report.json":
        return hashlib.sha256(SECONDS.sub(b"", path.read_bytes())).hexdigest()
    return sha256(path)


def content(folder: Path) -> dict[str, str]:
    """Hash of every file by name; temporary names are files too, and folders that nothing is left in count."""
    return {
        str(path.relative_to(folder)): FOLDER if path.is_dir() else file_hash(path)
        for path in sorted(folder.rglob("*"))
        if not STARTS.fullmatch(path.name) and not set(path.relative_to(folder).parts) & set(LEFT_OUT)
    }


def stamps(job: Job, out: Path) -> dict[Path, tuple[int, int]]:
    """Number and time of each finished file."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in job.finished(out)}


def killed_and_rerun(name: str, given: Path, out: Path, kills: int, seed: int = 0, chain: int = 3) -> Outcome:
    """Kill a job so often, and compare each time after a run that is left to end; up to `chain` kills come first."""
    job, rng, begun = JOBS[name], random.Random(f"{name} {seed}"), time.monotonic()
    lines = job.lines(given, out)
    copied(job, given, out)
    import_what_it_imports(lines)
    shutil.rmtree(out)
    clean, outcome = [], Outcome(name, seed)
    for _ in range(2):
        copied(job, given, out)
        ended = done(run(lines, out))
        clean.append(content(out))
        shutil.rmtree(out)
    outcome.one_run, outcome.operations, outcome.files = round(ended.seconds, 2), ended.operations, len(clean[0])
    assert set(clean[0]) == set(clean[1]), set(clean[0]) ^ set(clean[1])
    timed = {path for path in clean[0] if clean[0][path] != clean[1][path]}
    outcome.timed = sorted(timed)
    while outcome.kills < kills:
        copied(job, given, out)
        kept: dict[Path, tuple[int, int]] = {}
        for _ in range(rng.randint(1, chain)):
            moment = moments(ended.seconds, ended.operations, rng)
            result = run(lines, out, moment)
            changed = {path for path, stamp in stamps(job, out).items() if kept.get(path, stamp) != stamp}
            assert not changed, f"{name}: made again: {changed}"
            kept |= stamps(job, out)
            if result.status == 0 or (name == "convert" and (out / "made").is_dir()):
                break  # it ended before the moment came; convert replaces no folder
            assert result.status == -signal.SIGKILL or (job.workers and not moment.everyone), result
            if not moment.everyone:
                time.sleep(0.3)  # workers that are forks here hold their parent's locks until they have ended, too
            outcome.kills += 1
            outcome.at_operations += moment.operation is not None
        if name != "convert" or not (out / "made").is_dir():
            done(run(lines, out))
        outcome.reruns += 1
        outcome.kept += len(kept)
        check(f"{name}, after {outcome.kills} kills", content(out), clean[0], timed)
        now = stamps(job, out)
        again = {str(path) for path, stamp in kept.items() if now.get(path) != stamp}
        assert not again, f"{name}: made again: {again}"
        shutil.rmtree(out)
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def done(ended: Ended) -> Ended:
    assert ended.status == 0, f"status {ended.status}: {ended.said[-2000:]}"
    return ended


def check(when: str, found: dict[str, str], wanted: dict[str, str], timed: set[str]) -> None:
    assert set(found) == set(wanted), f"{when}: {sorted(set(found) ^ set(wanted))}"
    wrong = [path for path in found if path not in timed and found[path] != wanted[path]]
    assert not wrong, f"{when}: {wrong}"


def main() -> int:
    """Kill the jobs that are named; a line of JSON about each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", nargs="+", choices=["all", *JOBS])
    parser.add_argument("--place", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="which moments")
    parser.add_argument("--results", type=Path, help="append the lines to a file, too")
    args = parser.parse_args()
    given = args.place / "given"
    given.mkdir(parents=True)
    prepare(given)
    for name in JOBS if "all" in args.jobs else args.jobs:
        line = json.dumps(asdict(killed_and_rerun(name, given, args.place / "out", args.kills, args.seed)))
        print(line, flush=True)
        if args.results is not None:
            with open(args.results, "a") as stream:
                stream.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
