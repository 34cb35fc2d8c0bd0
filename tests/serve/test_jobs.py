"""Jobs: progress, events, cancelling, and what is left of them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from hftrainer.files import write_json
from hftrainer.serve.store import Store
from tests.serve.test_motions import RUN, WALK, events_of, make, positions_of


def start(client, **body):
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def wait(client, job, status):
    for _ in range(3000):
        found = client.get(job["url"]).json()
        if found["status"] in status:
            return found
        time.sleep(0.02)
    raise AssertionError(f"the job is still {found['status']}")


def test_a_job_is_followed_to_its_end_and_afterwards(client):
    job = start(client, prompt=WALK, seconds=2.0, seed=1)
    while_made = client.get(f"{job['url']}/events").text
    done = wait(client, job, ["done"])
    assert done["progress"] == 1
    assert done["request"]["prompt"] == WALK
    later = client.get(f"{job['url']}/events").text
    for text in (while_made, later):
        events = list(events_of(text))
        assert [name for name, _ in events if name != "frames"] == ["queued", "start", "motion", "done"]
        assert events[-1][1] == done["answer"]
    shown = [
        np.concatenate([positions_of(data) for name, data in events_of(text) if name == "frames"])
        for text in (while_made, later)
    ]
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-3)  # metres; frames are float32
    assert [one["id"] for one in client.get("/v1/jobs").json()["jobs"]] == [job["id"]]


def test_a_job_that_nobody_watched_shows_all_frames_later(client):
    job = start(client, prompts=[WALK, RUN], seconds=1.0)
    wait(client, job, ["done"])
    events = list(events_of(client.get(f"{job['url']}/events").text))
    for motion in (0, 1):
        assert sum(len(positions_of(d)) for name, d in events if name == "frames" and d["motion"] == motion) == 30


def test_cancelling_frees_the_row_and_ends_the_events(make_client):
    client = make_client(rows=1)
    long = [{"prompt": WALK, "seconds": 100.0}]
    first, second = start(client, timeline=long), start(client, prompt=RUN, seconds=0.5)
    wait(client, first, ["running"])
    assert client.get(second["url"]).json()["status"] == "queued"
    assert client.delete(first["url"]).json()["status"] == "cancelled"
    assert wait(client, second, ["done"])["answer"]
    name, data = list(events_of(client.get(f"{first['url']}/events").text))[-1]
    assert (name, data["error"]) == ("error", "cancelled")
    assert client.delete(first["url"]).status_code == 200  # now it is forgotten
    assert client.get(first["url"]).status_code == 404


def test_a_line_that_is_too_long_is_refused(make_client):
    client = make_client(rows=1, queue=2)
    long = [{"prompt": WALK, "seconds": 100.0}]
    jobs = [start(client, timeline=long) for _ in range(2)]
    wait(client, jobs[0], ["running"])
    start(client, timeline=long)
    answer = client.post("/v1/motions", json={"prompt": WALK})
    assert (answer.status_code, answer.json()["error"]) == (429, "busy")
    assert answer.headers["retry-after"]
    for job in client.get("/v1/jobs").json()["jobs"]:
        client.delete(f"/v1/jobs/{job['id']}")


def test_finished_jobs_survive_and_unfinished_ones_say_so(make_client, tmp_path):
    client = make_client()
    done = make(client, prompt=WALK, seconds=0.5)
    client.app.state.service.store.close()
    folder = tmp_path / "jobs"
    unfinished = json.loads((folder / f"{done['id']}.json").read_text())
    other = "f" * 24
    (folder / f"{other}.json").write_text(json.dumps({**unfinished, "id": other, "status": "running", "answer": None}))
    (folder / f"{'a' * 24}-0.npy").write_bytes(b"of no job")
    (folder / f"{'b' * 24}.json").write_text("{")
    again = make_client()
    assert again.get(f"/v1/jobs/{done['id']}").json()["answer"] == done
    assert again.get(done["motions"][0]["files"]["npy"]).status_code == 200
    stopped = again.get(f"/v1/jobs/{other}").json()
    assert (stopped["status"], stopped["error"]["error"]) == ("failed", "stopped")
    assert not (folder / f"{'a' * 24}-0.npy").exists()
    assert (folder / f"{'b' * 24}.json").exists()


@pytest.mark.parametrize("what", ["write_features", "write_json"])
def test_a_full_disk_is_an_error_and_nobody_waits_for_ever(client, monkeypatch, what):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(f"hftrainer.serve.store.{what}", full)
        answer = client.post("/v1/motions", json={"prompts": [WALK, RUN], "seconds": 0.2})
    assert (answer.status_code, answer.json()["error"]) == (507, "storage")
    assert answer.json()["message"] == "the server cannot write its files: no space left on device"  # and no path
    assert make(client, prompt=WALK, seconds=0.2)["motions"]


def test_a_job_ends_once(client):
    made = make(client, prompt=WALK, seconds=0.2)
    job = client.app.state.service.store.get(made["id"])
    client.app.state.service.cancel(job)  # a moment too late
    assert (job.status, job.error) == ("done", None)
    assert client.get(f"/v1/jobs/{made['id']}").json()["answer"] == made


def test_a_job_is_on_disk_before_it_is_seen_to_be_done(client, monkeypatch):
    seen = []

    def write(path, content):
        store = client.app.state.service.store
        seen.append((store.get(content["id"]).status, content["status"]))
        write_json(path, content)

    monkeypatch.setattr("hftrainer.serve.store.write_json", write)
    make(client, prompt=WALK, seconds=0.2)
    assert seen == [("running", "done")]


def test_nothing_of_a_deleted_job_is_written(client, drawing, tmp_path):
    job = start(client, timeline=[{"prompt": WALK, "seconds": 100.0}])
    wait(client, job, ["running"])
    service = client.app.state.service
    found = service.store.get(job["id"])
    (task,) = found.tasks
    service.cancel(found)
    service.store.forget(found)
    task.done(drawing(WALK, seconds=0.2)[0])  # its last code was made at the same moment
    service.store.save(found)
    assert [path.name for path in (tmp_path / "jobs").iterdir() if job["id"] in path.name] == []


def test_the_newest_jobs_are_kept(make_client, tmp_path):
    client = make_client(keep=2)
    made = [make(client, prompt=WALK, seconds=0.2, seed=seed) for seed in range(4)]
    assert [job["id"] for job in client.get("/v1/jobs").json()["jobs"]] == [made[3]["id"], made[2]["id"]]
    assert len(list((tmp_path / "jobs").glob("*.npy"))) == 2


def test_a_finished_job_is_found_in_the_folder_of_another_server(make_client, tmp_path):
    one, other = make_client(jobs=tmp_path / "a"), make_client(jobs=tmp_path / "b")
    made = make(one, prompt=WALK, seconds=0.3)
    assert other.get(f"/v1/jobs/{made['id']}").status_code == 404
    other.app.state.service.store.adopt(made["id"], tmp_path)
    assert other.get(f"/v1/jobs/{made['id']}").json()["answer"] == made
    assert other.get(made["motions"][0]["files"]["npy"]).status_code == 200


def test_two_servers_do_not_share_a_folder(make_client, tmp_path):
    make_client()
    with pytest.raises(ValueError, match="another server keeps its jobs"):
        Store(tmp_path / "jobs", 10, lambda motion: {})


class PanicException(BaseException):
    """As a library in Rust ends, for want of memory say."""


def test_a_panic_while_texts_are_encoded_fails_its_job_and_no_other(client, monkeypatch):
    """The thread ended, and every later request waited for ever."""
    worker = client.app.state.service.models.default.worker

    def panic(texts):
        raise PanicException("the pool has not been initialized")

    with monkeypatch.context() as patch:
        patch.setattr(worker.joined, "encode", panic)
        answer = client.post("/v1/motions", json={"prompt": "a person squats", "seconds": 0.2})
    assert (answer.status_code, answer.json()["error"]) == (500, "internal")
    assert client.get("/healthz").status_code == 200
    assert make(client, prompt=WALK, seconds=0.2)["motions"]
