"""What the routes call: submit, wait, follow, cancel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from hftrainer.motion.representation.base import get_representation
from hftrainer.serve.events import Event, EventLog, event, packed
from hftrainer.serve.exports import Exports, formats
from hftrainer.serve.jobs import Job, close, start_of
from hftrainer.serve.metrics import Labels, Metrics
from hftrainer.serve.plan import plan
from hftrainer.serve.refusal import Refusal
from hftrainer.serve.schema import MotionRequest
from hftrainer.serve.served import Models
from hftrainer.serve.settings import Settings
from hftrainer.serve.store import Store
from hftrainer.serve.world_joints import WorldJoints

_REPLAYED = 60  # frames of a finished motion in one event
_STATUS = {"no_motion": 422, "cancelled": 409, "stopped": 503, "storage": 507}


class Service:
    """The models, jobs and files of one server."""

    def __init__(self, settings: Settings, metrics: Metrics, models: Models):
        self.settings, self.metrics, self.models = settings, metrics, models
        endings = formats()
        self.store = Store(
            settings.jobs,
            settings.keep,
            lambda motion: {kind: f"/v1/motions/{motion}/motion.{kind}" for kind in endings},
        )
        self.exports = Exports(self.store, models)
        self._measure()

    def start(self) -> None:
        """Begin to work."""
        for served in self.models:
            served.worker.start()

    def stop(self) -> None:
        """End; what is not finished is found by the next start."""
        for served in self.models:
            served.worker.stop()
        self.exports.close()
        self.store.close()

    @property
    def healthy(self) -> bool:
        """Whether every model's threads run."""
        return all(served.worker.alive for served in self.models)

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def submit(self, request: MotionRequest, *, kept: bool) -> Job:
        """A new job in the queue; with `kept`, one that a later start of the server knows. Raises `Refusal`."""
        served = self.models.get(request.model)
        worker = served.worker
        job = await asyncio.to_thread(plan, request, served, self.store)
        job.log = EventLog()
        job.log.append(event("queued", id=job.id, position=worker.waiting))
        if request.stream:
            job.watch()
        self.store.add(job)
        try:
            if kept:
                await asyncio.to_thread(self.store.save, job)
            worker.submit(job.tasks)
        except (Refusal, OSError):
            self.store.forget(job)
            raise
        return job

    def cancel(self, job: Job) -> None:
        """End a job: its motions so far are dropped, its rows are freed."""
        self.models.get(job.model).worker.cancel(job.tasks)
        close(job, self.store, "cancelled", error={"error": "cancelled", "message": "the job was cancelled"})

    def abandon(self, job: Job) -> None:
        """End a job whose client has left."""
        if not job.over:
            self.cancel(job)
            self.store.forget(job)

    async def answer(self, job: Job, gone: Callable[[], Awaitable[None]]) -> dict[str, object]:
        """The answer of a job when it is over; `gone` returns when the client has left, and the job is abandoned."""
        assert job.log is not None
        over, left = asyncio.ensure_future(job.log.wait_closed()), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({over, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            left.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await over
            if not job.over:
                await asyncio.to_thread(self.abandon, job)
        if job.answer is None:
            error = job.error or {}
            kind = error.get("error", "internal")
            raise Refusal(_STATUS.get(kind, 500), kind, error.get("message", "the client has left"))
        return job.answer

    async def follow(self, job: Job) -> AsyncIterator[bytes]:
        """The job's events from the first on."""
        shown: set[int | None] = set()
        async for one in self._events(job):
            if one.name == "frames":
                shown.add(one.motion)
            elif one.name == "motion" and one.motion not in shown:
                async for frames in self._frames(job, one.motion or 0):
                    yield frames.text
            yield one.text

    def _events(self, job: Job) -> AsyncIterator[Event]:
        if job.log is not None:
            job.watch()
            return job.log.follow()
        return _told_again(job)

    async def _frames(self, job: Job, index: int) -> AsyncIterator[Event]:
        """The frames of a finished motion that nobody watched."""
        motion = job.motions[index]
        if "error" in motion:
            return
        try:
            features = await asyncio.to_thread(self.store.features, motion["id"])
        except (OSError, ValueError):  # deleted in the meantime
            return
        joints = WorldJoints(get_representation(job.representation)).push(features)
        for start in range(0, len(joints), _REPLAYED):
            part = packed(joints[start : start + _REPLAYED])
            yield event("frames", index, start=start, positions=part)

    def _measure(self) -> None:
        def of(ask: Callable[[str], float]) -> Callable[[], dict[Labels, float]]:
            return lambda: {(("model", served.name),): ask(served.name) for served in self.models}

        worker = {served.name: served.worker for served in self.models}
        self.metrics.gauges |= {
            "hftrainer_waiting_motions": of(lambda name: worker[name].waiting),
            "hftrainer_running_rows": of(lambda name: worker[name].joined.running),
            "hftrainer_rows": of(lambda name: worker[name].joined.rows),
            "hftrainer_live_sessions": of(lambda name: worker[name].live),
            "hftrainer_jobs": lambda: {(): float(len(self.store))},
        }


async def _told_again(job: Job) -> AsyncIterator[Event]:
    """Events of a job that is over, but for frames."""
    yield event("queued", id=job.id, position=0)
    for index, motion in enumerate(job.motions):
        if job.answer is not None:
            yield event("start", index, **start_of(job, index))
            yield event("motion", index, **motion)
    yield job.last_event()
