"""Files of finished motions, made when they are first asked for, and kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hftrainer.extras import MissingExtra
from hftrainer.motion.body import BodyMotion
from hftrainer.motion.fit import pose
from hftrainer.render.export import ENDINGS, ExportOptions, check_formats, write
from hftrainer.serve.refusal import Refusal
from hftrainer.serve.served import Models
from hftrainer.serve.store import Store

MEDIA = {
    "npy": "application/octet-stream", "npz": "application/octet-stream", "amass": "application/octet-stream",
    "bvh": "text/plain", "glb": "model/gltf-binary", "vrma": "model/gltf-binary", "csv": "text/csv",
    "usd": "model/vnd.usda", "mp4": "video/mp4", "gif": "image/gif", "webp": "image/webp", "html": "text/html",
}  # fmt: skip
_POSED = 8  # fitted motions that are kept: a client often asks for several files of one
_WAITING = 64
_FILES = 64  # of one motion that are kept; a frame rate has too many values to keep a file for each


def formats() -> list[str]:
    """Formats that can be written here; those whose packages are missing are left out."""
    out = ["npy"]
    for name in ENDINGS:
        try:
            check_formats((name,))
        except MissingExtra:
            continue
        out.append(name)
    return out


def format_of_file(name: str) -> str:
    """The format of a file ``motion.ENDING``, by its ending or by the format's own name; raises `Refusal`."""
    ending = name.removeprefix("motion.")
    for kind in formats():
        if ending in (kind, ENDINGS.get(kind, "").removeprefix(".")):
            return kind
    raise Refusal(404, "unknown_format", f"there are files motion.X for X of {', '.join(formats())}")


def _written(file: Path) -> float:
    """When, in seconds; 0 where it is gone."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


class Exports:
    """Writes files in a few separate threads, so that a video delays no motion."""

    def __init__(self, store: Store, models: Models, threads: int = 2):
        self.store, self.models = store, models
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="files")
        self._making: dict[Path, asyncio.Future[None]] = {}
        self._posed: OrderedDict[tuple[str, bool], BodyMotion] = OrderedDict()
        self._lock = threading.Lock()

    async def file(self, motion: str, kind: str, options: ExportOptions, *, raw: bool = False) -> Path:
        """The file of a motion in a format; raises `Refusal`."""
        self.store.motion(motion)
        if kind == "npy":
            return self.store.features_file(motion)
        try:
            check_formats((kind,), options)
        except ValueError as error:
            raise Refusal(422, "invalid", str(error)) from error
        said = json.dumps([asdict(options), raw], sort_keys=True)
        digest = hashlib.sha256(said.encode()).hexdigest()[:12]
        path = self.store.exports / f"{motion}.{digest}{ENDINGS[kind]}"
        if not path.is_file():
            await asyncio.shield(self._made(path, motion, kind, options, raw))
        return path

    def close(self) -> None:
        """No more files."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _made(self, path: Path, motion: str, kind: str, options: ExportOptions, raw: bool) -> asyncio.Future[None]:
        """The task that makes a file; further requests for it wait for the same task."""
        if path not in self._making:
            if len(self._making) >= _WAITING:
                raise Refusal(429, "busy", f"{len(self._making)} files are being made; try later", retry_after=5)
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._pool, self._write, path, motion, kind, options, raw)
            work.add_done_callback(lambda _: self._making.pop(path, None))
            self._making[path] = work
        return self._making[path]

    def _write(self, path: Path, motion: str, kind: str, options: ExportOptions, raw: bool) -> None:
        job, known = self.store.motion(motion)
        try:
            shown = options.apply(self._fitted(job.model, motion, job.representation, raw), raw=raw)
            write(path, [shown], options, titles=[known["prompt"]], kind=kind, raw=raw)
        except ValueError as error:
            raise Refusal(422, "invalid", str(error)) from error
        self._tidy(motion)

    def _tidy(self, motion: str) -> None:
        """Delete the oldest of too many files of a motion, and all if it was deleted while this one was written."""
        files = sorted(self.store.exported(motion), key=_written)
        try:
            self.store.motion(motion)
            files = files[:-_FILES]
        finally:
            for file in files:
                file.unlink(missing_ok=True)

    def _fitted(self, model: str, motion: str, representation: str, raw: bool) -> BodyMotion:
        with self._lock:
            if (motion, raw) in self._posed:
                self._posed.move_to_end((motion, raw))
                return self._posed[motion, raw]
        body: Any = self.models.body_of(model)
        shown = pose(self.store.features(motion), body, representation=representation, raw=raw)
        with self._lock:
            self._posed[motion, raw] = shown
            if len(self._posed) > _POSED:
                self._posed.popitem(last=False)
        return shown
