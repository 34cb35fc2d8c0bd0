"""Finished jobs on disk: ``ID.json`` and ``ID-0.npy``, ``ID-1.npy``, ... with the model's own features.

A motion's file is there before its job's, and every file is complete or absent, so a server that is killed leaves
complete jobs; files that belong to no job are removed at the next start.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import read_npy
from hftrainer.files import atomic_path, check_writable, remove_leftovers, write_json
from hftrainer.readers import read_json
from hftrainer.render.export import write_features
from hftrainer.serve.jobs import JOB_ID, MOTION_ID, Job
from hftrainer.serve.refusal import Refusal

log = logging.getLogger(__name__)
_KEPT_LOGS = 16  # of jobs without an answer, whose frames are nowhere else
_SAVED = ("id", "model", "request", "motions", "representation", "created", "status", "error", "answer")


class Store:
    """The `keep` newest jobs of a folder, and those that run. `files_of` gives the addresses of a motion's files."""

    def __init__(self, folder: Path, keep: int, files_of: Callable[[str], dict[str, str]]):
        self.folder, self.keep, self.files_of = check_writable(folder), keep, files_of
        self.exports = check_writable(folder / "files")
        self._jobs: OrderedDict[str, Job] = OrderedDict()  # oldest first
        self._lock = threading.RLock()
        self._logs: deque[Job] = deque()
        self._held: IO[str] = self._hold()
        self._read()

    # --- jobs -------------------------------------------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """A job that was accepted."""
        with self._lock:
            self._jobs[job.id] = job

    def get(self, name: str) -> Job:
        """A job by its id; a `Refusal` if there is none."""
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise Refusal(404, "not_found", "there is no such job; it may have been deleted, or be too old")
        return job

    def __len__(self) -> int:
        return len(self._jobs)

    def adopt(self, name: str, root: Path) -> None:
        """Take a copy of a job that another server has finished, if the folder of one in `root` has it."""
        if name in self._jobs or not JOB_ID.fullmatch(name):
            return
        for folder in root.iterdir():
            if folder.resolve() == self.folder.resolve() or not (folder / f"{name}.json").is_file():
                continue
            job = _job_of(read_json(folder / f"{name}.json"))
            if job.status != "done":
                return
            for motion in job.motions:
                source = folder / f"{motion['id']}.npy"
                if source.is_file():
                    with atomic_path(self.features_file(motion["id"])) as temporary:
                        shutil.copyfile(source, temporary)
            self.save(job)
            self.add(job)
            return

    def newest(self, count: int) -> list[Job]:
        """Jobs, newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))[:count]

    def motion(self, name: str) -> tuple[Job, dict[str, Any]]:
        """A finished motion by its id, and its job."""
        match = MOTION_ID.fullmatch(name)
        job = self._jobs.get(match[1]) if match else None
        index = int(match[2]) if match else 0
        if job is None or index >= len(job.motions) or not self.features_file(name).is_file():
            raise Refusal(404, "not_found", "there is no such motion; it may have been deleted, or not be finished")
        return job, job.motions[index]

    def save(self, job: Job) -> None:
        """Write a job, unless it was deleted."""
        with job.files:
            self.write(job)

    def write(self, job: Job, **changed: Any) -> None:
        """The same for who holds `job.files`; `changed`: fields as they will be once they are on disk."""
        if not job.forgotten:
            write_json(self.folder / f"{job.id}.json", {**{name: getattr(job, name) for name in _SAVED}, **changed})

    def closed(self, job: Job) -> None:
        """A job is over: drop what it held in memory, and the oldest jobs."""
        with self._lock:
            if job.status == "done":
                job.log = None
            else:
                self._logs.append(job)
                if len(self._logs) > _KEPT_LOGS:
                    self._logs.popleft().log = None
            over = [one for one in self._jobs.values() if one.over] if len(self._jobs) > self.keep else []
        for old in over[: len(self._jobs) - self.keep]:
            self.forget(old)

    def forget(self, job: Job) -> None:
        """Delete a job and its files; the job first, so that no job is without its motions."""
        with self._lock:
            self._jobs.pop(job.id, None)
        with job.files:
            job.forgotten = True
            (self.folder / f"{job.id}.json").unlink(missing_ok=True)
            for motion in job.motions:
                self._remove_motion(motion["id"])

    # --- motions ----------------------------------------------------------------------------------------------------

    def features_file(self, motion: str) -> Path:
        """Where the features of a motion are."""
        return self.folder / f"{motion}.npy"

    def save_motion(self, job: Job, motion: str, features: NDArray[np.float32]) -> None:
        """Write the features (t, width) of a motion, unless its job was deleted."""
        with job.files:
            if not job.forgotten:
                write_features(self.features_file(motion), features)

    def features(self, motion: str) -> NDArray[np.float32]:
        """Features (t, width) of a motion."""
        return np.asarray(read_npy(self.features_file(motion)), np.float32)

    def exported(self, motion: str) -> list[Path]:
        """Files of a motion. A glob would compile a pattern for every motion."""
        return [path for path in self.exports.iterdir() if path.name.startswith(f"{motion}.")]

    def _remove_motion(self, motion: str) -> None:
        self.features_file(motion).unlink(missing_ok=True)
        for path in self.exported(motion):
            path.unlink(missing_ok=True)

    # --- start ------------------------------------------------------------------------------------------------------

    def _hold(self) -> IO[str]:
        """A lock that ends with the process: two servers would take each other's jobs for abandoned ones."""
        stream = open(self.folder / ".lock", "w", encoding="ascii")
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except OSError:
            stream.close()
            raise ValueError(f"another server keeps its jobs in {self.folder}; choose another folder") from None
        return stream

    def close(self) -> None:
        """Release the folder."""
        self._held.close()

    def _read(self) -> None:
        """Read the jobs that an earlier server left; those that it did not finish have failed."""
        remove_leftovers(self.folder)
        remove_leftovers(self.exports)
        for path in sorted(self.folder.glob("*.json")):
            if not JOB_ID.fullmatch(path.stem):
                continue
            try:
                job = _job_of(read_json(path))
            except (ValueError, OSError) as error:
                log.warning("%s is not a job; it is ignored: %s", path, error)
                continue
            if not job.over:
                message = "the server was stopped before this job was finished; send it again"
                job.status, job.error = "failed", {"error": "stopped", "message": message}
                self.save(job)
            self._jobs[job.id] = job
        for path in [*self.folder.glob("*.npy"), *self.exports.iterdir()]:
            match = MOTION_ID.match(path.name)
            if match and match[1] not in self._jobs and not (self.folder / f"{match[1]}.json").exists():
                path.unlink(missing_ok=True)
        for job in list(self._jobs.values())[: max(0, len(self._jobs) - self.keep)]:
            self.forget(job)


def _job_of(content: Any) -> Job:
    kinds = {"id": str, "model": str, "request": dict, "motions": list, "representation": str, "created": str}
    if not isinstance(content, dict) or set(content) != set(_SAVED):
        raise ValueError(f"a job has the fields {', '.join(_SAVED)}")
    for name, kind in {**kinds, "status": str}.items():
        if not isinstance(content[name], kind):
            raise ValueError(f"{name} must be {kind.__name__}, got {content[name]!r}")
    for motion in content["motions"]:
        given = motion.get("id") if isinstance(motion, dict) else None
        if not isinstance(given, str) or not MOTION_ID.fullmatch(given):  # it becomes a file's name
            raise ValueError(f"motions must have ids as this server gives them, got {given!r:.80}")
    known = {one.name for one in fields(Job)}
    return Job(**{name: value for name, value in content.items() if name in known})
