"""examples/deploy/ray_serve.py: two replicas on this machine's CPUs, where Ray is installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

pytest.importorskip("ray.serve", reason="pip install 'ray[serve]'")
pytestmark = pytest.mark.slow
PATIENCE = 300  # seconds, on a machine with other work, where Ray would call its proxy dead after ten
SLOW = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PATIENCE), "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": str(PATIENCE),
}  # fmt: skip
PROGRAM = """
import sys
import ray
from ray import serve
import ray_serve
ray.init(num_cpus=3, include_dashboard=False, _temp_dir=sys.argv[1])
for attempt in range(5):  # each waits a minute for the proxy, which takes longer on a machine with other work
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
        break
    except TimeoutError as error:
        print(error, flush=True)
serve.run(ray_serve.build(dict(pair.split("=", 1) for pair in sys.argv[3:])))
print("READY", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[str, Path]]:
    """The address of two replicas, and their folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = tmp_path_factory.mktemp("jobs")
    path = os.pathsep.join([str(REPOSITORY / "examples" / "deploy"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", **SLOW}
    asked = {"model": tiny_model, "replicas": 2, "jobs": jobs, "cpus": 0.5}
    words = [f"{name}={value}" for name, value in asked.items()]
    with tempfile.TemporaryDirectory(prefix="r") as short:  # Ray's sockets lie below it, whose paths may not be long
        yield from replicas([sys.executable, "-c", PROGRAM, short, str(port), *words], environment, port, jobs)


def replicas(command: list[str], environment: dict[str, str], port: int, jobs: Path) -> Iterator[tuple[str, Path]]:
    """Start them, and end them after the tests."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line.startswith("READY") for line in process.stdout), "Ray Serve did not start"
        yield f"http://127.0.0.1:{port}", jobs
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=PATIENCE)
        process.stdout.close()


def call(url: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return bytes(answer.read())


def test_replicas_share_the_work_and_find_each_others_motions(place):
    url, jobs = place
    until = time.monotonic() + PATIENCE
    made: list[dict[str, Any]] = []
    while len(list(jobs.glob("*/*.json"))) == 0 or len({path.parent for path in jobs.glob("*/*.json")}) < 2:
        assert time.monotonic() < until, "all requests went to one replica"
        bodies = [{"prompt": "a person walks", "seconds": 1.0, "seed": len(made) + i} for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda body: json.loads(call(f"{url}/v1/motions", body)), bodies))
        made += [answer["motions"][0] for answer in answers]
    assert len({motion["seed"] for motion in made}) == len(made)
    for motion in made[:8]:  # whichever replica is asked
        for _ in range(3):
            assert call(url + motion["files"]["npy"])[:6] == b"\x93NUMPY"
    assert call(url + made[0]["files"]["glb"])[:4] == b"glTF"


def test_a_stream_comes_through_and_problems_do_too(place):
    url, _ = place
    events = call(f"{url}/v1/motions", {"prompt": "a person walks", "seconds": 1.0, "stream": True}).decode()
    assert "event: frames" in events
    assert "event: done" in events
    with pytest.raises(urllib.error.HTTPError) as refused:
        call(f"{url}/v1/motions", {"prompt": ""})
    assert refused.value.code == 422
    refused.value.close()
    with pytest.raises(urllib.error.HTTPError) as missing:
        call(f"{url}/v1/jobs/{'0' * 24}")
    assert missing.value.code == 404
    missing.value.close()
    assert json.loads(call(f"{url}/healthz"))["status"] == "ok"
