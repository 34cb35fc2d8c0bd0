"""Live sessions: an endless motion whose prompt changes while it plays."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from hftrainer.serve.events import packed
from hftrainer.serve.world_joints import EndlessJoints

AHEAD = 1.0  # seconds that are made before they are played
UNSENT = 8  # messages that may wait for a slow client; then its figure stands still


class LiveFeed:
    """One session, advanced by the engine's thread, read by a coroutine.

    Frames are made at the pace at which they play, `AHEAD` of it, and not while `UNSENT` messages wait for the client.
    """

    def __init__(self, pipeline: Any, seed: int, loop: asyncio.AbstractEventLoop):
        self.session: Any = pipeline.live(seed=seed)
        self.fps: float = pipeline.motion_format.fps
        self.closed = False
        self._frames: Iterator[Any] = iter(self.session)
        self._joints = EndlessJoints(pipeline.motion_format)
        self._loop, self._messages = loop, asyncio.Queue[dict[str, Any]]()
        self._made, self._began = 0, 0.0
        self._unsent = 0
        self._spoken = False
        self.wake: Callable[[], None] = lambda: None

    def say(self, prompt: str) -> None:
        """What the figure does from now on; ``ValueError`` for what the model cannot read."""
        self.session.say(prompt)
        self._spoken = True
        self.wake()

    def stop(self) -> None:
        """No more frames."""
        self.closed = True
        self.wake()

    async def next_message(self) -> dict[str, Any]:
        """What is sent next."""
        message = await self._messages.get()
        self._unsent -= 1
        self.wake()
        return message

    async def room(self) -> None:
        """Wait until the client has read most messages, so that answers to one that never reads do not pile up."""
        while self._unsent >= 2 * UNSENT:
            await asyncio.sleep(0.1)

    def due(self, now: float) -> float:
        """Seconds until the next frames should be made; 0 if now, infinity if something must happen first."""
        if self.closed or not self._spoken or self._unsent >= UNSENT:
            return float("inf")
        if not self._began:
            return 0.0
        return max(0.0, self._began + self._made / self.fps - AHEAD - now)

    def advance(self) -> None:
        """Make the next frames and send them."""
        frames = next(self._frames)
        now = time.monotonic()
        if not self._began or now > self._began + self._made / self.fps:
            self._began = now - self._made / self.fps  # the first, or late: what was missed is not made up for
        self.send(
            start=self._made, positions=packed(self._joints.push(frames)), prompt=self.session.prompt_at(self._made)
        )
        self._made += len(frames)

    def fail(self, kind: str, message: str) -> None:
        """Send the reason why the session ends."""
        self.closed = True
        self.send(error=kind, message=message)

    def send(self, **message: Any) -> None:
        """Send a message; any thread may."""
        self._unsent += 1
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it the client
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)
