"""Inputs guided by what is covered, for every reader; needs atheris (`make fuzz-guided` installs it).

    python -m tests.fuzz.guided all --runs 100000
    python -m tests.fuzz.guided npy bvh --runs 1000000 --results guided.jsonl

Half of the changes are libFuzzer's own, half those of `tests.fuzz.mutate`, which keep the format around them intact.
Each reader has a process of its own, since libFuzzer ends it. What is found goes to tests/fuzz/corpus/READER/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["hftrainer"]):
    import tests.fuzz.folders  # noqa: F401 -- adds its readers
    from tests.fuzz.mutate import MOST
    from tests.fuzz.readers import READERS
    from tests.fuzz.run import STUCK, keep, kind_of, limits, try_input

_CRASHES = ("crash-*", "timeout-*", "oom-*")  # what libFuzzer calls the input that ended the process


class Inputs:
    """Inputs of one reader: they are counted, and the process ends after the last of them with a line of JSON."""

    def __init__(self, reader: str, runs: int, place: Path):
        self.reader, self.runs, self.place = reader, runs, place
        self.count, self.kinds = 0, set[str]()

    def try_one(self, data: bytes) -> None:
        """What libFuzzer calls."""
        wrong = try_input(self.reader, data, self.place)
        if wrong is not None and kind_of(wrong) not in self.kinds:
            self.kinds.add(kind_of(wrong))
            keep(self.reader, data, wrong)
        self.count += 1
        if self.count == self.runs:
            result = {"reader": self.reader, "guided": self.count, "finds": len(self.kinds)}
            (self.place / "result").write_text(json.dumps(result))
            sys.stdout.flush()
            os._exit(0)

    def change(self, data: bytes, most: int, seed: int) -> bytes:
        """A new input made of an old one."""
        rng = random.Random(seed)
        if rng.random() < 0.5:
            with contextlib.suppress(Exception):  # an archive that was changed before may not be one any more
                return READERS[self.reader].input(rng, [data] if data else [])[:most]
        return bytes(atheris.Mutate(data, most))


def try_reader(reader: str, runs: int, place: Path) -> None:
    """Try so many inputs, then end the process."""
    inputs, seeds = Inputs(reader, runs, place), place / "seeds"
    seeds.mkdir()
    for number, data in enumerate(READERS[reader].seeds):
        (seeds / str(number)).write_bytes(data)
    limits()
    options = [f"-max_len={MOST}", "-rss_limit_mb=0", f"-timeout={STUCK}", "-verbosity=0"]
    options.append(f"-artifact_prefix={place}/")  # or it would write slow inputs to where it was started
    atheris.Setup([sys.argv[0], *options, str(seeds)], inputs.try_one, custom_mutator=inputs.change)
    atheris.Fuzz()


def in_its_own_process(reader: str, runs: int) -> dict[str, Any]:
    """Try a reader; what there is to say of it. An input that ended the process is a find, too."""
    begun = time.monotonic()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        place = Path(folder)
        command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.guided", reader, "--runs", str(runs)]
        ended = subprocess.run([*command, "--place", folder], check=False, stderr=subprocess.PIPE, text=True)
        if (place / "result").is_file():
            result = json.loads((place / "result").read_text())
        else:
            for path in (path for pattern in _CRASHES for path in place.glob(pattern)):
                keep(reader, path.read_bytes(), f"the process ended with status {ended.returncode}")
            print(ended.stderr[-3000:], file=sys.stderr)
            result = {"reader": reader, "guided": 0, "finds": 1}
    result["seconds"] = round(time.monotonic() - begun, 1)
    print(f"{reader:16} {result['guided']:8} inputs {result['seconds']:9.1f} s   finds: {result['finds']}", flush=True)
    return result


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="+", choices=["all", *READERS], metavar="reader")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--results", type=Path, help="append a line of JSON for each reader")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)  # of the one reader that this process tries
    args = parser.parse_args()
    if args.place is not None:
        try_reader(args.readers[0], args.runs, args.place)
    finds = 0
    for reader in READERS if "all" in args.readers else args.readers:
        result = in_its_own_process(reader, args.runs)
        finds += result["finds"]
        if args.results is not None:
            with open(args.results, "a") as stream:
                stream.write(json.dumps(result) + "\n")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
