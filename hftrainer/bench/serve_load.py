"""Clients of a server, many at once: those that wait, read slowly, leave, or send what is no request."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS = ("waits", "reads slowly", "leaves", "is malformed")
_SLOW = 2048  # bytes that a slow client reads between two pauses
_PAUSE = 0.05  # seconds
_MALFORMED = (b"{", b"[]", b'{"prompt": 7}', b'{"prompt": "' + b"x" * 10_000 + b'"}', b'{"prompt": "a", "count": 1e9}')


@dataclass
class Load:
    """What became of the requests: seconds of those that were answered, and sentences about those that were not."""

    seconds: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    elapsed: float = 0.0

    def figures(self) -> dict[str, Any]:
        """For the table and the file."""
        cuts = statistics.quantiles(self.seconds, n=100) if len(self.seconds) > 1 else [0.0] * 99
        return {
            **self.kinds, "lost": len(self.lost), "elapsed": round(self.elapsed, 2),
            "p50": round(cuts[49], 3), "p99": round(cuts[98], 3),
        }  # fmt: skip


def load(address: tuple[str, int], bodies: Sequence[dict[str, Any]], *, mixed: bool) -> Load:
    """Send all `bodies` at the same moment. `mixed`: of ten requests one is read slowly, one left, one malformed."""
    return asyncio.run(_load(address, bodies, mixed))


async def _load(address: tuple[str, int], bodies: Sequence[dict[str, Any]], mixed: bool) -> Load:
    out = Load()
    began = time.monotonic()
    kinds = [KINDS[number % 10] if mixed and 0 < number % 10 < 4 else KINDS[0] for number in range(len(bodies))]
    clients = {"waits": _wait, "reads slowly": _read_slowly, "leaves": _leave, "is malformed": _malformed}

    async def one(number: int) -> None:
        kind, body = kinds[number], bodies[number]
        try:
            problem = await clients[kind](address, body, out, number)
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            problem = f"{type(error).__name__}: {error}"
        out.kinds[kind] += 1
        if problem:
            out.lost.append(f"a client that {kind}: {problem}")

    await asyncio.gather(*(one(number) for number in range(len(bodies))))
    out.elapsed = time.monotonic() - began
    return out


async def _wait(address: tuple[str, int], body: dict[str, Any], out: Load, number: int) -> str:
    began = time.monotonic()
    status, answer = await request(address, "POST", "/v1/motions", json.dumps(body).encode())
    out.seconds.append(time.monotonic() - began)
    return "" if status == 200 and _is_answer(json.loads(answer), body) else f"status {status}: {answer[:200]!r}"


async def _read_slowly(address: tuple[str, int], body: dict[str, Any], out: Load, number: int) -> str:
    reader, writer = await _send(address, "POST", "/v1/motions", json.dumps({**body, "stream": True}).encode())
    parts = []
    while part := await reader.read(_SLOW):
        parts.append(part)
        await asyncio.sleep(_PAUSE)
    writer.close()
    found = re.findall(rb"event: done\ndata: (.*)\n", b"".join(parts))
    return "" if found and _is_answer(json.loads(found[0]), body) else "the stream has no end"


async def _leave(address: tuple[str, int], body: dict[str, Any], out: Load, number: int) -> str:
    _, writer = await _send(address, "POST", "/v1/motions", json.dumps(body).encode())
    await asyncio.sleep(0.01 * (number % 50))
    writer.transport.abort()
    return ""


async def _malformed(address: tuple[str, int], body: dict[str, Any], out: Load, number: int) -> str:
    status, answer = await request(address, "POST", "/v1/motions", _MALFORMED[number // 10 % len(_MALFORMED)])
    return "" if status in (400, 422) and json.loads(answer)["message"] else f"status {status}: {answer[:200]!r}"


def _is_answer(answer: Any, body: dict[str, Any]) -> bool:
    (motion,) = answer["motions"]
    return bool(motion["prompt"] == body["prompt"] and motion["seed"] == body["seed"] and motion["frames"] > 0)


async def request(address: tuple[str, int], method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    reader, writer = await _send(address, method, path, body)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), await reader.read()
    finally:
        writer.close()


async def _send(
    address: tuple[str, int], method: str, path: str, body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address)
    host, port = address
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    return reader, writer
