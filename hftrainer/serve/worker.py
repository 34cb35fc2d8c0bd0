"""The threads of a model: texts are encoded, one thread decodes all motions, finished ones become files.

    request -> texts (thread) -> engine (thread, owns the batch) -> results (thread) -> job, disk, clients

Only the engine touches the batch; it takes what came since its last step, and never waits for a client or a disk.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import OrderedDict
from typing import Any

from hftrainer.pipelines.joining import FramesDecoder, MotionProgress, joining_of
from hftrainer.serve.jobs import MotionTask
from hftrainer.serve.live import LiveFeed
from hftrainer.serve.metrics import Metrics
from hftrainer.serve.refusal import BUG, Refusal, told
from hftrainer.serve.settings import Settings
from hftrainer.serve.world_joints import WorldJoints

log = logging.getLogger(__name__)
_TEXTS, _REMEMBERED = 32, 256  # encoded together; features that are kept
_SHARES_EVERY = 0.1  # seconds


class _Shown:
    """A watched motion: how many of its codes became frames, and how many frames were shown."""

    def __init__(self, decoder: FramesDecoder | None, representation: Any):
        self.decoder, self.joints = decoder, WorldJoints(representation)
        self.codes = self.frames = 0


class Worker:
    """Makes the motions of one model. `submit`, `cancel` and `open_live` may be called by any thread."""

    def __init__(self, name: str, pipeline: Any, settings: Settings, metrics: Metrics):
        self.name, self.pipeline, self.settings, self.metrics = name, pipeline, settings, metrics
        self.joined = joining_of(pipeline, settings.rows)
        self._tasks: dict[int, MotionTask] = {}
        self._keys = itertools.count()
        self._changed = threading.Condition()
        self._incoming: list[tuple[int, list[Any]]] = []
        self._dropped: list[int] = []
        self._feeds: list[LiveFeed] = []
        self._closing = False
        self._texts: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[MotionProgress | None] = queue.SimpleQueue()
        self._shown: dict[int, _Shown] = {}
        self._features: OrderedDict[str, Any] = OrderedDict()
        parts = {"texts": self._run_texts, "engine": self._run_engine, "results": self._run_results}
        self._threads = [
            threading.Thread(target=part, name=f"{name} {what}", daemon=True) for what, part in parts.items()
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the current step; unfinished motions stay unfinished."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._texts.put(None)
        self._results.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)

    @property
    def alive(self) -> bool:
        """Whether all threads run."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def waiting(self) -> int:
        """Motions that have no row yet."""
        return max(0, len(self._tasks) - self.joined.running)

    @property
    def live(self) -> int:
        """Live sessions."""
        return len(self._feeds)

    def submit(self, tasks: list[MotionTask]) -> None:
        """Queue motions; a `Refusal` if the queue is full."""
        with self._changed:
            if self.waiting + len(tasks) > self.settings.queue:
                raise Refusal(
                    429, "busy", f"{self.waiting} motions are waiting, at most {self.settings.queue} may; try later",
                    retry_after=5,
                )  # fmt: skip
            tasks = [task for task in tasks if not task.cancelled]  # by a client that found the job in the list
            keys = [next(self._keys) for _ in tasks]
            self._tasks.update(zip(keys, tasks, strict=True))
        for key in keys:
            self._texts.put(key)

    def cancel(self, tasks: list[MotionTask]) -> None:
        """Drop motions, wherever they are."""
        with self._changed:
            for task in tasks:
                task.cancelled = True
            gone = [key for key, task in self._tasks.items() if task.cancelled]
            for key in gone:
                del self._tasks[key]
            self._dropped += gone
            self._changed.notify()
        for _ in gone:
            self.metrics.count("hftrainer_motions_total", model=self.name, how="cancelled")

    def open_live(self, feed: LiveFeed) -> None:
        """Add a live session; a `Refusal` if there are too many."""
        with self._changed:
            if len(self._feeds) >= self.settings.max_live:
                raise Refusal(429, "busy", f"{len(self._feeds)} live sessions are open, which is the most; try later")
            feed.wake = self._wake
            self._feeds.append(feed)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    # --- texts ------------------------------------------------------------------------------------------------------

    def _run_texts(self) -> None:
        while True:
            keys = [self._texts.get()]
            while len(keys) < _TEXTS and None not in keys:
                try:
                    keys.append(self._texts.get_nowait())
                except queue.Empty:
                    break
            tasks = {key: self._tasks[key] for key in keys if key is not None and key in self._tasks}
            try:
                ready = self._encode(tasks)
            except BaseException as error:  # a panic of the tokenizers' library is no Exception
                log.exception("texts could not be encoded")
                self._fail(list(tasks), error)
                ready = []
            with self._changed:
                self._incoming += ready
                self._changed.notify()
            if None in keys:
                return

    def _encode(self, tasks: dict[int, MotionTask]) -> list[tuple[int, list[Any]]]:
        known = self._features
        texts = {text: None for task in tasks.values() for text in task.spec.texts}
        new = [text for text in texts if text not in known]
        found = {text: known[text] for text in texts if text in known}
        for start in range(0, len(new), _TEXTS):
            part = new[start : start + _TEXTS]
            found.update(zip(part, self.joined.encode(part), strict=True))
        for text in texts:
            known[text] = found[text]
            known.move_to_end(text)
        while len(known) > _REMEMBERED:
            known.popitem(last=False)
        return [(key, [found[text] for text in task.spec.texts]) for key, task in tasks.items()]

    # --- engine -----------------------------------------------------------------------------------------------------

    def _run_engine(self) -> None:
        shares_at = 0.0
        while True:
            with self._changed:
                if not (self._incoming or self._dropped or self._closing or self.joined.running or self.joined.waiting):
                    due = min((feed.due(time.monotonic()) for feed in self._feeds), default=float("inf"))
                    if due > 0:
                        self._changed.wait(min(due, 10.0))
                if self._closing:
                    return
                incoming, self._incoming = self._incoming, []
                dropped, self._dropped = self._dropped, []
                self._feeds = [feed for feed in self._feeds if not feed.closed]
                feeds = list(self._feeds)
            self._admit(incoming, dropped)
            try:
                for report in self.joined.step():
                    self._results.put(report)
            except Exception as error:
                log.exception("a step failed")
                self._fail(self.joined.clear(), error)
            now = time.monotonic()
            if now - shares_at >= _SHARES_EVERY or incoming:
                shares_at = now
                self._report_progress()
            self._advance(feeds)

    def _admit(self, incoming: list[tuple[int, list[Any]]], dropped: list[int]) -> None:
        for key, features in incoming:
            task = self._tasks.get(key)
            if task is None:
                continue
            try:
                self.joined.add(key, task.spec, features)
            except ValueError as error:
                self._fail([key], error)
        for key in dropped:
            self.joined.cancel(key)
            self._shown.pop(key, None)

    def _report_progress(self) -> None:
        for key, share in self.joined.shares().items():
            task = self._tasks.get(key)
            if task is not None:
                task.started()
                task.progress = min(0.99, share)

    def _advance(self, feeds: list[LiveFeed]) -> None:
        for feed in feeds:
            if feed.due(time.monotonic()) > 0:
                continue
            try:
                feed.advance()
            except ValueError as error:
                feed.fail("live", str(error))
            except Exception:
                log.exception("a live session failed")
                feed.fail("internal", BUG)

    def _fail(self, keys: list[int], error: BaseException) -> None:
        message = told(error)
        for key in keys:
            self._results.put(MotionProgress(key, done=True, error=message))

    # --- results ----------------------------------------------------------------------------------------------------

    def _run_results(self) -> None:
        while (report := self._results.get()) is not None:
            task = self._tasks.get(report.key)
            if task is None:  # cancelled
                self._shown.pop(report.key, None)
                continue
            try:
                self._take(task, report)
            except Exception as error:
                log.exception("a motion could not be finished")
                self._tasks.pop(report.key, None)
                self._shown.pop(report.key, None)
                if task.progress < 1.0:  # its client is waiting
                    task.failed(told(error))
                    self.metrics.count("hftrainer_motions_total", model=self.name, how="failed")

    def _take(self, task: MotionTask, report: MotionProgress) -> None:
        shown = self._shown.get(report.key)
        if shown is None and task.spec.watched and not report.done:
            shown = self._shown[report.key] = _Shown(self.joined.decoder(), self.pipeline.motion_format)
        if shown is not None and shown.decoder is not None and not report.done:
            task.started()
            for code in report.codes[shown.codes :]:
                self._show(task, shown, shown.decoder.push(code))
            shown.codes = len(report.codes)
        if not report.done:
            return
        made = None
        if report.error is None and report.finish is not None:
            made = report.finish()
            if shown is not None:
                self._show(task, shown, made.motion[shown.frames :])
        self._shown.pop(report.key, None)
        if self._tasks.pop(report.key, None) is None:
            return
        if made is None:
            task.failed(report.error or BUG)
        else:
            task.done(made)
            self.metrics.count("hftrainer_codes_total", len(made.tokens), model=self.name)
        self.metrics.count("hftrainer_motions_total", model=self.name, how="failed" if made is None else "done")
        self.metrics.time("hftrainer_motion_seconds", time.monotonic() - task.created, model=self.name)

    def _show(self, task: MotionTask, shown: _Shown, frames: Any) -> None:
        if len(frames):
            task.started()
            task.frames(shown.frames, shown.joints.push(frames))
            shown.frames += len(frames)
