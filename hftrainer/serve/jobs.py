"""Jobs: a request, its progress and its result."""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from hftrainer.pipelines.joining import MotionSpec
from hftrainer.serve.events import Event, EventLog, event, packed
from hftrainer.serve.refusal import kind_of, told

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hftrainer.pipelines.base import GeneratedMotion
    from hftrainer.serve.store import Store

log = logging.getLogger(__name__)
JOB_ID = re.compile(r"[0-9a-f]{24}")
MOTION_ID = re.compile(r"([0-9a-f]{24})-(\d{1,4})")
OVER = ("done", "failed", "cancelled")


def new_id() -> str:
    """Sorts by time, to the millisecond; the rest cannot be guessed."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(6)}"


@dataclass(eq=False)
class Job:
    """One request. `motions`: what is known of each so far, as the answer will say it."""

    id: str
    model: str
    request: dict[str, Any]
    motions: list[dict[str, Any]]
    representation: str
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="milliseconds"))
    status: str = "queued"
    error: dict[str, str] | None = None
    answer: dict[str, Any] | None = None
    tasks: list[MotionTask] = field(default_factory=list, repr=False)
    log: EventLog | None = field(default=None, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # never held during a write
    files: threading.Lock = field(default_factory=threading.Lock, repr=False)  # held by who writes or deletes
    forgotten: bool = False  # deleted: nothing more of it may be written

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in OVER

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        if self.status == "done":
            return 1.0
        return round(sum(task.progress for task in self.tasks) / max(len(self.tasks), 1), 3)

    def view(self) -> dict[str, Any]:
        """What the API says of it."""
        names = ("id", "status", "progress", "created", "model", "request", "answer", "error")
        return {name: getattr(self, name) for name in names}

    def last_event(self) -> Event:
        """What ends a stream: the answer, or why there is none."""
        if self.answer is not None:
            return event("done", None, **self.answer)
        return event("error", None, **(self.error or {}))

    def watch(self) -> None:
        """A client wants the frames while they are made."""
        for task in self.tasks:
            task.spec.watched = True


@dataclass(eq=False)
class MotionTask:
    """One motion of a running job; what a worker reports goes into the job's log and to the store."""

    job: Job
    index: int
    spec: MotionSpec
    store: Store = field(repr=False)
    created: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    progress: float = 0.0
    _begun: bool = False

    def _say(self, name: str, *, close: bool = False, **data: Any) -> None:
        if self.job.log is not None:
            self.job.log.append(event(name, self.index, **data), close=close)

    def started(self) -> None:
        """Its first code is being made."""
        if self._begun:
            return
        self._begun = True
        with self.job.lock:
            if self.job.status == "queued":
                self.job.status = "running"
        self._say("start", **start_of(self.job, self.index))

    def frames(self, start: int, joints: NDArray[np.float32]) -> None:
        """Frames from `start` on are final."""
        self._say("frames", start=start, positions=packed(joints))

    def done(self, made: GeneratedMotion) -> None:
        """It is complete."""
        self.started()
        known = self.job.motions[self.index]
        if not len(made.motion):
            known["error"] = "the model ended this motion before its first frame; try another seed"
        else:
            self.store.save_motion(self.job, known["id"], made.motion)
            known |= {"frames": len(made.motion), "seconds": round(made.seconds, 3), "ended": bool(made.ended)}
            known["files"] = self.store.files_of(known["id"])
        self._end(known)

    def failed(self, message: str) -> None:
        """It cannot be made."""
        known = self.job.motions[self.index]
        known["error"] = message
        self._end(known)

    def _end(self, known: dict[str, Any]) -> None:
        self.progress = 1.0
        self._say("motion", **known)
        with self.job.lock:
            last = all(task.progress == 1.0 for task in self.job.tasks) and not self.job.over
            if last:
                self.job.tasks = []
        if last:
            finish(self.job, self.store)


def start_of(job: Job, index: int) -> dict[str, Any]:
    """What a start event says."""
    motion = job.motions[index]
    said = {name: motion.get(name) for name in ("prompt", "seed", "fps", "known", "nearest", "segments")}
    return {"id": job.id, "joints": 22, **said}


def finish(job: Job, store: Store) -> None:
    """All motions of a job have ended, made or failed: save it, then notify those who wait."""
    if all("error" in motion for motion in job.motions):
        close(job, store, "failed", error=_failure(job.motions[0]["error"]))
    else:
        close(job, store, "done", answer={"id": job.id, "model": job.model, "motions": job.motions})


def _failure(message: str) -> dict[str, str]:
    return {"error": kind_of(message), "message": message}


def close(
    job: Job, store: Store, status: str, *, error: dict[str, str] | None = None, answer: dict[str, Any] | None = None
) -> None:
    """The job is over, unless it already was: on disk first, then for everyone who asks or waits."""
    with job.files:
        if job.over:
            return
        try:
            store.write(job, status=status, error=error, answer=answer)
        except OSError as reason:
            log.exception("a finished job could not be written")
            if status == "done":  # the next start would not find it
                status, error, answer = "failed", _failure(told(reason)), None
        with job.lock:
            job.error, job.answer, job.status = error, answer, status
    job.tasks, events = [], job.log
    store.closed(job)
    if events is not None:
        events.append(job.last_event(), close=True)
