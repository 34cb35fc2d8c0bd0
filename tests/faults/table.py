"""Sums of what `kill_jobs`, `other_faults`, `long_runs` and `tests.fuzz.run` wrote, over rounds, as Markdown and JSON.

    python -m tests.faults.table kills.jsonl others.jsonl long.jsonl fuzz.jsonl --out docs/results/faults.json

Each file has lines of JSON; which program wrote a line is told by its fields. Lines that begin otherwise are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KILLS, FUZZ = ("kills", "at_operations", "reruns", "kept"), ("inputs", "accepted", "finds")
WAYS = ("done", "said", "crashed", "both done", "one refused", "none done")


def summed(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Tables by kind: "kills" by job, "faults" by fault and job, "fuzz" by reader, and "long" as they are."""
    found: dict[str, Any] = {"kills": {}, "faults": {}, "fuzz": {}, "long": []}
    for line in lines:
        if "kills" in line:
            _add(found["kills"].setdefault(line["job"], {"rounds": 0}), line, KILLS)
        elif "fault" in line:
            row = found["faults"].setdefault(line["fault"], {}).setdefault(line["job"], {"rounds": 0, "wrong": 0})
            _add(row, line, ("tries", *WAYS))
            row["wrong"] += len(line["wrong"])
        elif "reader" in line:
            _add(found["fuzz"].setdefault(line["reader"], {"rounds": 0}), line, FUZZ)
        elif "long_run" in line:
            found["long"].append(line)
    return found


def _add(row: dict[str, int], line: dict[str, Any], keys: Iterable[str]) -> None:
    row["rounds"] += 1
    for key in keys:
        row[key] = row.get(key, 0) + int(line.get(key, 0))


def markdown(found: dict[str, Any]) -> str:
    """The tables."""
    out = ["| job | kills | of these before an operation | reruns compared | finished items that were kept |",
           "|---|--:|--:|--:|--:|"]  # fmt: skip
    out += [f"| {job} | {' | '.join(str(row[key]) for key in KILLS)} |" for job, row in found["kills"].items()]
    out += ["", "| fault | jobs | tries | how they ended | wrong |", "|---|--:|--:|---|--:|"]
    for fault, jobs in found["faults"].items():
        total: dict[str, int] = defaultdict(int)
        for row in jobs.values():
            for key in ("tries", "wrong", *WAYS):
                total[key] += row[key]
        ended = ", ".join(f"{total[way]} {way}" for way in WAYS if total[way])
        out.append(f"| {fault} | {len(jobs)} | {total['tries']} | {ended} | {total['wrong']} |")
    out += ["", "| reader | inputs | accepted | finds |", "|---|--:|--:|--:|"]
    out += [f"| {reader} | {' | '.join(f'{row[key]:,}' for key in FUZZ)} |" for reader, row in found["fuzz"].items()]
    return "\n".join(out)


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The lines of JSON."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = summed(read(args.files))
    print(markdown(found))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
