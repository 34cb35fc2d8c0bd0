"""Checks before anything else: who may call, from where, and with how large a body.

A server on loopback is still reached by every page that its user's browser shows: such a page can send requests here,
and, by pointing its own name at 127.0.0.1 (DNS rebinding), read the answers. So the Host header has to be one of this
server's names, and a request that a browser sends for another site's page (Origin) is refused.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hftrainer.serve.metrics import Metrics
from hftrainer.serve.refusal import Refusal
from hftrainer.serve.settings import Settings

_LOCAL = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OPEN = ("/", "/healthz")  # and /page/*: the code of the page, which asks for the token
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Guard:
    """Refuses, reads bodies up to a limit, counts and times."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics
        self._names = {name.lower() for name in (*_LOCAL, settings.host, *settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 499  # nginx's number for a client that left before there was an answer
        headers = Headers(scope=scope)
        origin = headers.get("origin")

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                more = [pair for pair in _HEADERS if pair[0] not in present]
                if origin in self.settings.origins:
                    more += [(b"access-control-allow-origin", str(origin).encode()), (b"vary", b"Origin")]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            if scope["method"] == "OPTIONS" and origin in self.settings.origins:
                await self._preflight(counted)
                return
            self._check(scope, headers)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                receive = await self._with_body(headers, receive)
            await self.app(scope, receive, counted)
        except Refusal as refusal:
            await refusal.response()(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"  # clients may invent any number
            self.metrics.count("hftrainer_requests_total", route=route, method=method, status=str(status))
            self.metrics.time("hftrainer_request_seconds", time.monotonic() - began, route=route)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope, Headers(scope=scope))
        except Refusal:
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
            return
        await self.app(scope, receive, send)

    # --- checks -----------------------------------------------------------------------------------------------------

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.settings.is_local and _name(host) not in self._names:
            raise Refusal(403, "host", "the Host header is no name of this server; use localhost, or --allow-host NAME")
        origin = headers.get("origin")
        if origin is not None and origin not in self.settings.origins and _authority(origin) != host.lower():
            raise Refusal(403, "origin", "pages of other sites may not call this server; see --allow-origin")
        path = scope["path"]
        if self.settings.token and path not in _OPEN and not path.startswith("/page/"):
            self._check_token(scope, headers)
        if scope["type"] == "http" and scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Refusal(415, "not_json", "send the request as JSON, with Content-Type: application/json")

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        given = headers.get("authorization", "")
        token = given[7:] if given[:7].lower() == "bearer " else ""
        if not given:
            token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not secrets.compare_digest(token.encode(), str(self.settings.token).encode()):
            raise Refusal(401, "token", "this server needs its token: send Authorization: Bearer TOKEN")

    async def _preflight(self, send: Send) -> None:
        headers = [
            (b"access-control-allow-methods", b"GET, POST, DELETE"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
        ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _with_body(self, headers: Headers, receive: Receive) -> Receive:
        """Reads the whole body, in a limited time, and gives it to the app as one message."""
        most = self.settings.max_body
        said = headers.get("content-length", "0")
        if said.isdigit() and int(said) > most:
            raise _too_large(most)
        try:
            body = await asyncio.wait_for(_read(receive, most), self.settings.body_seconds)
        except asyncio.TimeoutError:
            message = f"the body was not complete after {self.settings.body_seconds:g} s; send it at once"
            raise Refusal(408, "slow_body", message) from None
        waiting = [body]

        async def again() -> Message:
            if waiting:
                return {"type": "http.request", "body": waiting.pop(), "more_body": False}
            return await receive()

        return again


async def _read(receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "cut", "the connection was closed before the body was complete")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too_large", f"a body has at most {most} bytes; send fewer prompts at once")


def _name(host: str) -> str:
    """The name in a Host header: without the port, and without the brackets of an IPv6 address."""
    match = _HOST.fullmatch(host.lower())
    return match[1].strip("[]") if match else ""


def _authority(origin: str) -> str:
    """Name and port of an Origin header; nothing where it is not a web address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
