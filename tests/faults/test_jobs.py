"""`make test-faults`: every kind of job is killed at random moments, and run again gives what one run gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
KILLS = os.environ.get("FAULTS", "200")
JOBS = ["generate", "evaluate-generate", "convert", "tokenize", "stats", "pack-motions", "pack-tokens", "train"]


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_killed_job_is_finished_by_the_next_run(tmp_path, job):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.kill_jobs", job, str(tmp_path), "--kills", KILLS],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
