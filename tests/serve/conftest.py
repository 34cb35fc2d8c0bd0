"""A server in this process, with a tiny model. Without the extra `serve` there is nothing to test."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.requests import SamplingParams
from hftrainer.serve.settings import Settings
from tests.tiny import make_tiny_bundle

if find_spec("fastapi") is None:
    collect_ignore_glob = ["test_*.py"]

DRAWN = SamplingParams(do_sample=True, temperature=1.0, top_p=0.95)


@pytest.fixture(scope="session")
def drawing() -> MotionMillionPipeline:
    return MotionMillionPipeline(make_tiny_bundle(), max_sample_steps=60, sampling=DRAWN)


@pytest.fixture
def make_client(drawing, tmp_path) -> Iterator[Any]:
    """`make_client(rows=4)` is a client of a server with these settings."""
    from starlette.testclient import TestClient

    from hftrainer.serve.app import create_app

    open_clients = []

    def make(pipelines=None, **changes):
        settings = Settings(**{"jobs": tmp_path / "jobs", "rows": 8, **changes})
        app = create_app(settings, pipelines or {"tiny": drawing})
        client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        client.__enter__()
        open_clients.append(client)
        return client

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client):
    return make_client()
