"""What hostile clients send to a running server: over sockets, as HTTP libraries would not."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from hftrainer.serve.app import create_app
from hftrainer.serve.connections import HeadInTime
from hftrainer.serve.run import _listen, config_of
from hftrainer.serve.settings import Settings
from tests.serve.test_motions import RUN, WALK

PATIENCE = 120  # seconds, on a machine with other work
POST = "POST /v1/motions HTTP/1.1\nHost: localhost\nContent-Type: application/json"
LONG = {"timeline": [{"prompt": WALK, "seconds": 100.0}]}


@dataclass
class Place:
    """A server on loopback."""

    port: int
    service: Any
    jobs: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def raw(self, sent: bytes) -> bytes:
        """What comes back until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(sent)
            return everything(connection)

    def ask(self, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Host": f"localhost:{self.port}", "Connection": "close", "Content-Type": "application/json"}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        answer = self.raw(
            f"{method} {path} HTTP/1.1\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        )
        return parsed(answer)

    def job_ids(self) -> set[str]:
        return {job["id"] for job in json.loads(self.ask("GET", "/v1/jobs?limit=1000")[1])["jobs"]}

    def until_idle(self) -> None:
        """Until no motion is made or waits."""
        worker = self.service.models.default.worker
        until(lambda: worker.joined.running == worker.joined.waiting == worker.waiting == 0)


def everything(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def parsed(answer: bytes) -> tuple[int, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def until(true: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def place(drawing, tmp_path_factory) -> Iterator[Place]:
    jobs = tmp_path_factory.mktemp("jobs")
    settings = Settings(jobs=jobs, port=0, rows=2, body_seconds=1.0)
    listening = _listen(settings)
    app = create_app(settings, {"tiny": drawing})
    patch = pytest.MonkeyPatch()
    patch.setattr(HeadInTime, "HEAD_SECONDS", 1.0)
    server = uvicorn.Server(config_of(app))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    until(lambda: server.started)
    yield Place(listening.getsockname()[1], app.state.service, jobs)
    server.should_exit = True
    thread.join(timeout=PATIENCE)
    patch.undo()


@pytest.fixture(scope="module")
def motion(place) -> str:
    """The id of a finished motion."""
    status, answer = place.ask("POST", "/v1/motions", {"prompt": WALK, "seconds": 0.5})
    assert status == 200
    return str(json.loads(answer)["motions"][0]["id"])


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("GET /v1/models HTTP/1.1\nHost: localhost", 200),
        ("GET /v1/models HTTP/1.1\nHost: LocalHost:80", 200),
        ("GET /v1/models HTTP/1.1\nHost: localhost\nHost: evil.example", 400),
        ("GET /v1/models HTTP/1.1", 400),
        ("GET /v1/models HTTP/1.0", 403),
        ("GET /v1/models HTTP/1.1\nHost: evil.example", 403),
        ("GET /v1/models HTTP/1.1\nHost: 127.0.0.1.evil.example:8000", 403),
        ("GET /v1/models HTTP/1.1\nHost: localhost:80.evil.example", 403),
        ("GET /v1/models HTTP/1.1\nHost: evil.example:80@localhost", 403),
        ("GET /v1/models HTTP/1.1\nHost: localhost@evil.example", 403),
        ("GET /v1/models HTTP/1.1\nHost: [::1", 403),
        ("GET /v1/models HTTP/1.1\nHost: localhost\nOrigin: http://[", 403),
        ("GET /v1/models HTTP/1.1\nHost: localhost\nOrigin: http://localhost.evil.example", 403),
        ("GET /v1/models HTTP/1.1\nHost: localhost\nOrigin: http://localhost@evil.example", 403),
        ("GET /v1/models HTTP/1.1\nHost: localhost\nOrigin: ", 403),
        ("OPTIONS /v1/motions HTTP/1.1\nHost: localhost\nOrigin: https://evil.example", 403),
        ("GET http://evil.example/v1/models HTTP/1.1\nHost: localhost", 404),
        ("STEAL /v1/models HTTP/1.1\nHost: localhost", 405),
        (POST + "\nContent-Length: -1", 400),
        (POST + "\nContent-Length: 1e9", 400),
        (POST + "\nContent-Length: 1000000000000", 413),
        ("not HTTP at all", 400),
    ],
    ids=lambda value: str(value).replace("\n", " | ")[:90],
)  # fmt: skip
def test_heads(place, lines, status):
    answer = place.raw(lines.replace("\n", "\r\n").encode() + b"\r\nConnection: close\r\n\r\n")
    assert parsed(answer)[0] == status
    assert b"Traceback" not in answer
    assert b"access-control" not in answer.lower()


@pytest.mark.parametrize("name", ["motions/../../../etc/passwd", "motions/..%2f..%2f..%2fetc%2fpasswd/motion.npy",
                                  "motions/%00/motion.npy", "motions/ID/..%2f..%2fetc%2fpasswd",
                                  "motions/ID/motion.%2e%2e",
                                  "motions/ID%2f..%2f..%2fetc/motion.npy", "motions/ID/motion.npy%00.glb",
                                  "motions/.lock/motion.npy", "jobs/..%2f..%2fetc%2fpasswd", "jobs/%00",
                                  "jobs/.lock", "models/..%2f..%2fetc%2fpasswd/vocabulary", "../page/..%2f__init__.py",
                                  "../page/%2e%2e/__init__.py", "../page//etc/passwd", "..//etc/passwd"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_paths_lead_nowhere(place, motion, name, method):
    status, body = place.ask(method, "/v1/" + name.replace("ID", motion))
    assert status in (404, 405)
    assert set(json.loads(body)) == {"error", "message"}
    assert place.service.store.features_file(motion).is_file()
    assert (place.jobs / ".lock").is_file()


@pytest.mark.parametrize("query", ["fps=nan", "fps=inf", "fps=-inf", "fps=1e9", "fps=0", "fps=1e999",
                                   "skeleton=../../etc/passwd",
                                   "skeleton=%00", "unit=m%0d%0aX: 1", "up=x", "loop=perhaps"])  # fmt: skip
def test_options_of_files(place, motion, query):
    status, body = place.ask("GET", f"/v1/motions/{motion}/motion.bvh?{query}".replace(" ", "%20"))
    assert status == 422
    assert set(json.loads(body)) == {"error", "message"}


def test_files_of_a_motion_do_not_fill_the_disk(place, motion, monkeypatch):
    monkeypatch.setattr("hftrainer.serve.exports._FILES", 3)
    for fps in range(20, 26):
        assert place.ask("GET", f"/v1/motions/{motion}/motion.csv?fps={fps}")[0] == 200
    assert len(list((place.jobs / "files").glob(f"{motion}.*"))) == 3
    assert place.ask("GET", f"/v1/motions/{motion}/motion.csv?fps=20")[0] == 200  # made again


@pytest.mark.parametrize("kind", ["", "text/plain", "text/json", "application/jsonp",
                                  "application/x-www-form-urlencoded",
                                  "multipart/form-data; boundary=x", "application/json, text/plain"])  # fmt: skip
def test_content_types_that_a_form_can_send(place, kind):
    assert place.ask("POST", "/v1/motions", {"prompt": WALK}, Content_Type=kind)[0] == 415


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"[" * 900_000, (400,)),
        (b'{"prompt":' * 90_000, (400,)),
        (b'{"timeline":' + b"[" * 40_000 + b"]" * 40_000 + b"}", (400, 422)),
        (b'{"prompt": "w", "seed": 1' + b"0" * 5000 + b"}", (400, 422)),
        (b'{"prompt": "w", "seconds": 1e400}', (422,)),
        (b'{"prompt": "w", "seconds": -Infinity}', (422,)),
        (b'{"prompt": "w", "temperature": NaN}', (422,)),
        (b'{"timeline": [{"prompt": "w", "seconds": NaN}]}', (422,)),
        (b'{"timeline": [{"prompt": "w", "seconds": 1e308}, {"prompt": "w", "seconds": 1e308}]}', (422,)),
        (b'{"prompt": "w", "count": 1000000000}', (422,)),
        (b'{"prompt": "w", "count": 1e9}', (422,)),
        (json.dumps({"prompts": ["w"] * 100_000}).encode(), (422,)),
        (json.dumps({"timeline": [{"prompt": "w", "seconds": 0.001}] * 20_000}).encode(), (422,)),
        (json.dumps({"prompt": "w " * 5000}).encode(), (422,)),
        (json.dumps({"prompt": "w", "x" * 100_000: 1}).encode(), (422,)),
        (b"\x1f\x8b\x08" + b"\0" * 100, (400,)),
        (b"\0" * 1000, (400,)),
    ],
    ids=lambda value: str(value[:60]),
)  # fmt: skip
def test_bodies(place, body, statuses):
    status, answer = place.ask("POST", "/v1/motions", body)
    assert status in statuses
    told = json.loads(answer)
    assert set(told) == {"error", "message"}
    assert len(told["message"]) < 1000


def test_methods_that_clients_invent_are_not_counted_one_by_one(place):
    place.raw(b"INVENTED / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    _, text = place.ask("GET", "/metrics")
    assert b"INVENTED" not in text
    assert b'method="other"' in text


# --- slow clients, and those that leave -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /v1/mod", b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Slow: "],
    ids=["nothing", "line", "header"],
)
def test_a_head_that_never_ends_is_cut(place, sent):
    assert place.raw(sent) == b""


def test_a_second_head_that_never_ends_is_cut(place):
    with place.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /hea")
        everything(connection)


def test_bodies_that_drip_are_refused_while_others_are_answered(place):
    head = POST.replace("\n", "\r\n").encode() + b"\r\nContent-Length: 100\r\n\r\n"
    dripping = [place.connect() for _ in range(50)]
    for connection in dripping:
        connection.sendall(head + b'{"prompt"')
    assert place.ask("POST", "/v1/motions", {"prompt": WALK, "seconds": 0.2})[0] == 200
    for connection in dripping:
        with connection:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")


def test_a_request_that_takes_long_is_not_cut(place, monkeypatch):
    """The limit is for heads, not for answers: this one waits twice as long for its first code, on any processor."""
    joined, held = place.service.models.default.worker.joined, threading.Event()
    step = joined.step
    monkeypatch.setattr(joined, "step", lambda: step() if held.wait(PATIENCE) else [])
    with place.connect() as connection:
        connection.sendall(posted(json.dumps({"prompt": WALK, "seconds": 0.5, "stream": True}).encode()))
        time.sleep(2 * HeadInTime.HEAD_SECONDS)
        held.set()
        answer = b""
        while b"event: done" not in answer:
            part = connection.recv(1 << 16)
            assert part, answer
            answer += part
    place.until_idle()


def posted(body: bytes) -> bytes:
    head = POST.replace("\n", "\r\n")
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def reset(connection: socket.socket) -> None:
    """Close with RST, as a process that was killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(
    ("stream", "seen"), [(False, b""), (True, b""), (True, b"event: start"), (True, b"event: frames")]
)
def test_clients_that_leave_free_their_rows(place, stream, seen):
    body = json.dumps({**LONG, "stream": stream}).encode()
    before, jobs = {path.name for path in place.jobs.iterdir()}, place.job_ids()
    connections = [place.connect() for _ in range(6 if not seen else 2)]
    for connection in connections:
        connection.sendall(posted(body))
    for number, connection in enumerate(connections):
        got = b""
        while seen not in got:
            got += connection.recv(1 << 16)
        time.sleep(0.01 * number)  # some before the job exists, some after
        reset(connection)
    place.until_idle()
    until(lambda: place.job_ids() == jobs)
    assert {path.name for path in place.jobs.iterdir()} <= before


def test_cancelled_at_any_moment_by_two_at_once(place):
    """Whatever comes first, a job ends once, and nothing of a deleted one stays."""
    kept = {path.name for path in place.jobs.iterdir()}

    def delete(url: str, statuses: list[int]) -> None:
        statuses.append(place.ask("DELETE", url)[0])

    for number in range(12):
        status, answer = place.ask("POST", "/v1/jobs", {"prompts": [WALK, RUN], "seconds": 0.2, "seed": number})
        assert status == 202
        url = json.loads(answer)["url"]
        time.sleep(0.02 * number)
        statuses: list[int] = []
        threads = [threading.Thread(target=delete, args=(url, statuses)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) <= {200, 404}
        found, told = place.ask("GET", url)
        if found == 200:
            job = json.loads(told)
            assert (job["answer"] is None) == (job["status"] != "done")
            assert (job["error"] is None) == (job["status"] == "done")
            assert place.ask("DELETE", url)[0] == 200
        assert place.ask("GET", url)[0] == 404
    place.until_idle()
    until(lambda: {path.name for path in place.jobs.iterdir()} == kept)


# --- live -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["seed=-1", "seed=1e9", f"seed={10**30}", "seed=nan"])
def test_seeds_of_live_sessions(place, query):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{place.port}/v1/live?{query}"):
        pass


def test_live_messages_that_are_none(place):
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{place.port}/v1/live") as session:
        assert json.loads(session.recv())["ready"]
        for message in (
            b"\0\xff",
            "[" * 60_000,
            '{"say": NaN}',
            '{"say": "' + "x" * 10_000 + '"}',
            '{"say": ' + "9" * 5000 + "}",
        ):
            session.send(message)
            assert json.loads(session.recv(timeout=PATIENCE))["error"] == "invalid"
        session.send(json.dumps({"say": "<script>alert(1)</script>"}))
        assert json.loads(session.recv(timeout=PATIENCE))["prompt"] == "<script>alert(1)</script>"
    until(lambda: place.service.models.default.worker.live == 0)


def test_a_flood_of_live_messages_is_not_kept(place):
    """A client that sends and never reads is not read either, so its answers do not pile up."""
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{place.port}/v1/live", max_queue=1) as session:
        flood = threading.Thread(target=send_until_closed, args=(session,), daemon=True)
        flood.start()
        worker = place.service.models.default.worker
        until(lambda: len(worker._feeds) == 1)  # the client knows of the session before its feed is there
        (feed,) = worker._feeds
        most = 0
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            most = max(most, feed._messages.qsize())
        assert 0 < most <= 16
        session.socket.shutdown(socket.SHUT_RDWR)
    flood.join(timeout=PATIENCE)


def send_until_closed(session: Any) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            session.send("[" + " " * 1000 + "]")
    except (ConnectionClosed, OSError):
        pass


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_in_the_address_is_for_what_has_no_headers(make_client, caplog, capfd):
    client = make_client(host="0.0.0.0", token="in-the-address")
    assert client.get("/v1/models?token=in-the-addres").status_code == 401
    assert client.get("/v1/models?token=").status_code == 401
    assert client.get("/v1/models?token=%ff%00").status_code == 401
    assert client.get("/v1/models?token=wrong&token=in-the-address").status_code == 401
    assert client.get("/v1/models?token=in-the-address", headers={"Authorization": "Basic x"}).status_code == 401
    (motion,) = client.post(
        "/v1/motions", json={"prompt": WALK, "seconds": 0.2}, headers={"Authorization": "Bearer in-the-address"}
    ).json()["motions"]
    answer = client.get(motion["files"]["npy"] + "?token=in-the-address")
    assert answer.status_code == 200
    assert answer.headers["referrer-policy"] == "no-referrer"
    texts = [client.get(path + "?token=in-the-address").text for path in ("/", "/metrics", "/openapi.json", "/v1/jobs")]
    assert not any("in-the-address" in text for text in texts)
    assert "in-the-address" not in caplog.text + "".join(capfd.readouterr())


def test_a_token_is_not_said_to_those_without_it(make_client):
    client = make_client(host="0.0.0.0", token="nobody-hears-it")
    for method, path in (
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/v1/jobs"),
        ("POST", "/v1/motions"),
        ("GET", "/docs"),
    ):
        assert not re.search("nobody-hears-it", client.request(method, path).text)
