"""What only CUDA devices run, on a pretend one: same codes, few waits, kept graphs, two devices, no endless loop."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from hftrainer.bench.pretend import Graph, machine
from hftrainer.models import quantize
from hftrainer.models.motion.motionmillion.engine import cuda_graphs
from hftrainer.models.motion.motionmillion.engine import prompts as prompt_runner
from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.engine.scheduler import Scheduler
from hftrainer.models.motion.motionmillion.engine.stream import CodeStream
from hftrainer.models.motion.motionmillion.network import attention, sampler
from hftrainer.requests import SamplingParams
from tests.models.test_batching import codes_of, make_model, make_texts, make_work

COUNT = 24
DRAWN = {"do_sample": True, "temperature": 1.2}


@contextmanager
def on_cuda(monkeypatch, model, features, mask, device="cuda:0", **settings):
    with machine(**settings) as m:
        model.to(device)
        yield m, features.to(device), mask.to(device)


def case(**sizes):
    features, mask = make_texts(COUNT)
    limits = torch.randint(1, 70, (COUNT,), generator=torch.Generator().manual_seed(5)).tolist()
    return make_model(**sizes), features, mask, limits


def generators():
    return [torch.Generator().manual_seed(i) for i in range(COUNT)]


@pytest.mark.parametrize("sampling", [{}, {**DRAWN, "top_k": 9, "top_p": 0.9}, DRAWN])
@pytest.mark.parametrize("sizes", [{}, {"n_embd": 40}])
def test_codes_are_those_of_the_cpu_and_a_second_call_captures_nothing(monkeypatch, sampling, sizes):
    model, features, mask, limits = case(**sizes)  # of width 40: heads of 10 channels, padded to 16
    floors = [limit // 2 for limit in limits]
    drawn = {"generator": generators()} if sampling else {}
    want = model.generate(features, mask, limits, min_new_tokens=floors, **sampling, **drawn)
    with on_cuda(monkeypatch, model, features, mask) as (m, there, real):
        for call in range(2):
            captures = m.captures
            drawn = {"generator": generators()} if sampling else {}
            got = model.generate(there, real, limits, min_new_tokens=floors, **sampling, **drawn)
            assert got.tokens.cpu().tolist() == want.tokens.tolist()
            assert got.lengths.cpu().tolist() == want.lengths.tolist()
            assert (m.captures == captures) == (call == 1)
        assert m.replays > 100
        assert m.streams == 1


def test_the_host_waits_rarely(monkeypatch):
    """None of the places below is in a step: they are bounded by looks, harvests, refills and batches of texts."""
    model, features, mask, _ = case(end=-2.0)
    limits = [40] * COUNT
    with on_cuda(monkeypatch, model, features, mask) as (m, there, real):
        scheduler = Scheduler(inference_model(model), 8)
        work = make_work(there, real, limits, min_new_tokens=limits)
        codes_of(scheduler, work)  # captures; libraries set themselves up
        m.waits.clear()
        before = scheduler.occupancy.steps
        got = codes_of(scheduler, work)
    assert [len(codes) for codes, _ in got.values()] == limits
    steps, waits = scheduler.occupancy.steps - before, dict(m.waits)
    looks = steps // 8
    # "take" calls what brings texts, which here indexes by a list
    in_scheduler = {name: n for name, n in waits.items() if not name.startswith(("test:", "scheduler.py:take"))}
    assert waits.pop("decode_batch.py:status: tolist") == looks
    assert sum(n for name, n in in_scheduler.items() if "_harvest" in name) <= COUNT / 8  # rows, to the device
    assert sum(n for name, n in in_scheduler.items() if "results" in name) <= COUNT / 8  # codes, to the host
    assert sum(n for name, n in in_scheduler.items() if "_fill" in name) <= 2 * COUNT / 8  # rows and limits, draws
    assert sum(in_scheduler.values()) <= looks + 4 * COUNT / 8, in_scheduler


def test_a_model_on_another_device_than_the_current_one_finishes(monkeypatch):
    model, features, mask, limits = case()
    want = model.generate(features, mask, limits)
    with on_cuda(monkeypatch, model, features, mask, "cuda:1", count=2) as (m, there, real):
        assert m.current == 0
        got = model.generate(there, real, limits)
        assert got.tokens.device == torch.device("cuda:1")
        assert got.tokens.cpu().tolist() == want.tokens.tolist()
        assert m.captures > 0
        with pytest.raises(RuntimeError, match="same device"):
            model.generate(features.to("cuda:0"), mask.to("cuda:0"), limits)


def test_steps_that_do_nothing_are_an_error_and_no_endless_loop(monkeypatch):
    model, features, mask, _ = case()
    monkeypatch.setattr(Graph, "replay", lambda self: None)
    with (
        on_cuda(monkeypatch, model, features, mask) as (_, there, real),
        pytest.raises(
            RuntimeError, match=r"has not ended after \d+ steps, its limit is 30 codes.*cuda:0 have no effect"
        ),
    ):
        model.generate(there, real, 30, min_new_tokens=30)


def test_how_weights_are_laid_out_is_decided_once(monkeypatch):
    model, features, mask, limits = case()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    with on_cuda(monkeypatch, model, features, mask, free=2 * size - 2) as (m, there, real):
        first = inference_model(model)
        assert not first.prepacked
        m.free = 10 * size
        model.generate(there, real, limits)
        assert inference_model(model) is first
        model.prepared, m.free, m.reserved, m.allocated = None, size, 3 * size, 2 * size
        assert inference_model(model).prepacked  # what torch's allocator holds unused can be had
        m.free = m.reserved = 0
        model.generate(there, real, limits)
        assert inference_model(model).prepacked


def test_rows_are_counted_after_weights_were_copied_and_kept_rows_count_as_room(monkeypatch):
    model, features, mask, limits = case()
    with on_cuda(monkeypatch, model, features, mask) as (m, there, real):
        inference = inference_model(model)
        a_row = inference.row_bytes(80) + 16 * 202
        assert inference.row_bytes(80) == inference.row_bytes(128)  # in multiples of 64 slots
        m.free = 12 * a_row
        assert prompt_runner.rows_that_fit(inference, 80) == 8
        model.generate(there, real, limits)
        m.free = 0
        kept = inference.workspace
        assert kept.max_seq_len == 128
        assert prompt_runner.rows_that_fit(inference, 80) == len(kept) == COUNT
        assert prompt_runner.rows_that_fit(inference, 140) >= 1  # makes room for longer rows


def test_training_frees_what_sampling_kept(monkeypatch):
    model, features, mask, limits = case()
    with on_cuda(monkeypatch, model, features, mask) as (m, there, real):
        model.generate(there, real, limits)
        assert model.prepared is not None
        captures = m.captures
        model.eval()
        model.generate(there, real, limits)
        assert m.captures == captures
        model.train()
        assert model.prepared is None
        model.eval().generate(there, real, limits)
        assert m.captures > captures


def test_heads_are_padded_and_masks_made_once_a_step(monkeypatch):
    seen, backends = [], []
    plain = torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, attn_mask=None, scale=None):
        seen.append((q.shape[-1], k.shape[-1], v.shape[-1], k.shape[2], attn_mask.dtype))
        backends.append(torch.backends.cuda.cudnn_sdp_enabled())
        return plain(q, k, v, attn_mask=attn_mask, scale=scale)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", watched)
    model, features, mask, _ = case(n_embd=40, n_layer=5)
    for prepack in (False, True):
        with on_cuda(monkeypatch, model, features, mask) as (m, there, real):
            inference = inference_model(model, prepack)
            m.kernels.clear()
            codes_of(Scheduler(inference, 4), make_work(there, real, [1] * 4 + [0] * (COUNT - 4)))
            steps = 8
            fills = m.kernels["masked_fill_.Scalar"]
            assert fills <= 2 * (steps + 1) + 1  # the mask and END's logit, whatever the number of layers
            model.to("cpu")
    assert {sizes[:3] for sizes in seen} == {(16, 16, 16)}
    assert {sizes[3] for sizes in seen if sizes[3] > 12} == {64}
    assert {sizes[4] for sizes in seen} == {torch.float32}
    assert not any(backends)  # cuDNN's would plan every new shape


def test_padding_heads_changes_no_logit(monkeypatch):
    model, features, mask, _ = case(n_embd=40)
    idx = torch.cat([torch.full((COUNT, 12), model.config.pad_id), torch.arange(COUNT * 5).view(COUNT, 5)], dim=1)
    want = model(idx, features, mask)
    monkeypatch.setattr(attention, "padded_head", lambda size, device: 16)
    torch.testing.assert_close(model(idx, features, mask), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampling", [{}, DRAWN, {**DRAWN, "top_p": 0.9}])
def test_what_is_not_a_number_is_said(monkeypatch, sampling):
    model, features, mask, limits = case()
    model.transformer.h[1].mlp.c_proj.weight.data[3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"not a number \(NaN or infinity\) in \d+ of \d+ rows, in float32"):
        model.generate(features, mask, limits, **sampling)
    with (
        on_cuda(monkeypatch, model, features, mask) as (_, there, real),
        pytest.raises(ValueError, match="not a number"),
    ):
        model.generate(there, real, limits, **sampling)


def test_only_top_p_and_top_k_put_ids_in_order(monkeypatch):
    monkeypatch.setattr(sampler.torch, "topk", None)
    logits = torch.randn(2000, 50, generator=torch.Generator().manual_seed(0))
    logits[:, 49] = -torch.inf
    uniforms = torch.cat([torch.linspace(0, 1, 1999), torch.ones(1)]).double()
    ids = sampler.sample_ids(logits[:1].expand(2000, 50), uniforms, SamplingParams(do_sample=True))
    assert int(ids.max()) < 49  # no probability, even at the very end
    assert int(ids.min()) == 0
    share = torch.bincount(ids, minlength=50) / 2000
    torch.testing.assert_close(share, logits[0].softmax(0), atol=2e-3, rtol=0)


def test_out_of_memory_in_a_capture_is_out_of_memory(monkeypatch):
    model, features, mask, limits = case()
    plain = Graph.record

    def full(self, func, args, kwargs):
        if len(self.calls) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, func, args, kwargs)

    def broken(self):
        self.machine.capturing = None
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(Graph, "record", full)
    monkeypatch.setattr(Graph, "capture_end", broken)
    with (
        on_cuda(monkeypatch, model, features, mask) as (_, there, real),
        pytest.raises(torch.OutOfMemoryError),
    ):
        model.generate(there, real, limits)


def test_large_activations_do_not_overflow_in_float16():
    norm = make_model().half().transformer.ln_f
    x = torch.full((2, 64), 1000.0).half()
    torch.testing.assert_close(norm(x), torch.ones(2, 64).half())


def test_a_cancelled_prompt_frees_its_row(monkeypatch):
    model, features, mask, _ = case(end=-2.0)
    limits = [60, 20, 20, 20] + [0] * (COUNT - 4)
    scheduler = Scheduler(inference_model(model), 1)
    run = scheduler.run(make_work(features, mask, limits, min_new_tokens=limits), [0, 1, 2, 3])
    scheduler.cancel(0)
    scheduler.cancel(2)
    assert [done.prompt for done in run] == [1, 3]
    assert scheduler.occupancy.steps <= 1 + 2 * 20


@pytest.mark.parametrize(
    ("rows", "compiler", "by_kernel"), [(1, True, True), (4, True, True), (5, True, False), (1, False, False)]
)
def test_int8_never_takes_torchs_slow_kernel_on_cuda(monkeypatch, rows, compiler, by_kernel):
    layer, calls = quantize.Int8Linear(32, 8, bias=False), []
    integers, scale = torch.randint(-127, 128, (8, 32), dtype=torch.int8), torch.rand(8, 1) / 100
    x = torch.randn(rows, 1, 32)
    want = x @ (integers * scale).T
    monkeypatch.setattr(quantize, "has_compiler", lambda: compiler)
    monkeypatch.setattr(quantize, "_compiled_few_rows", lambda: lambda *a: calls.append(1) or quantize.few_rows(*a))
    monkeypatch.setattr(torch, "_weight_int8pack_mm", None)
    with machine():
        del layer._parameters["weight"]
        layer.__dict__["weight"] = SimpleNamespace(qdata=integers.to("cuda:0"), scale=scale.to("cuda:0"))
        got = layer(x.to("cuda:0")).cpu()
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert bool(calls) == by_kernel


@pytest.mark.parametrize("works", [True, False])
def test_steps_are_compiled_if_asked_and_eager_where_they_cannot_be(monkeypatch, caplog, works):
    model, features, mask, limits = case()
    want = model.generate(features, mask, limits).tokens
    asked = []

    def compiled(step):
        def fused(kv_len):
            if not works:
                raise torch._dynamo.exc.BackendCompilerFailed(torch.compile, RuntimeError("no compiler"), None)
            step(kv_len)

        asked.append(step)
        return fused

    monkeypatch.setattr(cuda_graphs, "compiled", compiled)
    model.compile_steps = True
    with on_cuda(monkeypatch, model, features, mask) as (_, there, real):
        assert model.generate(there, real, limits).tokens.cpu().tolist() == want.tolist()
    assert (len(asked) > 1) == works  # one failure is enough
    assert (
        "steps run uncompiled, with the same codes, as the compiler failed: RuntimeError: no" in caplog.text
    ) != works


def test_a_stream_captures_its_steps_once_whatever_is_said(monkeypatch):
    model, features, mask, _ = case(end=-2.0)

    def codes(features, mask):
        stream, made = CodeStream(model, SamplingParams(), 0, window=10, context=6), []
        for text in (0, 1, 2):
            words = int(mask[text].sum())
            stream.say(features[text : text + 1, :words], mask[text : text + 1, :words])
            made += [stream.next(may_end=False) for _ in range(14)]
        return made

    want = codes(features, mask)
    with on_cuda(monkeypatch, model, features, mask) as (m, there, real):
        assert codes(there, real) == want
        assert m.captures == 1  # of 64 slots; rows that are full begin again, and so does each text
