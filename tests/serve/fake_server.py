"""A server that answers as `hftrainer serve` does, with figures that walk by formula: for tests of the page.

What a test needs to happen is in the prompt: "hold" waits half-way for GET /release, "yodel" is an action that the
model does not know, "break" fails after a second of motion. `python tests/serve/fake_server.py [PORT [TOKEN]]` serves
it to look at.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hftrainer.serve.page import HEADERS, page_file

FPS = 30
STEP = 10  # frames a message
FORMATS = ("glb", "vrma", "bvh", "npz", "amass", "csv", "usd", "mp4", "gif", "webp", "html", "npy")
VERBS = {"walk": 412, "run": 230, "jump": 118, "wave": 64, "sit": 51, "dance": 40, "kick": 33, "crawl": 12}
MODEL = {
    "name": "walker", "title": "Walker", "licence": "Apache-2.0", "fps": FPS, "max_seconds": 10.0,
    "max_prompt": 300, "max_count": 4, "sampling": {"temperature": 1.0, "top_p": 0.95, "guidance_scale": None},
    "examples": ["a person walks forward", "a person runs in a circle", "a person waves with the right hand"],
}  # fmt: skip
OTHER = {
    **MODEL,
    "name": "other",
    "title": "Other",
    "sampling": {"temperature": 1.0, "top_p": None, "guidance_scale": 3.0},
}


def walk(start: int, frames: int, pace: float = 1.0) -> np.ndarray:
    """Frames `start` to `start + frames` of a figure that walks along z: (frames, 22, 3) metres, Y up."""
    seconds = (start + np.arange(frames)) / FPS
    swing = np.sin(2 * np.pi * pace * seconds)[:, None]
    joints = np.zeros((frames, 22, 3), np.float32)
    # joint: side, height, and how far it swings along z
    body = {
        0: (0, 0.95, 0), 1: (0.09, 0.9, 0), 2: (-0.09, 0.9, 0), 3: (0, 1.06, 0), 4: (0.1, 0.5, 0.16),
        5: (-0.1, 0.5, -0.16), 6: (0, 1.19, 0), 7: (0.1, 0.09, 0.32), 8: (-0.1, 0.09, -0.32), 9: (0, 1.25, 0),
        10: (0.1, 0.03, 0.32), 11: (-0.1, 0.03, -0.32), 12: (0, 1.46, 0), 13: (0.07, 1.38, 0), 14: (-0.07, 1.38, 0),
        15: (0, 1.55, 0), 16: (0.18, 1.37, 0), 17: (-0.18, 1.37, 0), 18: (0.22, 1.1, -0.12), 19: (-0.22, 1.1, 0.12),
        20: (0.22, 0.86, -0.2), 21: (-0.22, 0.86, 0.2),
    }  # fmt: skip
    for joint, (x, y, z) in body.items():
        joints[:, joint] = np.concatenate([0 * swing + x, 0 * swing + y, z * swing], axis=1)
    joints[:, [10, 11], 2] += 0.13  # toes are ahead of ankles
    joints[..., 2] += 1.2 * pace * seconds[:, None]
    return joints


def packed(joints: np.ndarray) -> str:
    """Positions as the wire has them."""
    return base64.b64encode(joints.astype("<f4").tobytes()).decode("ascii")


@dataclass
class Job:
    """A request, what came of it so far, and who waits for more."""

    id: str
    request: dict[str, Any]
    status: str = "queued"
    progress: float = 0.0
    answer: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, event: str, **data: Any) -> None:
        """Adds an event and wakes those who listen."""
        self.events.append((event, {"id": self.id, **data}))
        self.more.set()
        self.more = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.status in ("done", "failed", "cancelled")

    def shown(self) -> dict[str, Any]:
        """What the API says of it."""
        names = ("id", "status", "progress", "created", "request", "answer", "error")
        return {name: getattr(self, name) for name in names}


def prompts_of(request: dict[str, Any]) -> list[str]:
    """One text a motion."""
    if request.get("timeline"):
        return ["; ".join(part["prompt"] for part in request["timeline"])] * request.get("count", 1)
    prompts = request.get("prompts") or [request["prompt"]]
    return [prompt for prompt in prompts for _ in range(request.get("count", 1))]


def motion_of(job: Job, index: int, prompt: str, frames: int) -> dict[str, Any]:
    """A finished motion of an answer."""
    key = f"{job.id}-{index}"
    known = "yodel" not in prompt
    return {
        "id": key, "index": index, "prompt": prompt, "seed": job.request.get("seed", 0) + index, "frames": frames,
        "seconds": frames / FPS, "fps": FPS, "known": known, "similarity": 0.9 if known else 0.2,
        "nearest": [] if known else ["wave", "dance"], "warnings": [],
        "files": {name: f"/v1/motions/{key}/motion.{name}" for name in FORMATS},
    }  # fmt: skip


async def make(job: Job, released: asyncio.Event) -> None:
    """Plays the model: a step of frames at a time, all motions together."""
    prompts = prompts_of(job.request)
    frames = [part["seconds"] * FPS for part in job.request.get("timeline") or []]
    total = int(sum(frames) or (job.request.get("seconds") or 2) * FPS)
    job.say("queued", position=0)
    job.status = "running"
    for index, prompt in enumerate(prompts):
        seed = job.request.get("seed", 0) + index
        job.say("start", motion=index, prompt=prompt, seed=seed, fps=FPS, joints=22)
    for start in range(0, total, STEP):
        await asyncio.sleep(0.02)
        while start >= total // 2 and "hold" in prompts[0] and not (released.is_set() or job.over):
            await asyncio.sleep(0.02)
        if job.over:
            return
        for index in range(len(prompts)):
            count = min(STEP, total - start)
            job.say("frames", motion=index, start=start, positions=packed(walk(start, count, 1 + 0.15 * index)))
        job.progress = min(1.0, (start + STEP) / total)
        if start > FPS and any("break" in prompt for prompt in prompts):
            job.status, job.error = "failed", {"error": "internal", "message": "The model ran out of memory."}
            return job.say("error", **job.error)
    motions = [motion_of(job, index, prompt, total) for index, prompt in enumerate(prompts)]
    for motion in motions:
        job.say("motion", **motion)
    job.status, job.answer = "done", {"id": job.id, "model": job.request.get("model") or "walker", "motions": motions}
    job.say("done", **job.answer)


def fake_app(token: str | None = None) -> Starlette:
    """The app; with a token, what is under /v1 needs it."""
    jobs: dict[str, Job] = {}
    numbers = itertools.count(1)
    tasks: set[asyncio.Task[None]] = set()
    released = asyncio.Event()

    def refusal(request: Request) -> Response | None:
        if token and request.headers.get("authorization") != f"Bearer {token}":
            return JSONResponse({"error": "token", "message": "This server needs a token."}, 401)
        return None

    async def page(request: Request) -> Response:
        found = page_file(request.path_params.get("name", "index.html"))
        if found is None:
            return Response("no such file", 404)
        return Response(found.body, media_type=found.media_type, headers=HEADERS)

    async def release(request: Request) -> Response:
        released.set()
        return Response()

    async def models(request: Request) -> Response:
        return refusal(request) or JSONResponse({"default": "walker", "models": [MODEL, OTHER]})

    async def vocabulary(request: Request) -> Response:
        return refusal(request) or JSONResponse({"verbs": VERBS if request.path_params["name"] == "walker" else {}})

    async def post(request: Request) -> Response:
        if refused := refusal(request):
            return refused
        body = await request.json()
        if max(len(prompt) for prompt in prompts_of(body)) > 300:
            message = "A prompt may have 300 characters, got more: shorten it."
            return JSONResponse({"error": "prompt", "message": message}, 422)
        job = jobs.setdefault(f"job{next(numbers)}", Job("", body))
        job.id = next(reversed(jobs))
        task = asyncio.create_task(make(job, released))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return JSONResponse({"id": job.id, "status": job.status, "url": f"/v1/jobs/{job.id}"}, 202)

    async def listing(request: Request) -> Response:
        return refusal(request) or JSONResponse({"jobs": [job.shown() for job in reversed(jobs.values())]})

    async def one(request: Request) -> Response:
        job = jobs.get(request.path_params["id"])
        if refused := refusal(request):
            return refused
        if job is None:
            return JSONResponse({"error": "job", "message": "There is no such job."}, 404)
        if request.method == "DELETE":
            if job.over:
                del jobs[job.id]
            else:
                job.status, job.error = "cancelled", {"error": "cancelled", "message": "The job was cancelled."}
                job.say("error", **job.error)
        return JSONResponse(job.shown())

    async def events(request: Request) -> Response:
        job = jobs[request.path_params["id"]]

        async def lines() -> AsyncIterator[str]:
            sent = 0
            while True:
                more = job.more
                for event, data in job.events[sent:]:
                    yield f"event: {event}\ndata: {json.dumps(data)}\n\n"
                sent = len(job.events)
                if job.over:
                    return
                await more.wait()

        return refusal(request) or StreamingResponse(lines(), media_type="text/event-stream")

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return refusal(request) or Response(f"{request.path_params['id']} {name}", headers=headers)

    async def live(socket: WebSocket) -> None:
        if token and socket.query_params.get("token") != token:
            return await socket.close(1008)
        await socket.accept()
        await socket.send_json({"ready": True, "fps": FPS, "joints": 22})
        said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def listen() -> None:
            try:
                while True:
                    said.put_nowait(await socket.receive_json())
            except WebSocketDisconnect:
                said.put_nowait({"stop": True})

        listener = asyncio.create_task(listen())
        prompt, start, message = "", 0, await said.get()
        while not message.get("stop"):
            prompt = message.get("say", prompt)
            await socket.send_json({"start": start, "positions": packed(walk(start, STEP)), "prompt": prompt})
            start += STEP
            await asyncio.sleep(STEP / FPS)
            message = {} if said.empty() else said.get_nowait()
        listener.cancel()
        with contextlib.suppress(WebSocketDisconnect):
            await socket.close()

    return Starlette(
        routes=[
            Route("/", page),
            Route("/page/{name}", page),
            Route("/release", release),
            Route("/v1/models", models),
            Route("/v1/models/{name}/vocabulary", vocabulary),
            Route("/v1/jobs", post, methods=["POST"]),
            Route("/v1/jobs", listing),
            Route("/v1/jobs/{id}", one, methods=["GET", "DELETE"]),
            Route("/v1/jobs/{id}/events", events),
            Route("/v1/motions/{id}/{file}", file),
            WebSocketRoute("/v1/live", live),
        ]
    )


if __name__ == "__main__":
    import sys

    import uvicorn

    port, token = sys.argv[1] if len(sys.argv) > 1 else "8123", sys.argv[2] if len(sys.argv) > 2 else None
    uvicorn.run(fake_app(token), port=int(port), log_level="warning")
