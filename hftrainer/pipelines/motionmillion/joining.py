"""Motions of Go to Zero that join a batch while it is decoded; see `hftrainer.pipelines.joining`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.engine.prompts import rows_that_fit
from hftrainer.models.motion.motionmillion.engine.running_batch import RowProgress, RowRequest, RunningBatch
from hftrainer.models.motion.motionmillion.engine.stream import CONTEXT
from hftrainer.pipelines.base import GeneratedMotion
from hftrainer.pipelines.joining import MotionProgress, MotionSpec
from hftrainer.pipelines.knowledge import joined
from hftrainer.pipelines.motionmillion.streaming import FrameDecoder

if TYPE_CHECKING:
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline


@dataclass(eq=False)
class _Making:
    """A motion under way. `todo`: texts with the codes that there are when their part ends; none for one that ends by
    itself."""

    spec: MotionSpec
    todo: deque[tuple[Tensor, int]] = field(default_factory=deque)
    generator: torch.Generator | None = None
    codes: list[int] = field(default_factory=list)
    row: RowRequest | None = None
    total: int = 1
    text_tokens: int = 0


class JoinedRows:
    """`rows` at a time, by default as many as are worthwhile and fit; codes are those of ``pipeline(...)`` and
    ``pipeline.timeline(...)`` with the same seed, up to rounding."""

    def __init__(self, pipeline: MotionMillionPipeline, rows: int | None = None):
        self.pipeline = pipeline
        self.model = inference_model(pipeline._ar)
        most, config = pipeline.max_sample_steps, self.model.config
        slots = min(config.block_size, pipeline.max_text_tokens + CONTEXT + most)
        self.rows = rows or rows_that_fit(self.model, slots, guided=pipeline.sampling.is_guided)
        self.batch = RunningBatch(self.model, self.rows, most, slots)
        self._making: dict[int, _Making] = {}
        self._no_text: Tensor | None = None

    @property
    def running(self) -> int:
        """Motions in rows."""
        return self.batch.running

    @property
    def waiting(self) -> int:
        """Motions that wait for a row."""
        return len(self.batch.waiting)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        """Features (n, c) of each text."""
        return self._features([self.pipeline.assess(text).text for text in texts])

    @torch.inference_mode()
    def _features(self, texts: Sequence[str]) -> list[Tensor]:
        encoded = self.pipeline.bundle.encode_text(texts)
        counts = encoded.mask.sum(dim=1).tolist()
        return [row[:count].clone() for row, count in zip(encoded.features, counts, strict=True)]

    def add(self, key: int, spec: MotionSpec, features: Sequence[Tensor]) -> None:
        """Put a motion in line."""
        making = self._begin(spec, features)
        row = making.row = self._next_row(making)
        assert row is not None
        self.batch.add(key, row)
        self._making[key] = making

    def cancel(self, key: int) -> None:
        """Drop a motion."""
        if self._making.pop(key, None) is not None:
            self.batch.cancel(key)

    def clear(self) -> list[int]:
        """Drop all; their keys."""
        keys = list(self._making)
        self.batch.clear()
        self._making.clear()
        return keys

    def shares(self) -> dict[int, float]:
        """How far each running motion is; one that ends by itself may be done earlier."""
        out = {}
        for key, share in self.batch.shares().items():
            making = self._making[key]
            assert making.row is not None
            out[key] = min(1.0, (len(making.codes) + share * making.row.limit) / making.total)
        return out

    def step(self) -> list[MotionProgress]:
        """One code more for every row (several on a GPU)."""
        for making in self._making.values():
            if making.row is not None:
                making.row.watched = making.spec.watched
        return [self._advance(row) for row in self.batch.step()]

    def decoder(self) -> FrameDecoder:
        """For the frames of a motion under way."""
        return FrameDecoder(self.pipeline, [], self.pipeline.lookahead_codes)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _begin(self, spec: MotionSpec, features: Sequence[Tensor]) -> _Making:
        making = _Making(spec, text_tokens=max(len(text) for text in features))
        if spec.sampling.do_sample:
            making.generator = torch.Generator()
            if spec.seed is None:
                making.generator.seed()
            else:
                making.generator.manual_seed(spec.seed)
        if spec.request is not None:
            request = self.pipeline._bounded(spec.request, spec.prompt)
            assert request.max_new_tokens is not None
            making.total = request.max_new_tokens
            making.row = self._row(making, features[0], request.max_new_tokens, request.max_new_tokens)
            making.row.floor = request.min_new_tokens
            return making
        frames, per_code = 0, self.pipeline.frames_per_code
        for (_, seconds), text in zip(spec.parts, features, strict=True):
            frames += round(seconds * self.pipeline.motion_format.fps)
            making.todo.append((text, -(-frames // per_code)))
        making.total = max(1, making.todo[-1][1])
        return making

    def _next_row(self, making: _Making) -> RowRequest | None:
        """What is decoded next for a motion; None if it is complete. A part that is longer than a row begins again with
        the last codes, as in a `CodeStream`, whose draws these are."""
        if making.spec.request is not None:
            return making.row if not making.codes else None
        while making.todo and making.todo[0][1] <= len(making.codes):
            making.todo.popleft()
        if not making.todo:
            return None
        text, end = making.todo[0]
        taken = len(text) + min(len(making.codes), CONTEXT)
        room = min(self.batch.max_new_tokens, self.model.config.block_size - taken)
        if room < 1:
            raise ValueError("text and context fill all positions of the model; shorten the text")
        limit = min(room, end - len(making.codes))
        row = self._row(making, text, room, limit)
        row.floor = limit
        return row

    def _row(self, making: _Making, text: Tensor, draws: int, limit: int) -> RowRequest:
        uniforms = None
        if making.generator is not None:
            uniforms = torch.rand(draws, generator=making.generator, dtype=torch.float64)[:limit]
        context = making.codes[-CONTEXT:]
        sampling = making.spec.sampling
        if sampling.is_guided and self._no_text is None:
            (self._no_text,) = self._features([""])
        no_text = self._no_text if sampling.is_guided else None
        return RowRequest(text, limit, limit, sampling, uniforms, context, making.spec.watched, no_text)

    def _advance(self, row: RowProgress) -> MotionProgress:
        making = self._making[row.key]
        codes = [*making.codes, *row.codes.tolist()]
        share = min(1.0, len(codes) / making.total)
        if not row.done:
            return MotionProgress(row.key, codes, share)
        making.codes = codes
        following = None if making.spec.request is not None else self._next_row(making)
        if following is not None:
            making.row = following
            self.batch.add(row.key, following, first=True)
            return MotionProgress(row.key, codes, share)
        del self._making[row.key]
        finish = partial(finished, self.pipeline, making.spec, codes, row.ended, making.text_tokens)
        return MotionProgress(row.key, codes, 1.0, True, finish)


def finished(
    pipeline: MotionMillionPipeline, spec: MotionSpec, codes: list[int], ended: bool, text_tokens: int
) -> GeneratedMotion:
    """The motion of all codes of a spec."""
    said = [pipeline.assess(text) for text in spec.texts]
    if spec.request is not None:
        frames = spec.request.frames
    else:
        frames = sum(round(seconds * pipeline.motion_format.fps) for _, seconds in spec.parts)
    motion = np.zeros((0, pipeline.motion_format.width), np.float32)
    if codes:
        motion = pipeline._decode_all(codes)[:frames]
    return GeneratedMotion(
        motion=motion,
        prompt=spec.prompt,
        seed=spec.seed,
        tokens=np.array(codes, dtype=np.int64),
        ended=ended,
        text_tokens=text_tokens,
        representation=pipeline.representation,
        body=pipeline.bundle.body,
        **(said[0].fields() if spec.request is not None else joined(said)),
    )
