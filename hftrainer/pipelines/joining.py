"""Motions that are made together though they were asked for one by one: what a server asks of a pipeline.

A `JoinedMotions` belongs to one thread. A pipeline whose engine lets a motion join a batch that is being decoded has
its own (Go to Zero: `hftrainer.pipelines.motionmillion.joining`); `MotionsInTurn` serves every other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hftrainer.pipelines.base import Float32, GeneratedMotion, TextToMotionPipeline
from hftrainer.requests import GenerationRequest, SamplingParams


@dataclass(eq=False)
class MotionSpec:
    """One motion that is asked for: a `request`, or the `parts` (prompt, seconds) of a timeline drawn with `seed`.

    `watched` may be set at any time, by any thread: its codes are reported while they are made.
    """

    prompt: str
    seed: int | None
    sampling: SamplingParams
    request: GenerationRequest | None = None
    parts: Sequence[tuple[str, float]] = ()
    watched: bool = False

    @property
    def texts(self) -> list[str]:
        """The prompts that an encoder reads."""
        return [text for text, _ in self.parts] or [self.prompt]


@dataclass
class MotionProgress:
    """All `codes` of a motion so far, and the `share` of the most that it may have; `done` if no more will come.

    `finish` makes the motion of one that is done; it may be called by another thread. `error`: why there is none.
    """

    key: int
    codes: Sequence[int] = ()
    share: float = 0.0
    done: bool = False
    finish: Callable[[], GeneratedMotion] | None = None
    error: str | None = None


class FramesDecoder(Protocol):
    """Codes of one motion in, frames (t, width) out as soon as they are final."""

    def push(self, code: int) -> Float32:
        """Frames that are final now, often none."""


class JoinedMotions(Protocol):
    """Motions under way. Only `encode` and `decoder` may be called by a thread that does not own it."""

    rows: int

    @property
    def running(self) -> int:
        """Motions whose codes are being made."""

    @property
    def waiting(self) -> int:
        """Motions that wait for a row."""

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """What `add` wants of texts: their features."""

    def add(self, key: int, spec: MotionSpec, features: Sequence[Any]) -> None:
        """Queue a motion, with the features of its texts; ``ValueError`` for one that cannot be made."""

    def cancel(self, key: int) -> None:
        """Drop a motion; its row is free for the next step."""

    def clear(self) -> list[int]:
        """Drop all motions, as after an error; their keys."""

    def shares(self) -> dict[int, float]:
        """How far each running motion is, from 0 to 1."""

    def step(self) -> list[MotionProgress]:
        """Work for some milliseconds; what there is to report."""

    def decoder(self) -> FramesDecoder | None:
        """For the frames of a motion under way; None where a model gives none before its motion is complete."""


@dataclass
class MotionsInTurn:
    """For a pipeline that only runs lists of requests: all that wait and choose alike run together, to their end."""

    pipeline: TextToMotionPipeline
    rows: int = 16
    _line: deque[tuple[int, MotionSpec]] = field(default_factory=deque)
    _batch: list[tuple[int, MotionSpec]] = field(default_factory=list)

    @property
    def running(self) -> int:
        """Motions that are being made."""
        return len(self._batch)

    @property
    def waiting(self) -> int:
        """Queued motions."""
        return len(self._line)

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """Nothing: the pipeline reads texts itself."""
        return [None] * len(texts)

    def add(self, key: int, spec: MotionSpec, features: Sequence[Any]) -> None:
        """Queue a motion."""
        if spec.request is None:
            raise ValueError("this model makes one motion per prompt, and no timelines")
        self._line.append((key, spec))

    def cancel(self, key: int) -> None:
        """Drop a motion that waits."""
        self._line = deque(item for item in self._line if item[0] != key)

    def clear(self) -> list[int]:
        """Drop all."""
        keys = [key for key, _ in (*self._batch, *self._line)]
        self._batch = []
        self._line.clear()
        return keys

    def shares(self) -> dict[int, float]:
        """Unknown."""
        return {}

    def step(self) -> list[MotionProgress]:
        """Run the first in the queue, and those that can run with it."""
        if not self._line:
            return []
        sampling = self._line[0][1].sampling
        batch = self._batch = [item for item in self._line if item[1].sampling == sampling][: self.rows]
        taken = {key for key, _ in batch}
        self._line = deque(item for item in self._line if item[0] not in taken)
        requests = [spec.request for _, spec in batch if spec.request is not None]
        made = self.pipeline.generate(requests, sampling, batch_size=self.rows)
        self._batch = []
        return [_whole(key, motion) for (key, _), motion in zip(batch, made, strict=True)]

    def decoder(self) -> FramesDecoder | None:
        """There is none."""
        return None


def joining_of(pipeline: Any, rows: int | None = None) -> JoinedMotions:
    """The pipeline's own `joining`, or its motions in turn."""
    own = getattr(pipeline, "joining", None)
    made: JoinedMotions = own(rows) if own is not None else MotionsInTurn(pipeline, rows or 16)
    return made


def _whole(key: int, motion: GeneratedMotion) -> MotionProgress:
    return MotionProgress(key, motion.tokens.tolist(), 1.0, True, lambda: motion)
