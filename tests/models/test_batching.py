"""Refilled rows, packed weights and padded heads change the speed and nothing else."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from hftrainer.models.motion.motionmillion.engine import prompts as prompt_runner
from hftrainer.models.motion.motionmillion.engine import row_groups
from hftrainer.models.motion.motionmillion.engine.cuda_graphs import kv_bucket
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, inference_model
from hftrainer.models.motion.motionmillion.engine.prepare import InPlaceNorm
from hftrainer.models.motion.motionmillion.engine.prompts import PromptRunner, TextPrefetch, rows_that_fit
from hftrainer.models.motion.motionmillion.engine.scheduler import DecodeRequests, Scheduler
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.kv_cache import cache_dtype
from hftrainer.models.motion.motionmillion.network.llama import RMSNorm
from hftrainer.models.motion.motionmillion.network.sampler import best_ids, draw_uniforms
from hftrainer.requests import GenerationRequest, SamplingParams
from tests.tiny import make_tiny_bundle

SMALL = {"vocab_size": 202, "n_layer": 2, "n_head": 4, "n_embd": 64, "clip_dim": 16}


def make_model(dtype=torch.float32, end=0.0, **sizes) -> LLaMAHF:
    torch.manual_seed(3)
    model = LLaMAHF(LLaMAHFConfig(**{**SMALL, **sizes})).eval().to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15)
        model.lm_head.weight[model.config.end_id] *= 1 + end
    return model


def make_texts(count, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (count,), generator=generator)
    features = torch.randn(count, 12, 16, generator=generator).to(dtype)
    return features, torch.arange(12)[None] < lengths[:, None]


def make_work(features, mask, limits, **fields) -> DecodeRequests:
    return DecodeRequests(lambda p: (features[p], mask[p]), limits, max_seq_len=12 + max(limits), **fields)


def codes_of(decoder, work, prompts=None):
    return {done.prompt: (done.codes.tolist(), done.ended) for done in decoder.run(work, prompts)}


def oracle(model, features, mask, limit):
    """The un-cached loop, with an empty list where it answers [[1]] for END at once."""
    n = int(mask.sum())
    row = torch.full((1, n), model.config.pad_id)
    for _ in range(limit):
        chosen = model(row, features[None, :n], mask[None, :n])[0, -1].argmax()
        if int(chosen) == model.config.end_id:
            return row[0, n:].tolist(), True
        row = torch.cat([row, chosen.view(1, 1)], dim=1)
    return row[0, n:].tolist(), False


@torch.no_grad()
@pytest.mark.parametrize(("rows", "check_every"), [(1, 1), (3, 1), (4, 8), (10, 1), (32, 3)])
@pytest.mark.parametrize("group", [8, 2])
def test_float64_refilled_rows_equal_the_uncached_loop(monkeypatch, rows, check_every, group):
    monkeypatch.setattr(row_groups, "GROUP", group)  # of two: rows move often and are read in many parts
    monkeypatch.setattr(row_groups, "_CALL", 0 if group == 2 else 128)
    model = make_model(torch.float64, end=0.6)
    features, mask = make_texts(20, torch.float64)
    limits = [int(n) for n in torch.randint(0, 25, (20,), generator=torch.Generator().manual_seed(1))]
    decoder = Scheduler(InferenceLLaMA(model), rows, check_every=check_every)
    got = codes_of(decoder, make_work(features, mask, limits))
    want = {i: oracle(model, features[i], mask[i], limits[i]) for i in range(20)}
    assert got == want
    assert {ended for _, ended in want.values()} == {True, False}


def begin(cached, features, mask, slots):
    """A cache of texts, the logits of their first codes, and their lengths."""
    prefix, every = cached.prefill(features, mask), torch.arange(len(mask))
    cache = cached.new_cache(len(mask), slots)
    cache.write(every, prefix.cache, every)
    first = cached.logits(cached.decode(prefix.last, prefix.lengths - 1, cache, kv_len_bound=mask.shape[1]))
    return cache, first, prefix.lengths


def regrets(model, features, mask, codes):
    """Best logit minus that of the code that was chosen, at each step, by one full forward pass."""
    n = int(mask.sum())
    row = torch.tensor([[model.config.pad_id] * n + codes])
    logits = model(row, features[None, :n], mask[None, :n])[0, n - 1 : n - 1 + len(codes)]
    return logits.max(dim=-1).values - logits.gather(1, torch.tensor(codes)[:, None])[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("prompts", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_float32_packed_and_refilled_rows_equal_the_uncached_loop(prompts):
    model = make_model()
    features, mask = make_texts(prompts)
    limits = [int(n) for n in torch.randint(5, 40, (prompts,), generator=torch.Generator().manual_seed(1))]
    got = codes_of(Scheduler(InferenceLLaMA(model, prepack=True), 16), make_work(features, mask, limits))
    same = [got[i] == oracle(model, features[i], mask[i], limits[i]) for i in range(prompts)]
    assert sum(same) >= 0.995 * prompts
    worse = torch.cat([regrets(model, features[i], mask[i], got[i][0]) for i in range(prompts)])  # none if END is first
    assert float(worse.max()) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.4, "top_k": 9}, {"top_p": 0.7}])
def test_drawn_codes_do_not_depend_on_rows_or_neighbours(settings):
    model, count = make_model(torch.float64), 12
    features, mask = make_texts(count, torch.float64)
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    work = make_work(features, mask, [20] * count, uniforms=draw_uniforms(generators, count, 20))
    choice = SamplingParams(do_sample=True, **settings)
    got = [codes_of(Scheduler(InferenceLLaMA(model), rows, choice), work) for rows in (1, 5, 12)]
    assert got[0] == got[1] == got[2]
    few = codes_of(Scheduler(InferenceLLaMA(model), 2, choice), work, prompts=[7, 2])
    assert few == {i: got[0][i] for i in (2, 7)}
    assert len({tuple(codes) for codes, _ in got[0].values()}) == count


@torch.no_grad()
@pytest.mark.parametrize("step", [0, 3])
def test_ends_at_once_and_at_the_limit(step):
    """END as the first choice, as the last that the limit allows, and as the one after that, which is not made."""
    model = make_model(torch.float64, end=-1.0)
    features, mask = make_texts(12, torch.float64)
    head, end = model.lm_head.weight, model.config.end_id
    head[end] = 1.05 * head[oracle(model, features[0], mask[0], 4)[0][step]]
    free = [oracle(model, features[i], mask[i], 12) for i in range(12)]
    assert free[0][1]
    assert (len(free[0][0]) == 0) == (step == 0)
    ending = [i for i, (_, ended) in enumerate(free) if ended]
    for more in (0, 1):
        limits = [max(len(codes) + more, 1) for codes, _ in free]
        got = codes_of(Scheduler(InferenceLLaMA(model), 3), make_work(features, mask, limits), ending)
        assert got == {i: (free[i][0], len(free[i][0]) < limits[i]) for i in ending}


@torch.no_grad()
def test_the_longest_text_and_motion_beside_a_text_of_one_position():
    model = make_model(torch.float64, n_layer=1, end=-1.0)  # END's logit is 0 then, never the best
    features = torch.randn(3, 150, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    mask = torch.arange(150)[None] < torch.tensor([150, 1, 77])[:, None]
    work = DecodeRequests(lambda p: (features[p], mask[p]), [150] * 3, max_seq_len=300)
    got = codes_of(Scheduler(InferenceLLaMA(model), 2), work)  # the third is a refill
    assert {len(codes) for codes, _ in got.values()} == {150}
    assert got == {i: oracle(model, features[i], mask[i], 150) for i in range(3)}
    with pytest.raises(ValueError, match="block_size"):
        codes_of(Scheduler(InferenceLLaMA(model), 2), replace(work, max_seq_len=302))


@torch.no_grad()
@pytest.mark.parametrize("pack", [False, True])
def test_a_prompt_is_the_same_alone_first_last_and_refilled(pack):
    model = make_model()
    features, mask = make_texts(9)
    want, cached = oracle(model, features[4], mask[4], 30), InferenceLLaMA(model, prepack=pack)
    for rows, prompts in ((1, [4]), (3, [4, 0, 1]), (3, [0, 1, 4]), (2, [0, 1, 2, 3, 4]), (4, [8, 7, 6, 5, 4, 3])):
        got = codes_of(Scheduler(cached, rows), make_work(features, mask, [30] * 9), prompts)
        assert got.keys() == set(prompts)
        assert got[4] == want


def test_rows_are_kept_busy():
    model = make_model(n_layer=1)
    features, mask = make_texts(256)
    limits = [int(n) for n in torch.randint(20, 151, (256,), generator=torch.Generator().manual_seed(2))]
    decoder = Scheduler(InferenceLLaMA(model), 32)
    got = codes_of(decoder, make_work(features, mask, limits, min_new_tokens=limits))  # no END
    assert [len(got[i][0]) for i in range(256)] == limits
    assert decoder.occupancy.share >= 0.92
    assert decoder.occupancy.steps <= decoder.occupancy.computed / 2
    assert decoder.occupancy.prefills == 16


def test_a_device_that_is_asked_every_eighth_step_is_kept_busy():
    """The schedule of GPUs, on as many prompts as HumanML3D's test set has."""
    model, count = make_model(n_layer=1), 4042
    features, mask = (part.repeat(count // 6 + 1, *[1] * (part.ndim - 1))[:count] for part in make_texts(6))
    lengths = (100 + 35 * torch.randn(count, generator=torch.Generator().manual_seed(3))).clamp(20, 150).int().tolist()
    decoder = Scheduler(InferenceLLaMA(model), 256, check_every=8)
    assert len(codes_of(decoder, make_work(features, mask, lengths, min_new_tokens=lengths))) == count
    assert decoder.occupancy.share >= 0.92


@torch.no_grad()
@pytest.mark.parametrize("sizes", [{}, {"n_head": 4, "n_embd": 40, "n_layer": 3}, {"tie_weights": True}])
def test_packed_weights_give_the_same_logits(sizes):
    model = make_model(**sizes)
    features, mask = make_texts(5)
    logits = []
    for prepack in (False, True):
        cached = InferenceLLaMA(model, prepack=prepack)
        cache, first, lengths = begin(cached, features, mask, 20)
        second = cached.logits(cached.decode(cached.embed(torch.arange(5)), lengths, cache, kv_len_bound=13))
        logits.append(torch.cat([first, second]))
    assert logits[0].shape == (10, 201)
    torch.testing.assert_close(logits[1], logits[0], atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pack", [False, True])
def test_a_bfloat16_head_does_not_tie(pack):
    model = make_model(torch.bfloat16, vocab_size=5002)
    cached = InferenceLLaMA(model, prepack=pack)
    hidden = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = model.transformer.ln_f(hidden).float() @ model.lm_head.weight.float().T
    logits = cached.logits(hidden)
    assert logits.dtype == torch.float32
    assert torch.equal(logits.argmax(dim=-1), exact.argmax(dim=-1))
    torch.testing.assert_close(logits.max(dim=-1).values, exact.max(dim=-1).values, atol=1e-4, rtol=0)
    rounded = model.head(model.transformer.ln_f(hidden)).float()
    ties = (rounded == rounded.max(dim=-1, keepdim=True).values).sum(dim=-1) > 1
    assert ties.any()  # what this is about does happen


def test_the_best_id_is_the_first_of_the_best():
    for width in (201, 1024, 1025, 5001):
        logits = torch.randn(40, width, generator=torch.Generator().manual_seed(width))
        logits[:20] = logits[:20].round()  # ties
        logits[3, -1], logits[4, 0], logits[5, -40:] = 9.0, 9.0, 9.0
        logits[6] = -torch.inf
        logits[7, width // 2] = torch.nan
        assert torch.equal(best_ids(logits), logits.argmax(dim=-1))


def test_a_cpu_caches_halves_in_float32():
    assert InferenceLLaMA(make_model(torch.bfloat16)).new_cache(2, 12).blocks.dtype == torch.float32
    assert cache_dtype(torch.zeros(1, dtype=torch.bfloat16, device="meta")) == torch.bfloat16
    assert InferenceLLaMA(make_model(torch.float64)).new_cache(2, 12).blocks.dtype == torch.float64


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_rows_at_one_position_need_no_mask(dtype, close):
    """The short cut for rows of equal length, against the same rows beside one that is elsewhere, and no cache."""
    model = make_model(dtype)
    cached = InferenceLLaMA(model)
    features = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(4)).to(dtype)
    ids = torch.tensor([5, 6, 7])
    logits = []
    for lengths in ([6, 6, 6], [6, 6, 2]):
        mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
        cache, _, _ = begin(cached, features, mask, 9)
        hidden = cached.decode(cached.embed(ids), torch.tensor(lengths), cache, kv_len_bound=7)
        logits.append(cached.logits(hidden)[:2])
    rows = torch.cat([torch.full((2, 6), model.config.pad_id), ids[:2, None]], dim=1)
    whole = model(rows, features[:2], torch.ones(2, 6, dtype=torch.bool))[:, -1]
    for part in logits:
        torch.testing.assert_close(part, whole.to(part.dtype), atol=close, rtol=0)


def test_packed_weights_follow_the_model():
    model = make_model()
    first = inference_model(model)
    assert first.prepacked
    assert inference_model(model) is first
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    assert inference_model(model) is not first
    model.transformer.h[0].mlp.c_fc1 = torch.nn.Sequential(model.transformer.h[0].mlp.c_fc1)
    quantised = torch.nn.Linear(64, 64, bias=False)
    quantised.__class__ = type("Quantised", (torch.nn.Linear,), {})
    model.transformer.h[1].attn.c_proj = quantised
    assert not inference_model(model).prepacked


def test_out_of_memory_halves_the_batch_and_keeps_what_is_done(monkeypatch, caplog):
    bundle = make_tiny_bundle()
    captions = [f"a person walks {i}" for i in range(9)]
    counts = bundle.text_encoder.count_tokens(captions)
    limits = [4, 6, 8, 3, 9, 5, 7, 10, 2]
    requests = [GenerationRequest(text, None, limit) for text, limit in zip(captions, limits, strict=True)]

    def run():
        runner = PromptRunner(bundle.ar, bundle.text_encoder, 4)
        return [(done.prompt, done.codes.tolist()) for done in runner.run(requests, counts, SamplingParams())]

    plain = dict(run())
    whole, calls = InferenceLLaMA.decode, []

    def small(self, ids, *args, **kwargs):
        calls.append(len(ids))
        if len(ids) > 2 and len(calls) > 9:
            raise torch.OutOfMemoryError("no memory")
        return whole(self, ids, *args, **kwargs)

    monkeypatch.setattr(InferenceLLaMA, "decode", small)
    with caplog.at_level(logging.WARNING):
        got = run()
    assert "batches of 2" in caplog.text
    assert len(got) == 9
    assert dict(got) == plain
    monkeypatch.setattr(InferenceLLaMA, "decode", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # other errors are not taken for it
        run()


@pytest.mark.parametrize(
    ("rows", "free", "graphs", "want"),
    [(32, 0, False, 32), (32, 1, False, 31), (2, 1, False, 1), (256, 100, True, 256), (256, 128, True, 128),
     (256, 200, True, 64), (256, 250, True, 32), (4, 3, True, 4)],
)  # fmt: skip
def test_a_batch_that_runs_dry_shrinks(rows, free, graphs, want):
    decoder = Scheduler(InferenceLLaMA(make_model()), rows)
    decoder.graphs = graphs
    assert decoder._smaller(rows, free) == want


def test_graph_buckets_read_few_dead_slots():
    assert [kv_bucket(n, 300) for n in (1, 64, 65, 290)] == [64, 64, 128, 300]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_give_the_same_codes():
    model = make_model().cuda()
    features, mask = (part.cuda() for part in make_texts(40))
    work = make_work(features, mask, [40] * 40)
    plain = Scheduler(InferenceLLaMA(model), 16)
    plain.graphs = False
    assert codes_of(Scheduler(InferenceLLaMA(model), 16), work) == codes_of(plain, work)


def test_text_is_encoded_once_and_ahead():
    bundle = make_tiny_bundle()
    captions = ["walk", "a person squats", "walk", "turn left while walking", "walk"]
    calls = []
    encode = bundle.encode_text

    def counted(texts):
        calls.append(list(texts))
        return encode(texts)

    ahead = TextPrefetch(counted, captions, bundle.text_encoder.count_tokens(captions), range(5), torch.device("cpu"))
    features, mask = ahead([0, 1])
    ahead([2])
    later, _ = ahead([3, 4])
    assert len(calls) == 1
    assert sorted(calls[0]) == sorted(set(captions))
    assert ahead.ready == {}
    want = encode(["walk"])
    torch.testing.assert_close(features[0][mask[0]], want.features[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(later[1][: want.features.shape[1]], want.features[0], atol=1e-6, rtol=0)


def test_batches_fit_the_memory(monkeypatch):
    inference = InferenceLLaMA(make_model(torch.bfloat16))
    a_row = inference.row_bytes(40) + 16 * 202
    assert inference.row_bytes(40) == 2 * 2 * 64 * 40 * 4  # keys and values of two layers, in float32 on CPUs
    for room, want in ((2**40, 32), (10 * a_row, 6), (0, 1)):
        monkeypatch.setattr(prompt_runner, "_free", lambda model, room=room: room)
        assert rows_that_fit(inference, 40) == want


@pytest.mark.parametrize("rows", [1, 5])
def test_the_norm_that_decodes_bfloat16_rounds_as_the_released_one(rows):
    norm = RMSNorm(64).bfloat16()
    with torch.no_grad():
        norm.scale.uniform_(0.5, 1.5)
        x = torch.randn(rows, 1, 64).bfloat16()
        assert torch.equal(InPlaceNorm(norm.scale)(x), norm(x))
