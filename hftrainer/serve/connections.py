"""Connections that send a request line and headers slowly, or never.

uvicorn limits the wait for the next request of a connection, but neither for the first nor for headers that have begun;
`guard` limits bodies. Without a limit, a client that sends a byte a minute holds a connection for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class HeadInTime(H11Protocol):
    """uvicorn's HTTP/1.1; closes a connection on which a request's head is not complete after `HEAD_SECONDS`."""

    HEAD_SECONDS = 20.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the clock where a head is waited for, unless it runs already; else stop it."""
        if not self._waiting():
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(self.HEAD_SECONDS, self._close)

    def _waiting(self) -> bool:
        upgraded = self.transport.get_protocol() is not self  # a websocket now
        return not upgraded and (self.cycle is None or self.cycle.response_complete)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if self._waiting():
            self.transport.close()
