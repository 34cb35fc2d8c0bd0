"""What is refused: by a status and one sentence, before any work."""

from __future__ import annotations

import json
import re

import pytest

from hftrainer.serve.settings import Settings
from tests.serve.test_motions import WALK, make

BAD = [
    ({}, 422, "give one of prompt, prompts and timeline"),
    ({"prompt": ""}, 422, "prompt"),
    ({"prompt": "  "}, 422, "is empty"),
    ({"prompt": "x" * 10_000}, 422, "10000 characters"),
    ({"prompt": "walk\ud800"}, 422, "unicode"),
    ({"prompt": "walk\0"}, 422, r"U\+0000"),
    ({"prompt": 7}, 422, "prompt"),
    ({"prompt": WALK, "prompts": [WALK]}, 422, "prompt and prompts"),
    ({"prompt": WALK, "seconds": 1000}, 422, "up to 4 s"),
    ({"prompt": WALK, "seconds": -1}, 422, "seconds"),
    ({"prompt": WALK, "seconds": 0.001}, 422, "0.001 s"),
    ({"prompt": WALK, "count": 0}, 422, "count"),
    ({"prompt": WALK, "count": 17}, 422, "count is 17"),
    ({"prompt": WALK, "count": True}, 422, "count"),
    ({"prompts": [WALK] * 65}, 422, "65 motions"),
    ({"prompt": WALK, "seed": -1}, 422, "seed"),
    ({"prompt": WALK, "seed": 2**63}, 422, "seed"),
    ({"prompt": WALK, "temperature": 0.0}, 422, "temperature"),
    ({"prompt": WALK, "top_p": 2.0}, 422, "top_p"),
    ({"prompt": WALK, "guidance_scale": 3.0}, 422, "not made for guidance"),
    ({"prompt": WALK, "colour": "red"}, 422, "colour"),
    ({"prompt": WALK, "model": "../../etc/passwd"}, 404, "there are tiny"),
    ({"prompt": WALK, "strict": True}, 422, "cannot tell which prompts"),
    ({"timeline": []}, 422, "timeline"),
    ({"timeline": [{"prompt": WALK, "seconds": 500.0}]}, 422, "up to 120 s"),
    ({"timeline": [{"prompt": WALK, "seconds": 1.0}], "seconds": 1.0}, 422, "own seconds"),
]  # fmt: skip


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory, drawing):
    from starlette.testclient import TestClient

    from hftrainer.serve.app import create_app

    app = create_app(Settings(jobs=tmp_path_factory.mktemp("jobs"), rows=4, max_body=20_000), {"tiny": drawing})
    with TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(("body", "status", "said"), BAD, ids=lambda value: str(value)[:40])
def test_bad_requests(shared_client, body, status, said):
    answer = shared_client.post(
        "/v1/motions", content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert re.search(said, answer.json()["message"])
    assert "\n" not in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 422), (b"{", 400), (b"[]", 422), (b"\xff\xfe", 400), (b'{"prompt": "w", "seconds": NaN}', 422),
     (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400), (b'{"prompt": "' + b"x" * 30_000 + b'"}', 413)],
    ids=["empty", "cut", "list", "no text", "NaN", "deep", "large"],
)  # fmt: skip
def test_bodies_that_are_no_request(shared_client, content, status):
    answer = shared_client.post("/v1/motions", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message"}


STRANGE = ["<script>alert(1)</script>", "../../etc/passwd", "motion.glb", "人が歩く", "a\nb\r\n\tc"]


@pytest.mark.parametrize("prompt", STRANGE)
def test_strange_prompts_are_only_text(shared_client, prompt):
    (motion,) = make(shared_client, prompt=prompt, seconds=0.3)["motions"]
    assert motion["prompt"] == prompt
    page = shared_client.get(f"/v1/motions/{motion['id']}/viewer").text
    assert "<script>alert" not in page
    disposition = shared_client.get(motion["files"]["glb"]).headers["content-disposition"]
    assert "/" not in disposition
    assert "<" not in disposition


def test_only_json_is_read(shared_client):
    answer = shared_client.post("/v1/motions", content=b'{"prompt": "walk"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 403), ({"Host": "localhost.evil.example:8000"}, 403), ({"Host": "[::1]:8000"}, 200),
     ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://localhost:8000"}, 200)],
)  # fmt: skip
def test_other_sites_cannot_call(shared_client, headers, status):
    assert shared_client.get("/v1/models", headers=headers).status_code == status


def test_a_site_that_is_allowed(make_client):
    client = make_client(origins=("https://studio.example",))
    origin = {"Origin": "https://studio.example"}
    assert client.options("/v1/motions", headers=origin).status_code == 204
    answer = client.get("/v1/models", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://studio.example"


def test_a_token(make_client):
    client = make_client(token="open sesame".replace(" ", "-"))
    assert client.get("/v1/models").status_code == 401
    assert client.get("/metrics").status_code == 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/models", params={"token": "open-sesame"}).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": "Bearer open-sesame"}).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_other_machines_need_a_token(host):
    with pytest.raises(ValueError, match="must show a token"):
        Settings(host=host)
    assert not Settings(host=host, token="0123456789").is_local


def test_a_missing_extra_is_named(monkeypatch, capsys):
    import sys

    from hftrainer.cli import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 1
    assert "pip install 'hftrainer[serve]'" in capsys.readouterr().err
