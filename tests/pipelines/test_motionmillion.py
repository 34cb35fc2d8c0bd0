"""The pipeline: lengths, seeds, batches, checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hftrainer
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.pipelines.prompts import PromptTooLong
from hftrainer.requests import GenerationRequest, SamplingParams

TEXTS = ["a person walks forward", "someone stands still", "run as fast as possible"]
SAMPLED = SamplingParams(do_sample=True, temperature=1.0)


@pytest.fixture
def pipe(tiny_model) -> MotionMillionPipeline:
    return MotionMillionPipeline.from_pretrained(tiny_model)


def test_infer_t2m_gives_physical_motions(pipe):
    motions = pipe.infer_t2m(TEXTS, max_sample_steps=10)
    assert [m.shape for m in motions] == [(20, 272)] * 3
    assert all(m.dtype == np.float32 for m in motions)
    codes = pipe.bundle.ar.sample(*pipe.bundle.encode_text(TEXTS[:1])[:2], max_sample_steps=10)
    want = pipe.bundle.vqvae.forward_decoder(codes) * pipe.bundle.std + pipe.bundle.mean
    np.testing.assert_allclose(motions[0], want[0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_a_batch_equals_one_by_one(pipe, batch_size):
    together = pipe.infer_t2m(TEXTS, max_sample_steps=15, batch_size=batch_size)
    for text, motion in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(pipe.infer_t2m([text], max_sample_steps=15)[0], motion, atol=1e-5)


def test_shards_make_the_same_bytes(pipe):
    requests = [GenerationRequest(text, seed, 20) for seed in range(3) for text in TEXTS]
    together = dict(pipe.run(requests, SAMPLED))
    for shard in range(2):
        mine = list(range(shard, len(requests), 2))
        for number, made in pipe.run([requests[i] for i in mine], SAMPLED, batch_size=3):
            assert made.tokens.tolist() == together[mine[number]].tokens.tolist()
            assert made.motion.tobytes() == together[mine[number]].motion.tobytes()


def test_lengths_cut_and_bound_without_changing_what_is_kept(pipe):
    free = pipe.infer_t2m(TEXTS, max_sample_steps=100)
    cut = pipe.infer_t2m(TEXTS, lengths=[31, 200, 7], max_sample_steps=100)
    assert [len(m) for m in cut] == [min(n, len(m)) for n, m in zip([31, 200, 7], free, strict=True)]
    for a, b in zip(free, cut, strict=True):
        np.testing.assert_allclose(a[: len(b)], b, atol=1e-5)


def test_a_motions_seed_alone_decides_it(pipe):
    pipe.max_sample_steps = 20
    four = pipe([TEXTS[0], TEXTS[1]], num_motions=2, seed=3, sampling=SAMPLED)
    assert [m.seed for m in four] == [3, 4, 3, 4]
    assert [m.prompt for m in four] == [TEXTS[0]] * 2 + [TEXTS[1]] * 2
    alone = pipe(TEXTS[1], seed=4, sampling=SAMPLED)[0]
    assert alone.tokens.tolist() == four[3].tokens.tolist()
    assert four[0].tokens.tolist() != four[1].tokens.tolist()
    small = pipe([TEXTS[0], TEXTS[1]], num_motions=2, seed=3, sampling=SAMPLED, batch_size=1)
    assert [m.tokens.tolist() for m in small] == [m.tokens.tolist() for m in four]


def test_a_repeated_caption_counts_its_seed_up(pipe):
    pipe.max_sample_steps = 20
    motions = pipe.infer_t2m([TEXTS[0], TEXTS[1], TEXTS[0]], do_sample=True, seed=3)
    assert not np.array_equal(motions[0], motions[2])
    np.testing.assert_allclose(motions[2], pipe(TEXTS[0], seed=4, sampling=SAMPLED)[0].motion, atol=1e-5)
    np.testing.assert_allclose(motions[1], pipe(TEXTS[1], seed=3, sampling=SAMPLED)[0].motion, atol=1e-5)


def test_several_motions_of_a_caption_stand_together(pipe):
    settings = {"do_sample": True, "max_sample_steps": 6, "seed": 3}
    made = pipe.infer_t2m(TEXTS[:2], num_return_sequences=2, **settings)
    assert len(made) == 4
    one = [pipe.infer_t2m([TEXTS[0]], **{**settings, "seed": 3 + j})[0] for j in range(2)]
    np.testing.assert_allclose(made[0], one[0], atol=1e-5)
    np.testing.assert_allclose(made[1], one[1], atol=1e-5)


def test_seconds_are_exact_even_if_the_model_would_end(pipe, monkeypatch):
    head = pipe.bundle.ar.lm_head.weight
    end = pipe.bundle.ar.config.end_id
    kept = head[end].clone()
    with torch.no_grad():
        head[end] = head.abs().mean(0) * 10  # END wins whenever it may
    try:
        made = pipe(TEXTS[0], seconds=1.5, sampling=SamplingParams())[0]
        at_once = pipe.infer_t2m(TEXTS[:1], max_sample_steps=20)[0]
    finally:
        with torch.no_grad():
            head[end] = kept
    assert made.motion.shape == (45, 272)
    assert len(at_once) < 40  # the same model does end early when it may


def test_text_is_cut_with_a_warning_or_refused(pipe):
    long = "walk " * 2000
    with pytest.raises(PromptTooLong, match=r"has \d+ tokens, but the model reads 150"):
        pipe(long)
    with pytest.warns(UserWarning, match="the model sees the first 150"):
        pipe.infer_t2m([long], max_sample_steps=2)
    with pytest.warns(UserWarning, match="the model sees the first 150"):
        assert pipe(long, truncate=True, seconds=0.1)[0].text_tokens > 2000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.infer_t2m(["a", " "]), "prompt 2 of 2 is empty"),
        (lambda p: p.infer_t2m("a person"), "must be a list of strings"),
        (lambda p: p.infer_t2m(["a"], lengths=[1, 2]), "got 2 lengths for 1 captions"),
        (lambda p: p.infer_t2m(["a"], num_return_sequences=2), "only with do_sample=True"),
        (lambda p: p("walk", seconds=60), "a motion of 60 s cannot be generated: this model generates up to"),
        (lambda p: p("walk", seconds=1e308), "a motion of inf s cannot be generated"),
        (lambda p: p("walk", seconds=10**400), "a motion of inf s cannot be generated"),
        (lambda p: p("walk", seconds=0), "cannot be generated"),
        (lambda p: p("walk", sampling=SamplingParams(True, temperature=0)), "temperature must be between"),
    ],
)
def test_wrong_requests_are_refused(pipe, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(pipe)


def test_bfloat16_after_loading_works_as_the_model_card_says(tiny_model):
    pipe = MotionMillionPipeline.from_pretrained(tiny_model)
    pipe.bundle.ar.to(dtype=torch.bfloat16)
    assert pipe.infer_t2m(["a person swings a golf club"], max_sample_steps=5)[0].shape == (10, 272)


def test_load_pipeline_by_path_and_its_errors(tiny_model, tmp_path):
    assert isinstance(hftrainer.load_pipeline(tiny_model), MotionMillionPipeline)
    with pytest.raises(ValueError, match=r"no model called 'gotozero-nan'\. Did you mean 'gotozero-nano'"):
        hftrainer.load_pipeline("gotozero-nan")
    with pytest.raises(ValueError, match="is not a model folder"):
        hftrainer.load_pipeline(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="without a network, copy the model's folder"):
        hftrainer.load_pipeline("ZeyuLing/hftrainer-gotozero-7b-train-humanml272", local_files_only=True)


def test_a_freed_text_encoder_changes_nothing(pipe, tiny_model, monkeypatch):
    """Prompts are encoded before the transformer runs, which then finds the encoder gone; the next call loads it."""
    want = pipe.infer_t2m(TEXTS, max_sample_steps=10)
    lean = MotionMillionPipeline.from_pretrained(tiny_model, free_text_encoder=True)
    encoder = lean.bundle.text_encoder
    assert encoder.model is None
    held, whole = [], InferenceLLaMA.prefill

    def prefill(*args):
        held.append(encoder.model is not None)
        return whole(*args)

    monkeypatch.setattr(InferenceLLaMA, "prefill", prefill)
    for _ in range(2):
        for got, motion in zip(lean.infer_t2m(TEXTS, max_sample_steps=10, batch_size=2), want, strict=True):
            np.testing.assert_allclose(got, motion, atol=1e-5)
    assert held
    assert not any(held)


def test_a_pipeline_without_an_encoder_says_what_can_be_done(tiny_model):
    bare = MotionMillionPipeline.from_pretrained(tiny_model, text_encoder=None)
    for call in (lambda: bare.infer_t2m(TEXTS), lambda: bare(TEXTS)):
        with pytest.raises(ValueError, match=r"without a text encoder.*text_features="):
            call()
