"""Motion as it is made: streams, timelines, live sessions, and motion between two motions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.engine.stream import CodeStream, between
from hftrainer.pipelines.base import Float32, GeneratedMotion, TextToMotionPipeline
from hftrainer.pipelines.knowledge import joined
from hftrainer.pipelines.prompts import check_captions
from hftrainer.requests import SamplingParams, warn_of_guidance

Motion = NDArray[np.float32] | Sequence[int] | NDArray[np.int64]
CHUNK = 4  # codes that are decoded to frames at once


class StreamingPipeline(TextToMotionPipeline):
    """What a Go to Zero pipeline does beyond one motion a prompt."""

    bundle: MotionMillionBundle

    def stream(
        self,
        prompt: str,
        *,
        seconds: float | None = None,
        seed: int | None = 0,
        sampling: SamplingParams | None = None,
        continue_from: Motion | None = None,
        lookahead: int | None = None,
    ) -> Iterator[Float32]:
        """Frames (t, width) of one motion in physical units, as they are final: together they are the motion that the
        same call makes as one.

        A frame is final when `lookahead` more codes are known. The tokenizer's decoder looks `lookahead_codes` ahead
        (16 for Go to Zero), the default; with less the first frames come earlier and frames are approximate.
        `continue_from` (frames, or codes): the motion that this one continues; its own frames are not given again.
        """
        self._check(prompt)
        known = self._codes_of(continue_from)
        frames = self.frames_asked(prompt) if seconds is None else self.check_seconds(seconds)
        codes = self._codes(prompt, frames, seed, sampling, known)
        return self._as_frames(codes, known, frames, self._lookahead(lookahead))

    def timeline(
        self,
        parts: Sequence[tuple[str, float]],
        *,
        seed: int | None = 0,
        sampling: SamplingParams | None = None,
        continue_from: Motion | None = None,
    ) -> GeneratedMotion:
        """One motion of any length: for each (prompt, seconds) a part that continues the one before.

        Codes of all parts are decoded as one motion, so that no seam is cut. `continue_from` (frames, or codes) is the
        beginning of what is returned.
        """
        if not parts:
            raise ValueError('a timeline has no parts; give [("walks forward", 3.0), ...]')
        sampling, stream, frames = sampling or self.sampling, None, 0
        made: list[int] = []
        known = self._codes_of(continue_from)
        for prompt, seconds in parts:
            self._check(prompt)
            if not np.isfinite(seconds) or seconds <= 0:
                raise ValueError(f"a part of a timeline lasts some seconds, got {seconds!r} for {prompt!r}")
        for prompt, seconds in parts:
            stream = stream or self._code_stream(sampling, seed, known)
            stream.say(*self._text(prompt))
            frames += round(seconds * self.motion_format.fps)
            while len(made) * self.frames_per_code < frames:
                code = stream.next(may_end=False)
                assert code is not None
                made.append(code)
        codes = [*known, *made]
        motion = self._decode_all(codes)[: len(known) * self.frames_per_code + frames]
        prompt = ", then ".join(text for text, _ in parts)
        return GeneratedMotion(
            motion=motion, prompt=prompt, seed=seed, tokens=np.array(codes, dtype=np.int64), ended=False,
            text_tokens=max(self.count_tokens([text for text, _ in parts])), representation=self.representation,
            body=self.bundle.body,
            **joined([self.assess(text) for text, _ in parts]),
        )  # fmt: skip

    def live(
        self,
        *,
        seed: int | None = 0,
        sampling: SamplingParams | None = None,
        continue_from: Motion | None = None,
        lookahead: int | None = None,
    ) -> LiveSession:
        """A motion without an end whose prompt may change while it is made; see `LiveSession`."""
        known = self._codes_of(continue_from)
        return LiveSession(self, self._code_stream(sampling or self.sampling, seed, known), known, lookahead)

    def in_between(
        self,
        prompt: str,
        start: Motion,
        end: Motion,
        seconds: float,
        *,
        tries: int = 16,
        seed: int | None = 0,
        sampling: SamplingParams | None = None,
    ) -> GeneratedMotion:
        """`start`, `seconds` of motion, and `end`, as one motion.

        Of `tries` motions that are drawn after `start` the one after which the codes of `end` are likeliest. The model
        knows only what came before: it does not steer towards `end`, so poses far apart need more tries or more time,
        and the seam before `end` is only as smooth as the best try. The tokenizer's decoder smooths some 16 codes.
        """
        self._check(prompt)
        before, after = self._codes_of(start), self._codes_of(end)
        if not after or tries < 1:
            raise ValueError(
                f"in_between needs frames to end with and at least one try, got {len(after)} codes, {tries}"
            )
        sampling = sampling or self.sampling
        if not sampling.do_sample:
            sampling = replace(sampling, do_sample=True)
        count = max(1, round(seconds * self.motion_format.fps / self.frames_per_code))
        middle, _ = between(
            self._ar, self._text(prompt), before, after, count, tries=tries, params=sampling, seed=seed,
            no_text=self._no_text(sampling),
        )  # fmt: skip
        codes = [*before, *middle, *after]
        return GeneratedMotion(
            motion=self._decode_all(codes), prompt=prompt, seed=seed, tokens=np.array(codes, dtype=np.int64),
            ended=False, text_tokens=self.count_tokens([prompt])[0], representation=self.representation,
            body=self.bundle.body,
            **self.assess(prompt).fields(),
        )  # fmt: skip

    # --- inside -----------------------------------------------------------------------------------------------------

    def _codes(
        self, prompt: str, frames: int | None, seed: int | None, sampling: SamplingParams | None, known: list[int]
    ) -> Iterator[int]:
        sampling = sampling or self.sampling
        request = self.request(prompt, seed, sampling, frames)
        stream = self._code_stream(sampling, seed, known)
        stream.say(*self._text(prompt))
        for made in range(request.max_new_tokens or self.max_sample_steps):
            code = stream.next(may_end=made >= request.min_new_tokens)
            if code is None:
                return
            yield code

    def _as_frames(
        self, codes: Iterator[int], known: list[int], frames: int | None, lookahead: int
    ) -> Iterator[Float32]:
        decoder, given = FrameDecoder(self, known, lookahead), 0
        for code in codes:
            part = decoder.push(code)
            part = part if frames is None else part[: frames - given]
            given += len(part)
            if len(part):
                yield part
            if given == frames:
                return
        rest = decoder.finish()
        rest = rest if frames is None else rest[: frames - given]
        if len(rest):
            yield rest

    def _code_stream(self, sampling: SamplingParams, seed: int | None, known: list[int]) -> CodeStream:
        no_text = self._no_text(sampling)
        return CodeStream(self._ar, sampling, seed, window=self.max_sample_steps, codes=known, no_text=no_text)

    def _no_text(self, sampling: SamplingParams) -> tuple[Tensor, Tensor] | None:
        """Features and mask of an empty text, if guidance reads them."""
        warn_of_guidance(self.sampling, sampling)
        return self._features("") if sampling.is_guided else None

    @property
    def _ar(self) -> Any:
        if self.bundle.ar is None:
            raise ValueError("this model has no transformer; it can tokenize motions but not generate them")
        return self.bundle.ar

    def _text(self, prompt: str) -> tuple[Tensor, Tensor]:
        return self._features(self.assess(prompt).text)

    @torch.inference_mode()
    def _features(self, text: str) -> tuple[Tensor, Tensor]:
        encoded = self.bundle.encode_text([text])
        device = self._ar.lm_head.weight.device
        return encoded.features.to(device), encoded.mask.to(device)

    def _check(self, prompt: str) -> None:
        check_captions([prompt])
        self.check_prompt_lengths([prompt])

    def _lookahead(self, lookahead: int | None) -> int:
        if lookahead is not None and lookahead < 0:
            raise ValueError(f"lookahead counts codes and must not be negative, got {lookahead}")
        return self.lookahead_codes if lookahead is None else min(lookahead, self.lookahead_codes)

    @torch.inference_mode()
    def _codes_of(self, motion: Motion | None) -> list[int]:
        """Codes of a motion that is given as frames (t, width) or as codes."""
        if motion is None:
            return []
        values = np.asarray(motion)
        if values.ndim == 1 and (np.issubdtype(values.dtype, np.integer) or not len(values)):
            most = self.bundle.vqvae.codebook_size
            if len(values) and not 0 <= values.min() <= values.max() < most:
                raise ValueError(f"codes lie in 0..{most - 1}, got {int(values.min())}..{int(values.max())}")
            return [int(code) for code in values]
        width = self.motion_format.width
        if values.ndim != 2 or values.shape[1] != width or not np.isfinite(values).all():
            raise ValueError(
                f"a motion to continue from is finite frames (t, {width}) in {self.representation}, or codes; got "
                f"{values.dtype} of shape {values.shape}"
            )
        frames = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None].to(self.bundle.device)
        return [int(code) for code in self.bundle.encode_motion(frames)[0].tolist()]

    @torch.inference_mode()
    def _decode_all(self, codes: Sequence[int]) -> Float32:
        """Frames (t, width) of codes, which must not be empty."""
        tensor = torch.tensor([list(codes)], dtype=torch.long, device=self.bundle.device)
        return np.ascontiguousarray(self.bundle.decode_codes(tensor)[0].cpu().numpy())


class FrameDecoder:
    """Frames from codes that come one by one; keeps only the codes that frames to come depend on.

    `known`: codes of a motion before, whose frames are not given. Frames are final with `lookahead` codes after them.
    """

    def __init__(self, pipeline: StreamingPipeline, known: Sequence[int], lookahead: int):
        self.pipeline, self.lookahead = pipeline, lookahead
        self.codes = list(known)
        self.given = len(self.codes)  # codes whose frames were given, or are not wanted
        self.dropped = 0  # codes before `codes[0]`

    @property
    def pending(self) -> int:
        """Codes whose frames were not given."""
        return self.dropped + len(self.codes) - self.given

    def push(self, code: int) -> Float32:
        """Frames (t, width) that are final now, often none."""
        self.codes.append(code)
        final = self.dropped + len(self.codes) - self.lookahead
        return self._upto(final) if final - self.given >= (CHUNK if self.given else 1) else self._none()

    def finish(self) -> Float32:
        """The rest: no code comes any more."""
        end = self.dropped + len(self.codes)
        return self._upto(end) if end > self.given else self._none()

    def _upto(self, end: int) -> Float32:
        """Frames of the codes from `given` to `end`."""
        per_code, radius = self.pipeline.frames_per_code, self.pipeline.lookahead_codes
        unused = max(0, self.given - radius - self.dropped)
        del self.codes[:unused]
        self.dropped += unused
        seen = self.codes[: end + radius - self.dropped]
        frames = self.pipeline._decode_all(seen)[
            (self.given - self.dropped) * per_code : (end - self.dropped) * per_code
        ]
        self.given = end
        return frames

    def _none(self) -> Float32:
        return np.zeros((0, self.pipeline.motion_format.width), np.float32)


class LiveSession:
    """``live.say("walks")``, then iterate: frames (t, width) without an end; `say` changes the prompt at the next code.

    What was decided before a change still plays: a frame is given when the codes that it depends on are known (16 for
    Go to Zero), so the new prompt shows after as many codes. `say` and `stop` may be called by another thread.
    """

    def __init__(self, pipeline: StreamingPipeline, codes: CodeStream, known: list[int], lookahead: int | None):
        self._pipeline, self._codes = pipeline, codes
        self._decoder = FrameDecoder(pipeline, known, pipeline._lookahead(lookahead))
        self._wanted: str | None = None
        self._stopped = False
        self._made = 0  # codes
        self._said: list[tuple[int, str]] = []  # from which code on a prompt counts

    def say(self, prompt: str) -> None:
        """What is done from now on."""
        self._pipeline._check(prompt)
        self._wanted = prompt

    @property
    def pending(self) -> int:
        """Codes that are decided and whose frames were not given: so many come before those of a prompt said now."""
        return self._decoder.pending

    def prompt_at(self, frame: int) -> str:
        """The prompt that a frame was made for; frames before it are not asked for any more."""
        code = frame // self._pipeline.frames_per_code
        while len(self._said) > 1 and self._said[1][0] <= code:
            del self._said[0]
        return self._said[0][1]

    def stop(self) -> None:
        """Ends the iteration after the frames of what was decided."""
        self._stopped = True

    def __iter__(self) -> Iterator[Float32]:
        while not self._stopped:
            wanted, self._wanted = self._wanted, None
            if wanted is not None:
                self._codes.say(*self._pipeline._text(wanted))
                self._said.append((self._made, wanted))
            if not self._said:
                raise ValueError('no prompt yet: call say("walks forward") first')
            code = self._codes.next(may_end=False)
            assert code is not None
            self._made += 1
            if len(frames := self._decoder.push(code)):
                yield frames
        if len(frames := self._decoder.finish()):
            yield frames
