"""The events of a job, as server-sent events that any number of clients read at their own pace.

An event is written once and kept while the job runs or a client reads. A reader has a position in the log and no queue
of its own, so a slow client costs nothing and delays no one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEARTBEAT = 15.0  # seconds without an event after which a comment shows that the server is there


class Event(NamedTuple):
    """A server-sent event: its name, the motion of the job that it is about, its text."""

    name: str
    motion: int | None
    text: bytes


def event(name: str, motion: int | None = None, **data: Any) -> Event:
    """One event. JSON has no line breaks, so one data line holds it."""
    if motion is not None and name in ("start", "frames"):
        data = {"motion": motion, **data}
    return Event(name, motion, f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())


STILL_HERE = Event("", None, b": still here\n\n")


def packed(joints: NDArray[Any]) -> str:
    """Positions (t, 22, 3) in metres as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(joints, dtype="<f4").tobytes()).decode("ascii")


class EventLog:
    """Events of a job, appended by any thread, followed by coroutines."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._closed = False
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def append(self, *events: Event, close: bool = False) -> None:
        """Add events; after `close` nothing is added any more."""
        with self._lock:
            if self._closed:
                return
            self._events += events
            self._closed = close
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # the loop of a client that is gone
                loop.call_soon_threadsafe(_wake, future)

    async def follow(self) -> AsyncIterator[Event]:
        """All events from the first on, until the log is closed, and `STILL_HERE` now and then."""
        position = 0
        while True:
            with self._lock:
                new, closed = self._events[position:], self._closed
                wait = None
                if not new and not closed:
                    loop = asyncio.get_running_loop()
                    wait = loop.create_future()
                    self._waiting.append((loop, wait))
            for one in new:
                yield one
            position += len(new)
            if wait is not None:
                done, _ = await asyncio.wait({wait}, timeout=HEARTBEAT)
                if not done:
                    yield STILL_HERE
            elif closed and not new:
                return

    async def wait_closed(self) -> None:
        """Until nothing more will come."""
        async for _ in self.follow():
            pass


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
