"""Guided codes are those of two complete passes a code, with and without text, whatever way they are decoded."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import hftrainer
from hftrainer.cli import main
from hftrainer.commands.common import add_sampling, sampling_changes
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, inference_model
from hftrainer.models.motion.motionmillion.engine.prompts import rows_that_fit
from hftrainer.models.motion.motionmillion.engine.running_batch import RowRequest, RunningBatch
from hftrainer.models.motion.motionmillion.engine.scheduler import Scheduler
from hftrainer.models.motion.motionmillion.engine.stream import CodeStream, between
from hftrainer.models.motion.motionmillion.network.sampler import sample_ids
from hftrainer.pipelines.joining import MotionSpec
from hftrainer.requests import SamplingParams
from tests.models.test_batching import codes_of, make_model, make_texts, make_work
from tests.models.test_cuda_path import on_cuda

COUNT, LIMIT = 11, 20
GREEDY = SamplingParams(guidance_scale=2.5)
DRAWN = SamplingParams(do_sample=True, temperature=1.3, top_k=30, guidance_scale=1.7)


@pytest.fixture
def case():
    features, mask = make_texts(COUNT, torch.float64)
    empty = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(9)).double()
    uniforms = torch.rand(COUNT, LIMIT + 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return make_model(torch.float64, end=0.6), features, mask, empty, uniforms


@torch.no_grad()
def oracle(model, text, empty, params, uniforms, limit, codes=()):
    """The loop without a cache, for one text (n, c); `codes` come before."""
    made, config = list(codes), model.config
    for step in range(limit):
        logits = []
        for words in (text, empty[0]):
            row = torch.tensor([[config.pad_id] * len(words) + made])
            logits.append(model(row, words[None], torch.ones(1, len(words), dtype=torch.bool))[:, -1])
        with_text, without = logits
        guided = without + params.guidance_scale * (with_text - without)
        best = guided.argmax(dim=-1) if not params.do_sample else sample_ids(guided, uniforms[step : step + 1], params)
        if int(best) == config.end_id:
            return made[len(codes) :], True
        made.append(int(best))
    return made[len(codes) :], False


@pytest.mark.parametrize("params", [GREEDY, DRAWN, replace(DRAWN, guidance_scale=0.0)])
@pytest.mark.parametrize("rows", [1, 3, 32])
def test_refilled_rows_equal_two_uncached_passes(case, params, rows):
    model, features, mask, empty, uniforms = case
    limits = [3 + 7 * i % LIMIT for i in range(COUNT)]
    no_text = empty, torch.ones(1, 1, dtype=torch.bool)
    work = make_work(features, mask, limits, uniforms=uniforms, no_text=no_text)
    got = codes_of(Scheduler(InferenceLLaMA(model), rows, params), work)
    want = {
        i: oracle(model, features[i][mask[i]], empty, params, uniforms[i], limits[i]) for i in range(COUNT)
    }  # fmt: skip
    assert got == want
    assert {ended for _, ended in want.values()} == {True, False}
    plain = replace(params, guidance_scale=None)
    assert codes_of(Scheduler(InferenceLLaMA(model), rows, plain), work) != want  # guidance changes something


def test_a_scale_of_one_is_no_guidance(case):
    model, features, mask, _, uniforms = case
    work = make_work(features, mask, [LIMIT] * COUNT, uniforms=uniforms)
    one, none = (replace(DRAWN, guidance_scale=scale) for scale in (1.0, None))
    assert codes_of(Scheduler(InferenceLLaMA(model), 4, one), work) == codes_of(
        Scheduler(InferenceLLaMA(model), 4, none), work
    )


def test_rows_of_a_running_batch_each_have_their_own_scale(case):
    """Guided and unguided requests join, with and without codes that they continue."""
    model, features, mask, empty, uniforms = case
    scales = [None, 2.5, 1.0, 1.5, None, 4.0, 2.5, None, 1.2, 3.0, None]
    batch = RunningBatch(inference_model(model), 4, LIMIT, 12 + 3 + LIMIT)
    contexts = [[5, 6, 7] if i % 4 == 1 else [] for i in range(COUNT)]
    kinds = [replace(DRAWN if i % 3 else GREEDY, guidance_scale=scale) for i, scale in enumerate(scales)]
    for i, params in enumerate(kinds):
        draws, text = uniforms[i, :LIMIT] if params.do_sample else None, features[i][mask[i]]
        no_text = empty[0] if params.is_guided else None
        batch.add(i, RowRequest(text, LIMIT, 0, params, draws, contexts[i], no_text=no_text))
    got = {}
    while batch.running or batch.waiting:
        got |= {made.key: (made.codes.tolist(), made.ended) for made in batch.step() if made.done}
    for i, params in enumerate(kinds):
        params = replace(params, guidance_scale=params.guidance_scale or 1.0)
        assert got[i] == oracle(model, features[i][mask[i]], empty, params, uniforms[i], LIMIT, contexts[i]), i


def test_a_stream_is_guided_and_begins_again_with_its_last_codes(case):
    model, features, mask, empty, _ = case
    no_text = empty, torch.ones(1, 1, dtype=torch.bool)
    stream = CodeStream(model, GREEDY, 0, window=8, context=3, no_text=no_text)
    made = []
    for i in (0, 1):
        stream.say(features[i : i + 1][:, mask[i]], mask[i : i + 1][:, mask[i]])
        made.append([stream.next(may_end=False) for _ in range(8)])
    model.lm_head.weight.data[model.config.end_id] = 0.0  # its logit is 0 and never the largest: END was not allowed
    assert made[0] == oracle(model, features[0][mask[0]], empty, GREEDY, None, 8)[0]
    assert made[1] == oracle(model, features[1][mask[1]], empty, GREEDY, None, 8, made[0][-3:])[0]


def test_what_is_drawn_between_two_motions_is_guided(case):
    model, features, mask, empty, _ = case
    model.lm_head.weight.data[model.config.end_id] = 0.0  # its logit is 0 and never the largest: END was not allowed
    words, no_text = (features[:1, mask[0]], mask[:1, mask[0]]), (empty, torch.ones(1, 1, dtype=torch.bool))
    for start in ([], [5, 6, 7]):
        made, _ = between(model, words, start, [3, 4], 8, tries=2, params=GREEDY, seed=0, no_text=no_text)
        assert made == oracle(model, words[0][0], empty, GREEDY, None, 8, start)[0]
        plain, _ = between(model, words, start, [3, 4], 8, tries=2, params=SamplingParams(), seed=0)
        assert made != plain


def test_a_pretended_gpu_gives_the_same_codes_from_its_own_graphs(monkeypatch):
    model = make_model()
    features, mask = make_texts(COUNT)
    empty, limits = torch.randn(1, 1, 16), [LIMIT] * COUNT

    def decode(features, mask, empty, params):
        no_text = empty, torch.ones(1, 1, dtype=torch.bool, device=empty.device)
        work = make_work(features, mask, limits, no_text=no_text)
        return codes_of(Scheduler(inference_model(model), 8, params), work)

    want = [decode(features, mask, empty, params) for params in (SamplingParams(), GREEDY)]
    with on_cuda(monkeypatch, model, features, mask) as (m, there, real):
        for _ in range(2):
            assert decode(there, real, empty.to("cuda:0"), SamplingParams()) == want[0]
            assert decode(there, real, empty.to("cuda:0"), GREEDY) == want[1]
        assert m.replays > 40
    assert want[0] != want[1]


def test_running_batches_on_a_pretended_gpu_share_the_memory_that_graphs_were_captured_on(monkeypatch):
    model = make_model()
    features, mask = make_texts(6)
    empty = torch.randn(1, 16, generator=torch.Generator().manual_seed(9))

    def decode(features, mask, empty, count):
        batch, got = RunningBatch(inference_model(model), 8, LIMIT, 12 + LIMIT), {}
        for i in range(count):
            batch.add(i, RowRequest(features[i][mask[i]], LIMIT, 0, GREEDY, no_text=empty))
        while batch.running or batch.waiting:
            got |= {made.key: (made.codes.tolist(), made.ended) for made in batch.step() if made.done}
        return got

    want = [decode(features, mask, empty, count) for count in (4, 6)]
    with on_cuda(monkeypatch, model, features, mask) as (_, there, real):
        assert [decode(there, real, empty.to("cuda:0"), count) for count in (4, 6)] == want


def test_guidance_counts_its_memory_and_asks_for_what_it_needs(case, monkeypatch):
    model, features, mask, _, _ = case
    inference = inference_model(model)
    monkeypatch.setattr("hftrainer.models.motion.motionmillion.engine.prompts._free", lambda model: 10**6)
    plain = rows_that_fit(inference, 40)
    assert rows_that_fit(inference, 40, guided=True) == plain // 2 >= 2
    with pytest.raises(ValueError, match="empty text"):
        codes_of(Scheduler(inference, 2, GREEDY), make_work(features, mask, [3] * COUNT))
    with pytest.raises(ValueError, match="empty text"):
        RunningBatch(inference, 2, 8, 40).add(0, RowRequest(features[0][mask[0]], 8, sampling=GREEDY))
    with pytest.raises(ValueError, match="empty text"):
        CodeStream(model, GREEDY, 0, window=8)
    words = features[:1, mask[0]], mask[:1, mask[0]]
    with pytest.raises(ValueError, match="empty text"):
        between(model, words, [1, 2], [3], 4, tries=2, params=GREEDY, seed=0)


@pytest.mark.parametrize("scale", [-1.0, 101.0, float("nan")])
def test_scales_that_mean_nothing_are_refused(scale):
    with pytest.raises(ValueError, match="guidance_scale must be between 0 and 100"):
        SamplingParams(guidance_scale=scale)


def test_a_pipeline_streams_and_serves_what_it_generates(tiny_model):
    pipe = hftrainer.load_pipeline(tiny_model)
    pipe.sampling = SamplingParams(guidance_scale=1.0)  # a model that was made for guidance
    drawn = SamplingParams(do_sample=True, top_p=0.9, guidance_scale=3.0)
    (whole,) = pipe("a person walks", seconds=1.0, seed=5, sampling=drawn)
    (plain,) = pipe("a person walks", seconds=1.0, seed=5, sampling=replace(drawn, guidance_scale=None))
    assert whole.tokens.tolist() != plain.tokens.tolist()
    (again,) = pipe("a person walks", seconds=1.0, seed=5, sampling=replace(drawn, guidance_scale=1), guidance_scale=3)
    assert again.tokens.tolist() == whole.tokens.tolist()
    frames = np.concatenate(list(pipe.stream("a person walks", seconds=1.0, seed=5, sampling=drawn)))
    np.testing.assert_allclose(frames, whole.motion, atol=1e-4)  # windows of the decoder add in another order
    rows = pipe.joining(2)
    request = pipe.request("a person walks", 5, drawn, frames=30)
    rows.add(0, MotionSpec("a person walks", 5, drawn, request=request), rows.encode(["a person walks"]))
    while rows.running or rows.waiting:
        steps = rows.step()
    assert steps[-1].codes == whole.tokens.tolist()


def test_a_model_that_names_no_scale_is_guided_with_a_warning(tiny_model, tmp_path):
    pipe = hftrainer.load_pipeline(tiny_model)
    guided = SamplingParams(do_sample=True, guidance_scale=2.0)
    start, end = list(range(4)), [7, 8]
    made = [
        lambda sampling: pipe("a person walks", seconds=0.2, sampling=sampling),
        lambda sampling: next(pipe.stream("a person walks", seconds=0.2, sampling=sampling)),
        lambda sampling: pipe.timeline([("a person walks", 0.2)], sampling=sampling),
        lambda sampling: pipe.live(sampling=sampling),
        lambda sampling: pipe.in_between("a person walks", start, end, 0.2, tries=2, sampling=sampling),
    ]
    for make in made:
        with pytest.warns(UserWarning, match=r"guidance_scale=2 is used.*generation_config.json names none"):
            make(guided)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make(replace(guided, guidance_scale=1.0))
    pipe.sampling = replace(guided, guidance_scale=3.0)  # as a model that was made for it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in made:
            make(guided)


def test_the_flag_warns_for_a_model_that_names_no_scale(tiny_model, tmp_path):
    options = ["--model", str(tiny_model), "--seconds", "0.2", "--formats", "npy", "--out", str(tmp_path / "o")]
    with pytest.warns(UserWarning, match=r"generation_config.json names none"):
        assert main(["generate", "a person walks", *options, "--guidance-scale", "2"]) == 0
    assert main(["generate", "a person walks", *options, "--guidance-scale", "1"]) == 0  # warnings are errors here


def test_the_flag_changes_only_the_scale():
    parser = argparse.ArgumentParser()
    add_sampling(parser)
    changes = sampling_changes(parser.parse_args(["--guidance-scale", "2"]))
    assert changes == {"guidance_scale": 2.0}
    changes = sampling_changes(parser.parse_args(["--guidance-scale", "2", "--greedy"]))
    assert changes == {"guidance_scale": 2.0, "do_sample": False}
