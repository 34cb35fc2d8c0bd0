"""`make test-faults`: jobs of every kind are killed or disturbed, and run again give what one run gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.forks import Moment, run
from tests.faults.kill_jobs import content
from tests.faults.table import markdown, summed

REPOSITORY = Path(__file__).parents[2]
KILLS = os.environ.get("FAULTS", "200")


def lines_of(module: str, place: Path, *more: str) -> list[dict[str, object]]:
    """What a program says of each job."""
    command = [sys.executable, "-W", "ignore", "-m", module, "all", "--place", str(place / "jobs"), *more]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.faults
@pytest.mark.slow
def test_killed_jobs_are_finished_by_the_next_run(tmp_path):
    found = lines_of("tests.faults.kill_jobs", tmp_path, "--kills", KILLS)
    assert all(int(str(line["kills"])) >= int(KILLS) for line in found)


@pytest.mark.faults
@pytest.mark.slow
def test_disturbed_jobs_say_so_and_are_finished_by_the_next_run(tmp_path):
    assert lines_of("tests.faults.other_faults", tmp_path, "--tries", str(max(1, int(KILLS) // 10)))


# --- the harness itself -----------------------------------------------------------------------------------------------

LABELS = ["data", "labels"]  # no such verb: status 2


def test_forks_end_with_their_status_and_words(tmp_path):
    ended = run([["zoo", "list"]], tmp_path)
    assert ended.status == 0
    assert "gotozero-nano" in ended.said
    assert run([LABELS], tmp_path).status == 2


def test_forks_are_killed_at_an_operation_or_disturbed(tmp_path):
    given = tmp_path / "a.bvh"
    given.write_text("no motion")
    line = [["data", "import-motion", str(given), "--skeleton", "smpl22", "--out", str(tmp_path / "made")]]
    whole = run(line, tmp_path)
    assert whole.status == 1
    assert whole.operations > 3
    after = content(tmp_path)
    for number in range(whole.operations):
        assert run(line, tmp_path, Moment(operation=number)).status == -9
    assert run(line, tmp_path).status == 1
    assert content(tmp_path) == after

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        raise OSError(28, "No space left on device", str(arguments[0]))

    assert "No space" in run(line, tmp_path, Moment(operation=1, act=refuse, lasting=True)).said


def test_rounds_are_summed_by_job_fault_and_reader():
    lines = [
        {"job": "x", "seed": seed, "kills": 2, "at_operations": 1, "reruns": 2, "kept": 3} for seed in (0, 1)
    ] + [
        {"job": "x", "fault": "full", "tries": 3, "said": 2, "done": 1, "wrong": ["lost"]},
        {"job": "y", "fault": "full", "tries": 1, "said": 1, "wrong": []},
        {"reader": "npy", "inputs": 1000, "accepted": 5, "finds": 0}, {"job": "train", "long_run": 10},
    ]  # fmt: skip
    found = summed(lines)
    assert found["kills"]["x"] == {"rounds": 2, "kills": 4, "at_operations": 2, "reruns": 4, "kept": 6}
    assert "| full | 2 | 4 | 1 done, 3 said | 1 |" in markdown(found)
    assert "| npy | 1,000 | 5 | 0 |" in markdown(found)
    assert found["long"] == [lines[-1]]
