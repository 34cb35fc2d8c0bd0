"""Every way to multiply by a weight matrix gives the product of `F.linear`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hftrainer.models.motion.motionmillion.engine import fast_linear


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 13, 32, 40, 128, 129])
@pytest.mark.parametrize("emulated", [True, False])
@pytest.mark.parametrize("by_mkl", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_and_unpacked_products(monkeypatch, rows, emulated, by_mkl, dtype):
    if by_mkl and not torch.backends.mkl.is_available():
        pytest.skip("torch is built without MKL")
    monkeypatch.setattr(fast_linear, "emulates_bfloat16", lambda: emulated)
    monkeypatch.setattr(fast_linear, "mkl_is_fast", lambda: by_mkl)
    monkeypatch.setattr(fast_linear, "_WIDE", 700)
    module = nn.Linear(96, 700, bias=False).to(dtype).requires_grad_(False)
    x = torch.randn(rows, 1, 96).to(dtype)
    expected = F.linear(x.double(), module.weight.double())
    step = torch.finfo(dtype).eps * expected.abs().max()
    for product in (fast_linear.prepack_linear(module.weight), fast_linear.unpacked_linear(module)):
        result = product(x)
        assert result.shape == (rows, 1, 700)
        assert result.dtype == dtype
        assert (result.double() - expected).abs().max() <= 4 * step


def test_what_is_no_plain_layer_runs_itself():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer = Scaled(8, 8, bias=False).bfloat16()
    assert fast_linear.unpacked_linear(layer) is layer
