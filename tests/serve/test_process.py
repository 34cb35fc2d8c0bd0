"""The server as a process: load, and a kill in the middle of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

import pytest

from hftrainer.bench.serve import ServeBench, run, server
from hftrainer.bench.serve_load import request
from tests.serve.test_motions import WALK


def ask(address, method, path, body=None):
    status, answer = asyncio.run(request(address, method, path, b"" if body is None else json.dumps(body).encode()))
    return status, json.loads(answer)


@pytest.mark.slow
def test_clients_that_wait_dawdle_leave_and_stammer(tmp_path):
    figures = run(ServeBench(requests=200, rows=16, rounds=1, soak=200), str(tmp_path / "serve.json"))
    assert figures["lost"] == []
    assert figures["rounds"][0]["ratio"] > 0.1  # a speed is no test; far below this something waits for something
    assert figures["rounds"][0]["mixed"]["leaves"] == 20


@pytest.mark.slow
def test_finished_jobs_stay_when_the_server_is_killed(tmp_path):
    bench = ServeBench(requests=50)
    with server("gotozero-nano", tmp_path, bench) as (address, pid):
        jobs = [ask(address, "POST", "/v1/jobs", {"prompt": WALK, "seed": seed})[1] for seed in range(20)]
        while not (done := [job for job in ask(address, "GET", "/v1/jobs")[1]["jobs"] if job["status"] == "done"]):
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    left = {path.name for path in tmp_path.iterdir()}
    with server("gotozero-nano", tmp_path, bench) as (address, _):
        found = {job["id"]: job for job in ask(address, "GET", "/v1/jobs")[1]["jobs"]}
        assert set(found) == {job["id"] for job in jobs}
        for job in done:
            assert found[job["id"]]["answer"] == job["answer"]
            assert asyncio.run(request(address, "GET", job["answer"]["motions"][0]["files"]["npy"]))[0] == 200
        assert {job["status"] for job in found.values()} <= {"done", "failed"}
        assert ask(address, "POST", "/v1/motions", {"prompt": WALK})[0] == 200
    assert left
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name]
