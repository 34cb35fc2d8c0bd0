"""Streams give the frames of the complete motion; parts continue one another; live sessions stay small."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from hftrainer.models.motion.motionmillion.engine.stream import CONTEXT, CodeStream, between
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.requests import SamplingParams

WALK, RUN = "a person walks forward", "run as fast as possible"
DRAWN = SamplingParams(do_sample=True, temperature=1.0, top_p=0.95)


@pytest.fixture(scope="module")
def pipe(tiny_model) -> MotionMillionPipeline:
    return MotionMillionPipeline.from_pretrained(tiny_model, max_sample_steps=60)


@pytest.fixture
def counted(monkeypatch):
    """Codes that were asked for."""
    made, plain = [], CodeStream.next

    def count(self, *, may_end):
        made.append(plain(self, may_end=may_end))
        return made[-1]

    monkeypatch.setattr(CodeStream, "next", count)
    return made


@pytest.mark.parametrize("sampling", [SamplingParams(), DRAWN])
@pytest.mark.parametrize("seconds", [None, 2.3, 0.4])
def test_a_stream_is_the_complete_motion(pipe, sampling, seconds):
    want = pipe(WALK, seed=3, sampling=sampling, seconds=seconds)[0].motion
    parts = list(pipe.stream(WALK, seed=3, sampling=sampling, seconds=seconds))
    np.testing.assert_allclose(np.concatenate(parts), want, atol=1e-5)
    if seconds != 0.4:
        assert len(parts) > 3


def test_frames_come_as_soon_as_they_are_final_or_as_asked(pipe, counted):
    first = next(pipe.stream(WALK, seconds=3.0))
    assert (len(counted), len(first)) == (pipe.lookahead_codes + 1, 2)
    counted.clear()
    first = next(pipe.stream(WALK, seconds=3.0, lookahead=7))
    assert (len(counted), len(first)) == (8, 2)
    assert sum(len(part) for part in pipe.stream(WALK, seconds=3.0, lookahead=0)) == 90


def greedy(pipe, prompt, codes, count):
    """The un-cached continuation of the last of `codes`, END not allowed."""
    codes = list(codes)[-CONTEXT:]
    ar, text = pipe.bundle.ar, pipe.bundle.encode_text([prompt])
    words = text.mask.shape[1]
    row = torch.tensor([[ar.config.pad_id] * words + codes])
    for _ in range(count):
        logits = ar(row, text.features, text.mask)[0, -1]
        logits[ar.config.end_id] = -torch.inf
        row = torch.cat([row, logits.argmax().view(1, 1)], dim=1)
    return row[0, words + len(codes) :].tolist()


@torch.no_grad()
def test_parts_of_a_timeline_continue_one_another(pipe):
    made = pipe.timeline([(WALK, 1.5), (RUN, 1.0), (WALK, 0.5)], sampling=SamplingParams())
    assert made.motion.shape == (90, 272)
    codes = made.tokens.tolist()
    assert codes[:23] == greedy(pipe, WALK, [], 23)
    assert codes[23:38] == greedy(pipe, RUN, codes[:23], 15)
    assert codes[38:] == greedy(pipe, WALK, codes[:38], 7)
    long = pipe.timeline([(WALK, 4.0), (RUN, 5.0), (WALK, 4.0)], sampling=DRAWN)
    assert long.motion.shape == (390, 272)  # more than the model makes of one prompt


@torch.no_grad()
def test_a_motion_is_continued_from_codes_and_from_frames(pipe):
    start = pipe(RUN, seed=1, sampling=DRAWN, seconds=1.0)[0]
    codes = start.tokens[:15]
    made = pipe.timeline([(WALK, 1.0)], continue_from=codes, sampling=SamplingParams())
    assert made.tokens.tolist() == [*codes.tolist(), *greedy(pipe, WALK, codes, 15)]
    assert made.motion.shape == (60, 272)
    frames = np.concatenate(list(pipe.stream(WALK, seconds=1.0, continue_from=codes, sampling=SamplingParams())))
    assert frames.shape == (30, 272)
    again = pipe.bundle.encode_motion(torch.from_numpy(start.motion)[None])[0].tolist()
    other = pipe.timeline([(WALK, 1.0)], continue_from=start.motion, sampling=SamplingParams())
    assert other.tokens.tolist() == [*again, *greedy(pipe, WALK, again, 15)]


def test_a_live_session_changes_its_prompt_and_stays_small(pipe, counted):
    live = pipe.live(sampling=SamplingParams())
    with pytest.raises(ValueError, match="no prompt yet"):
        next(iter(live))
    live.say(WALK)
    frames = iter(live)
    plain = [next(frames) for _ in range(3)]
    before = len(counted)
    live.say(RUN)
    changed = list(itertools.islice(frames, 60))
    with torch.no_grad():
        assert counted[before : before + 5] == greedy(pipe, RUN, counted[:before], 5)
    assert len(live._decoder.codes) <= 2 * pipe.lookahead_codes + 8
    assert len(live._codes.recent) <= CONTEXT
    assert len(counted) > 200  # several rows long
    live.stop()
    rest = list(frames)
    assert sum(map(len, [*plain, *changed, *rest])) == 2 * len(counted)


def test_a_motion_between_two_is_the_likeliest_of_the_tries(pipe):
    start, end = list(range(8)), list(range(20, 26))
    made = pipe.in_between(WALK, start, end, 1.0, tries=12)
    codes = made.tokens.tolist()
    assert (codes[:8], codes[-6:], len(codes)) == (start, end, 8 + 15 + 6)
    assert made.motion.shape == (58, 272)
    assert pipe.in_between(WALK, start, end, 1.0, tries=12).tokens.tolist() == codes
    others = {tuple(pipe.in_between(WALK, start, end, 1.0, tries=1, seed=None).tokens) for _ in range(3)}
    assert len(others) > 1  # no seed: another motion each time
    text = pipe._text(WALK)
    middle, scores = between(pipe.bundle.ar, text, start, end, 15, tries=12, params=SamplingParams(True), seed=0)
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]
    words = text[1].shape[1]
    row = torch.tensor([[pipe.bundle.ar.config.pad_id] * words + start + middle + end])
    with torch.no_grad():
        chances = pipe.bundle.ar(row, *text)[0].log_softmax(dim=-1)[words + 22 : -1]
    assert float(chances.gather(1, torch.tensor(end)[:, None]).mean()) == pytest.approx(scores[0], abs=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.stream(" "), "is empty"),
        (lambda p: p.stream(WALK, lookahead=-1), "must not be negative"),
        (lambda p: p.stream(WALK, continue_from=np.zeros((5, 3))), r"finite frames \(t, 272\)"),
        (lambda p: p.stream(WALK, continue_from=np.full((5, 272), np.nan)), "finite frames"),
        (lambda p: p.stream(WALK, continue_from=[10**6]), "codes lie in 0"),
        (lambda p: p.timeline([]), "no parts"),
        (lambda p: p.timeline([(WALK, 0)]), "lasts some seconds"),
        (lambda p: p.in_between(WALK, [1], [], 1.0), "frames to end with"),
    ],
)
def test_what_cannot_be_is_refused_at_once(pipe, call, message):
    with pytest.raises(ValueError, match=message):
        call(pipe)
