"""Run by tests: a server's queue as a job that is done once all that was asked for is there.

A client sends what no finished job has made yet and waits; files of the first motions are asked for, too. Run again
after a kill it looks first whether the server remembers all that it had accepted, and whether nothing of an unfinished
job is left. What was made is copied to `made`, under names that do not change with the jobs' random ids.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftrainer.readers import read_json
from hftrainer.serve.jobs import JOB_ID, MOTION_ID

PROMPTS = ("a person walks forward", "a person waves", "someone jumps up and down")
JOBS, ACCEPTED = "_served", "_served/accepted.txt"
_PIPELINES: dict[str, Any] = {}


def finished(out: Path) -> Iterator[Path]:
    """Files of jobs that are recorded as done; a missing one is what must not be."""
    for path in sorted((out / JOBS).glob("*.json")):
        job = read_json(path) if JOB_ID.fullmatch(path.stem) else {}
        if job.get("status") == "done":
            for motion in job["motions"]:
                yield out / JOBS / f"{motion['id']}.npy"


def main(arguments: list[str]) -> int:
    """Model folder and output folder; 1 and a sentence where something cannot be done."""
    from starlette.testclient import TestClient

    from hftrainer.serve.app import create_app
    from hftrainer.serve.settings import Settings

    logging.disable()  # where the server says more of a disk that is full
    model, out = map(Path, arguments)
    try:
        app = create_app(Settings(jobs=out / JOBS, rows=4), {"tiny": _pipeline(model)})
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
            _check_folder(out)
            _ask(client, out)
            _collect(client, out)
    except (OSError, RuntimeError, MemoryError, Refused) as error:  # no thread can be started, say
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


class Refused(Exception):
    """What the server said in place of an answer."""


def _pipeline(model: Path) -> Any:
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline
    from hftrainer.requests import SamplingParams

    if str(model) not in _PIPELINES:
        made = MotionMillionPipeline.from_pretrained(model, device="cpu")
        made.sampling = SamplingParams(do_sample=True, temperature=1.0, top_p=0.95)
        _PIPELINES[str(model)] = made
    return _PIPELINES[str(model)]


def _check_folder(out: Path) -> None:
    """After a start: what was accepted is known, and every file belongs to a job."""
    known = {path.stem for path in (out / JOBS).glob("*.json")}
    noted = (out / ACCEPTED).read_text().split() if (out / ACCEPTED).is_file() else []
    lost = [name for name in noted if JOB_ID.fullmatch(name) and name not in known and f"-{name}" not in noted]
    assert not lost, f"forgotten: {lost}"
    for path in [*(out / JOBS).iterdir(), *(out / JOBS / "files").iterdir()]:
        match = MOTION_ID.match(path.name)
        assert match is None or match[1] in known, f"left over: {path.name}"
        assert ".tmp" not in path.name, f"left over: {path.name}"
    unfinished = [name for name in known if read_json(out / JOBS / f"{name}.json")["status"] in ("queued", "running")]
    assert not unfinished, unfinished


def _said(response: Any) -> Any:
    if response.status_code >= 400:
        raise Refused(f"{response.status_code}: {response.json()['message']}")
    return response.json()


def _note(out: Path, what: str) -> None:
    """What the client knows: jobs that were accepted, and, with a minus, those that it is about to delete."""
    with open(out / ACCEPTED, "a") as stream:
        stream.write(what + "\n")


def _ask(client: Any, out: Path) -> None:
    """Send what is not done yet, and wait."""
    views = _said(client.get("/v1/jobs"))["jobs"]
    done = set()
    for view in views:
        motions = (view["answer"] or {}).get("motions", [])
        if all(client.get(f"/v1/motions/{motion['id']}/motion.npy").status_code == 200 for motion in motions):
            done |= {view["request"]["prompt"]} if motions else set()
        else:  # a file was deleted
            _note(out, f"-{view['id']}")
            _said(client.delete(f"/v1/jobs/{view['id']}"))
    for number, prompt in enumerate(PROMPTS):
        if prompt in done:
            continue
        body = {"prompt": prompt, "seed": number, "count": 2, "seconds": 0.5}
        accepted = _said(client.post("/v1/jobs", json=body))
        _note(out, accepted["id"])
    end = time.monotonic() + 120
    while any(view["status"] in ("queued", "running") for view in _said(client.get("/v1/jobs"))["jobs"]):
        if time.monotonic() > end:
            raise Refused("the jobs are not finished after two minutes")
        time.sleep(0.005)


def _collect(client: Any, out: Path) -> None:
    """Forget jobs that failed, and copy what the others made; raises `Refused` if some prompt has no job."""
    found = {}
    for view in _said(client.get("/v1/jobs"))["jobs"]:
        motions = (view["answer"] or {}).get("motions", [])
        if view["status"] == "done" and not any("error" in motion for motion in motions):
            found[view["request"]["prompt"]] = motions
        else:
            _note(out, f"-{view['id']}")
            _said(client.delete(f"/v1/jobs/{view['id']}"))
    (out / "made").mkdir(exist_ok=True)
    for number, prompt in enumerate(PROMPTS):
        if prompt not in found:
            raise Refused(f"no motions of {prompt!r} could be made")
        for index, motion in enumerate(found[prompt]):
            for kind in ("npy", "bvh")[: 2 - bool(number)]:
                response = client.get(f"/v1/motions/{motion['id']}/motion.{kind}")
                if response.status_code != 200:
                    _said(response)
                (out / "made" / f"{number}-{index}.{kind}").write_bytes(response.content)
    _check_folder(out)
    assert len(list((out / JOBS).glob("*.npy"))) == 2 * len(PROMPTS)
