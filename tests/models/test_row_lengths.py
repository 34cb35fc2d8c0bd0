"""Attention on CUDA that knows how far each row goes, on a pretend device: the outputs of masks, and less to read."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import varlen

from hftrainer.bench import pretend_kernels
from hftrainer.bench.pretend import machine
from hftrainer.models.motion.motionmillion.engine import inference as inference_module
from hftrainer.models.motion.motionmillion.engine import row_lengths
from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.engine.row_lengths import RowLengths, find_kernel
from hftrainer.models.motion.motionmillion.engine.scheduler import Scheduler
from hftrainer.models.motion.motionmillion.network.attention import additive, attend
from hftrainer.models.motion.motionmillion.network.kv_cache import KVCache
from tests.models.test_batching import codes_of, make_model, make_texts, make_work

COUNT = 12


def like(dtype=torch.bfloat16):
    return torch.zeros(1, dtype=dtype, device="cuda:0")


@pytest.mark.parametrize("sizes", [{}, {"n_embd": 40}])  # of width 40: heads of 10 channels, padded to 16
def test_codes_are_those_of_the_cpu_and_one_graph_serves_all_lengths(monkeypatch, sizes):
    model, (features, mask) = make_model(**sizes), make_texts(COUNT)
    limits = torch.randint(1, 60, (COUNT,), generator=torch.Generator().manual_seed(5)).tolist()
    want = model.generate(features, mask, limits, min_new_tokens=limits)
    # in float32, which the true kernel refuses: there, codes are equal and not only close
    monkeypatch.setattr(pretend_kernels, "ATTENDED", [{torch.float32}])
    monkeypatch.setattr(inference_module, "find_kernel", lambda *args: varlen.varlen_attn)
    with machine() as m:
        model.to("cuda:0")
        work = make_work(features.to("cuda:0"), mask.to("cuda:0"), limits, min_new_tokens=limits)
        inference = inference_model(model)
        inference.lengths_from = 3
        got = codes_of(Scheduler(inference, 4), work)
        assert [got[i][0] for i in range(COUNT)] == [want.tokens[i, : limits[i]].tolist() for i in range(COUNT)]
        assert m.captures == 1  # with masks, one for each 64 slots


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [16, 10])
def test_what_is_attended_is_what_masks_let_through_and_nothing_beyond_is_read(dtype, size):
    positions, slots = torch.tensor([0, 5, 63, 17]), 64
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(4, 2, 1, size, generator=generator).to(dtype)
    kv = torch.randn(4, 2, 2, slots, size, generator=generator).to(dtype)
    seen = torch.arange(slots) <= positions[:, None]
    mask = additive(seen[:, None, None], torch.float32)
    want = attend(q.float(), *kv.float().unbind(dim=1), mask, size**-0.5)
    kv = kv.masked_fill(~seen[:, None, None, :, None], torch.nan)
    with machine():
        cache = KVCache(1, 4, 2, slots, size, like(dtype))
        cache.blocks[0, ..., :size] = kv.to("cuda:0")
        reads = RowLengths(positions.to("cuda:0"), slots, varlen.varlen_attn)
        got = attend(q.to("cuda:0"), cache.blocks[0][:, 0], cache.blocks[0][:, 1], reads, size**-0.5).cpu()
    assert (got.shape, got.dtype) == (q.shape, dtype)
    torch.testing.assert_close(got.float(), want, atol=8e-3, rtol=8e-3)  # bfloat16 keeps 8 bits of the output


def test_a_step_in_bfloat16_is_as_exact_as_with_masks():
    model, (features, mask) = make_model(n_layer=4), make_texts(COUNT)
    texts = features.bfloat16(), mask
    hidden = {}
    for dtype, place, rows in [
        (torch.float32, "cpu", 1),
        (torch.bfloat16, "cuda:0", 1),
        (torch.bfloat16, "cuda:0", 1000),
    ]:
        with machine():
            model.to(place, dtype)
            model.prepared = None
            inference = inference_model(model)
            inference.lengths_from = rows
            assert inference.reads_lengths(COUNT) == (place == "cuda:0" and rows == 1)
            prefix = inference.prefill(texts[0].to(place, dtype), texts[1].to(place))
            cache = inference.new_cache(COUNT, 64)
            every = torch.arange(COUNT, device=place)
            cache.write(every, prefix.cache, every)
            hidden[dtype, rows] = inference.decode(prefix.last, prefix.lengths - 1, cache, 12).float().cpu()
            model.to("cpu", torch.float32)
    exact = hidden[torch.float32, 1]
    ours, masked = ((hidden[torch.bfloat16, rows] - exact).norm() / exact.norm() for rows in (1, 1000))
    assert float(masked) < 0.03
    assert float(ours) < 1.5 * float(masked)


def test_the_kernel_is_used_where_it_works(monkeypatch, caplog):
    assert find_kernel(torch.zeros(1).bfloat16(), 4, 16) is None
    with machine():
        assert find_kernel(like(), 4, 16) is varlen.varlen_attn
        assert find_kernel(like(torch.float32), 4, 16) is None
        assert find_kernel(like(), 4, 20) is None  # refused
        assert not caplog.records
        plain = varlen.varlen_attn

        def wrong(*args, seqused_k, num_splits, **kwargs):
            return plain(*args, seqused_k=seqused_k.clamp(max=8), num_splits=num_splits, **kwargs)

        monkeypatch.setattr(varlen, "varlen_attn", wrong)
        assert find_kernel(like(), 4, 16) is None
        assert "is off by" in caplog.text
        monkeypatch.setattr(varlen, "varlen_attn", lambda q, k, v: q)  # an older torch
        assert find_kernel(like(), 4, 16) is None
    assert row_lengths.FROM <= 64


@pytest.mark.gpu
def test_this_gpu_has_the_kernel():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert find_kernel(like(), 8, 64) is not None
