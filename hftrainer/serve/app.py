"""The routes. `service` does the work; `guard` checks every request first."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from hftrainer.render.export import ExportOptions
from hftrainer.serve.exports import MEDIA, format_of_file
from hftrainer.serve.guard import Guard
from hftrainer.serve.jobs import Job
from hftrainer.serve.live_route import add_live
from hftrainer.serve.metrics import Metrics
from hftrainer.serve.page import HEADERS, page_file
from hftrainer.serve.refusal import BUG, Refusal, kind_of, told
from hftrainer.serve.schema import Accepted, Answer, JobList, JobView, ModelList, MotionRequest, Problem, Vocabulary
from hftrainer.serve.served import Models
from hftrainer.serve.service import Service
from hftrainer.serve.settings import Settings
from hftrainer.version import __version__

log = logging.getLogger(__name__)
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 507)
}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
_EVENTS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}  # proxies would collect events


class _Watched(StreamingResponse):
    """The events of a job that ends with its client.

    A client that leaves before the first event is not seen by `follow`, which then never begins.
    """

    def __init__(self, service: Service, job: Job):
        super().__init__(service.follow(job), media_type="text/event-stream", headers=_EVENTS)
        self.service, self.job = service, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.service.abandon(self.job)


def create_app(settings: Settings, pipelines: dict[str, Any] | None = None) -> FastAPI:
    """The app, its models loaded; `pipelines`: models that are in memory, by name, instead of the settings'."""
    metrics = Metrics()
    service = Service(settings, metrics, Models.load(settings, metrics, pipelines))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="hftrainer", version=__version__, summary="Text to human motion", lifespan=lifespan,
        docs_url=None, redoc_url=None, responses=_PROBLEMS,
    )  # fmt: skip
    app.state.service = service
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    _add_errors(app)
    _add_motions(app, service)
    _add_jobs(app, service)
    _add_files(app, service)
    _add_server(app, service)
    add_live(app, service)
    return app


def _add_motions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/motions", response_model=Answer, responses={200: {"content": _STREAM}}, tags=["motions"])
    async def make(body: MotionRequest, request: Request) -> Response:
        """Make motions: the answer when all are done, or with `stream` server-sent events while they are made.

        A client that disconnects cancels them.
        """
        job = await service.submit(body, kept=False)
        if body.stream:
            return _Watched(service, job)

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        return JSONResponse(await service.answer(job, gone))


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.post("/v1/jobs", status_code=202, response_model=Accepted, tags=["jobs"])
    async def start(body: MotionRequest) -> Response:
        """Make motions in the background."""
        job = await service.submit(body, kept=True)
        url = f"/v1/jobs/{job.id}"
        return JSONResponse({"id": job.id, "status": job.status, "url": url}, 202, headers={"Location": url})

    @app.get("/v1/jobs", response_model=JobList, tags=["jobs"])
    async def listing(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
        """Jobs, newest first."""
        return JSONResponse({"jobs": [job.view() for job in service.store.newest(limit)]})

    @app.get("/v1/jobs/{job}", response_model=JobView, tags=["jobs"])
    async def one(job: str) -> Response:
        """A job's progress and its answer."""
        return JSONResponse(service.store.get(job).view())

    streamed: dict[int | str, dict[str, Any]] = {200: {"content": _STREAM}}

    @app.get("/v1/jobs/{job}/events", response_class=StreamingResponse, responses=streamed, tags=["jobs"])
    async def events(job: str) -> Response:
        """A job's events, from the first on, as they happen."""
        found = service.store.get(job)
        return StreamingResponse(service.follow(found), media_type="text/event-stream", headers=_EVENTS)

    @app.delete("/v1/jobs/{job}", response_model=JobView, tags=["jobs"])
    def delete(job: str) -> Response:
        """Cancel a running job; delete a finished one, with its motions."""
        found = service.store.get(job)
        if found.over:
            service.store.forget(found)
        else:
            service.cancel(found)
        return JSONResponse(found.view())


def _add_files(app: FastAPI, service: Service) -> None:
    @app.get("/v1/motions/{motion}/viewer", response_class=Response, tags=["motions"])
    async def viewer(motion: str) -> Response:
        """A standalone page that plays the motion."""
        path = await service.exports.file(motion, "html", ExportOptions())
        return FileResponse(path, media_type="text/html; charset=utf-8")

    @app.get("/v1/motions/{motion}/{name}", response_class=Response, tags=["motions"])
    async def file(
        motion: str, name: str, skeleton: str = "model", fps: float | None = None, unit: str | None = None,
        up: str = "y", in_place: bool = False, root_motion: bool = False, loop: bool = False,
        transparent: bool = False, raw: bool = False,
    ) -> Response:  # fmt: skip
        """A file of a motion, ``motion.glb``, ``motion.bvh``, ...; options as those of ``hftrainer export``."""
        kind = format_of_file(name)
        try:
            options = ExportOptions(skeleton, fps, unit, up, in_place, root_motion, loop, transparent)
        except ValueError as error:
            raise Refusal(422, "invalid", str(error)) from error
        path = await service.exports.file(motion, kind, options, raw=raw)
        _, known = service.store.motion(motion)
        stem = re.sub(r"[^a-z0-9]+", "-", known["prompt"].lower()).strip("-")[:60] or "motion"
        ending = name.removeprefix("motion.")
        return FileResponse(path, media_type=MEDIA[kind], filename=f"{stem}_s{known['seed']}.{ending}")


def _add_server(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=ModelList, tags=["models"])
    async def models() -> Response:
        """The models."""
        views = [served.view() for served in service.models]
        return JSONResponse({"default": service.models.default.name, "models": views})

    @app.get("/v1/models/{name}/vocabulary", response_model=Vocabulary, tags=["models"])
    async def vocabulary(name: str) -> Response:
        """The verbs that a model was trained on."""
        return JSONResponse({"verbs": service.models.get(name).vocabulary()})

    @app.get("/healthz", tags=["server"])
    async def health() -> Response:
        """200 while every model's threads run."""
        return JSONResponse({"status": "ok" if service.healthy else "stopped"}, 200 if service.healthy else 503)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["server"])
    async def measured() -> Response:
        """Prometheus's text format."""
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    @app.get("/page/{name}", include_in_schema=False)
    async def page(request: Request, name: str = "index.html") -> Response:
        found = page_file(name)
        if found is None:
            raise Refusal(404, "not_found", "there is no such page")
        headers = {**HEADERS, "ETag": found.etag}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type=found.media_type, headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return refusal.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))[:80]  # as sent
        said = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            return Refusal(400, "not_json", "the body is not JSON").response()
        return Refusal(422, "invalid", f"{place}: {said}" if place else said).response()

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        kind = {404: "not_found", 405: "method"}.get(error.status_code, "invalid")
        return Refusal(error.status_code, kind, str(error.detail).lower()).response()

    @app.exception_handler(OSError)
    async def storage(_: Request, error: OSError) -> Response:
        message = told(error)
        log.error("a request failed", exc_info=error)
        return Refusal(507 if kind_of(message) == "storage" else 500, kind_of(message), message).response()

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return Refusal(500, "internal", BUG).response()
