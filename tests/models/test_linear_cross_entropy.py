"""The head's loss made in blocks, and attention written out for training in bfloat16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hftrainer.models.motion.motionmillion.network import linear_cross_entropy as blocks
from hftrainer.models.motion.motionmillion.network.attention import additive, attend
from hftrainer.models.motion.motionmillion.network.linear_cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_loss_and_gradients_are_those_of_cross_entropy(rows, dtype, monkeypatch):
    monkeypatch.setattr(blocks, "_LOGITS", 50 * 10)  # blocks of ten rows, the last one incomplete
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 16, generator=generator, dtype=dtype, requires_grad=True)
    table = torch.randn(51, 16, generator=generator, dtype=dtype, requires_grad=True)  # the last row has no logit: PAD
    targets = torch.randint(0, 50, (rows,), generator=generator)

    def grads(loss):
        return torch.autograd.grad(3 * loss, (x, table))

    loss, right = linear_cross_entropy(x, table[:50], targets)
    got = grads(loss)
    logits = x @ table[:50].T
    expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected)
    assert float(right) == pytest.approx(float((logits.argmax(dim=-1) == targets).float().mean()))
    for mine, theirs in zip(got, grads(expected), strict=True):
        # sums in another order
        rtol, atol = (1e-4, 1e-6) if dtype == torch.float32 else (1e-9, 1e-12)
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)
    assert not got[1][50].any()


def test_autocast_rounds_the_products_only():
    generator = torch.Generator().manual_seed(0)
    x, table = (torch.randn(n, 16, generator=generator, requires_grad=True) for n in (20, 50))
    targets = torch.randint(0, 50, (20,), generator=generator)
    exact, _ = linear_cross_entropy(x, table, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = linear_cross_entropy(x, table, targets)
    assert rounded.dtype == torch.float32
    assert 0 < abs(float(rounded.detach() - exact.detach())) < 0.05  # 8 bits of logits that are about 4
    rounded.backward()
    assert x.grad.dtype == table.grad.dtype == torch.float32


def test_attention_of_a_bfloat16_training_step_is_the_kernels():
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 3, 9, 8, generator=generator).bfloat16() for _ in range(3))
    mask = additive(torch.ones(9, 9).tril().bool()[None, None], torch.bfloat16)
    kernel = attend(q, k, v, mask, 0.3)
    written_out = attend(q.requires_grad_(), k, v, mask, 0.3)
    assert written_out.requires_grad
    torch.testing.assert_close(written_out, kernel, rtol=0.02, atol=0.02)  # bfloat16 has 8 bits
