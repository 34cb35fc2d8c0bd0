"""hftrainer on several devices by Ray Serve: each replica is the whole server, with a model and a batch of its own.

    pip install 'ray[serve]>=2.50' 'hftrainer[serve]'
    cd examples/deploy
    serve run ray_serve:build model=gotozero-nano replicas=2                          # two replicas on CPUs
    serve run ray_serve:build model=gotozero-7b-train device=cuda dtype=bf16 most=8   # one to eight GPUs

A replica decodes the requests it has together; Ray gives a request to the one with fewer of them, and starts another
once each has more than `target`. Give all replicas one `jobs` folder, on a disk that all machines share: a motion that
one has made is then found by the others. A job that is running (`/v1/jobs`) and a live session are known only to
their replica, so programs should use `POST /v1/motions`, with or without `stream`.

Ray listens on this machine only. For others, set HFTRAINER_TOKEN, which requests must then show, and start Ray's proxy
with ``serve start --http-host 0.0.0.0`` first.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

OF_AN_ID = re.compile(r"/v1/(?:motions|jobs)/([0-9a-f]{24})(?:-\d+)?(?:/|$)")
DEFAULTS = {
    "model": "gotozero-nano", "device": "cpu", "dtype": "", "jobs": "out/ray",
    "replicas": "1", "most": "", "target": "16", "cpus": "1",
}  # fmt: skip


class SharedResults:
    """An app that also finds what other replicas have finished, in folders beside its own."""

    def __init__(self, app: Any, root: Path):
        self.app, self.root = app, root

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Fetch what is asked for first, if it is not here."""
        match = OF_AN_ID.match(scope.get("path", "")) if scope["type"] == "http" else None
        if match is not None:
            await asyncio.to_thread(self.app.state.service.store.adopt, match[1], self.root)
        await self.app(scope, receive, send)


def make_app(options: dict[str, str]) -> SharedResults:
    """What a replica runs: `hftrainer serve`'s app, with a folder of its own."""
    from hftrainer.serve.app import create_app
    from hftrainer.serve.settings import Settings

    root = Path(options["jobs"]).absolute()
    token = options["token"] or None
    settings = Settings(
        models=(options["model"],), host="0.0.0.0" if token else "127.0.0.1", token=token,
        jobs=root / serve.get_replica_context().replica_id.unique_id,
        load={"device": options["device"]} | ({"dtype": options["dtype"]} if options["dtype"] else {}),
    )  # fmt: skip
    return SharedResults(create_app(settings), root)


def build(arguments: dict[str, str]) -> Application:
    """The application of `serve run ray_serve:build name=value ...`."""
    unknown = set(arguments) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(DEFAULTS)}")
    options = DEFAULTS | arguments | {"token": os.environ.get("HFTRAINER_TOKEN", "")}
    fewest, target = int(options["replicas"]), int(options["target"])
    deployment = serve.deployment(
        serve.ingress(lambda: make_app(options))(),
        name="hftrainer",
        max_ongoing_requests=8 * target,  # what a replica takes; the rest waits in Ray's proxy
        autoscaling_config={
            "min_replicas": fewest, "max_replicas": int(options["most"] or fewest), "target_ongoing_requests": target,
        },
        ray_actor_options={"num_cpus": float(options["cpus"]), "num_gpus": float(options["device"] == "cuda")},
    )  # fmt: skip
    return deployment.bind()
