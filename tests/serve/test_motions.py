"""Motions by HTTP: what is asked for is made, as the pipeline makes it."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hftrainer.arrays import parse_npy

WALK, RUN = "a person walks forward", "run as fast as possible"


def events_of(text):
    """Names and data of server-sent events."""
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            yield lines["event"], json.loads(lines["data"])


def positions_of(data):
    return np.frombuffer(base64.b64decode(data["positions"]), "<f4").reshape(-1, 22, 3)


def make(client, **body):
    answer = client.post("/v1/motions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def features(client, motion):
    answer = client.get(motion["files"]["npy"])
    assert answer.status_code == 200
    return np.asarray(parse_npy(answer.content, "npy"))


def test_a_motion_is_that_of_the_pipeline(client, drawing):
    made = make(client, prompt=WALK, seconds=2.0, seed=7)
    (motion,) = made["motions"]
    assert made["model"] == "tiny"
    assert (motion["prompt"], motion["seed"], motion["frames"], motion["fps"]) == (WALK, 7, 60, 30.0)
    want = drawing(WALK, seconds=2.0, seed=7)[0].motion
    np.testing.assert_allclose(features(client, motion), want, atol=1e-5)


def test_several_prompts_and_counts(client, drawing):
    made = make(client, prompts=[WALK, RUN], count=2, seed=3, seconds=1.0)
    assert [(m["prompt"], m["seed"]) for m in made["motions"]] == [(WALK, 3), (WALK, 4), (RUN, 3), (RUN, 4)]
    want = drawing([WALK, RUN], num_motions=2, seed=3, seconds=1.0)
    for motion, one in zip(made["motions"], want, strict=True):
        np.testing.assert_allclose(features(client, motion), one.motion, atol=1e-5)


def test_a_timeline_is_that_of_the_pipeline(client, drawing):
    parts = [(WALK, 1.5), (RUN, 3.0), (WALK, 0.5)]
    made = make(client, timeline=[{"prompt": text, "seconds": seconds} for text, seconds in parts], seed=5)
    (motion,) = made["motions"]
    assert [part["start"] for part in motion["segments"]] == [0, 1.5, 4.5]
    np.testing.assert_allclose(features(client, motion), drawing.timeline(parts, seed=5).motion, atol=1e-5)


def test_a_stream_shows_the_motion_while_it_is_made(client, drawing):
    answer = client.post("/v1/motions", json={"prompt": WALK, "seconds": 3.0, "seed": 2, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = list(events_of(answer.text))
    names = [name for name, _ in events]
    assert names[:2] == ["queued", "start"]
    assert names[-2:] == ["motion", "done"]
    frames = [data for name, data in events if name == "frames"]
    assert len(frames) > 3
    assert [data["start"] for data in frames] == np.cumsum([0, *[len(positions_of(d)) for d in frames]])[:-1].tolist()
    shown = np.concatenate([positions_of(data) for data in frames])
    want = drawing.motion_format.to_joints(drawing(WALK, seconds=3.0, seed=2)[0].motion)
    np.testing.assert_allclose(shown, want, atol=1e-3)  # metres; frames are float32


def test_together_or_alone_is_the_same(client):
    bodies = [{"prompt": WALK, "seed": seed, "temperature": t} for seed in range(3) for t in (0.7, 1.3)]
    alone = [make(client, **body) for body in bodies]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda body: make(client, **body), bodies))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(
            features(client, one["motions"][0]), features(client, other["motions"][0]), atol=1e-5
        )


def test_files_are_made_on_demand(client):
    (motion,) = make(client, prompt=WALK, seconds=1.0)["motions"]
    for kind in ("glb", "bvh", "npz", "csv"):
        answer = client.get(motion["files"][kind])
        assert answer.status_code == 200
        assert len(answer.content) > 1000
        assert f"a-person-walks-forward_s0.{kind}" in answer.headers["content-disposition"]
    assert client.get(motion["files"]["bvh"], params={"skeleton": "mixamo", "fps": 60}).status_code == 200
    page = client.get(f"/v1/motions/{motion['id']}/viewer")
    assert page.headers["content-type"].startswith("text/html")
    assert WALK in page.text


@pytest.mark.parametrize(
    "path", ["motion.exe", "..%2f..%2fetc%2fpasswd", "motion.glb?skeleton=nobody", "motion.npz?fps=-1"]
)
def test_files_that_do_not_exist(client, path):
    (motion,) = make(client, prompt=WALK, seconds=0.5)["motions"]
    answer = client.get(f"/v1/motions/{motion['id']}/{path}")
    assert answer.status_code in (404, 422)
    assert answer.json()["message"]
    assert client.get("/v1/motions/nobody-0/motion.glb").status_code == 404


def test_models_and_server(client):
    said = client.get("/v1/models").json()
    assert said["default"] == "tiny"
    assert said["models"][0]["max_seconds"] == 4.0
    assert client.get("/v1/models/tiny/vocabulary").json() == {"verbs": {}}
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/openapi.json").json()["paths"]["/v1/motions"]["post"]
    make(client, prompt=WALK, seconds=0.5)
    deadline = time.monotonic() + 30  # the result is counted after it is answered
    while 'how="done"' not in (text := client.get("/metrics").text) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 'hftrainer_motions_total{how="done",model="tiny"} 1' in text
    assert 'hftrainer_requests_total{method="POST",route="/v1/motions",status="200"} 1' in text
