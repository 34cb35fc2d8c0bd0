"""Weights into modules: what is looked at for NaN, and modules that are built without first values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hftrainer.models.checkpoint import CheckpointError, assign, check_finite, skeleton


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_number_is_found(dtype, bad):
    weights = torch.randn(3, 1001, generator=torch.Generator().manual_seed(0)).to(dtype)
    check_finite({"w": weights}, "file")
    weights[1, 700] = bad
    with pytest.raises(CheckpointError, match="file: w holds NaN or infinite values"):
        check_finite({"w": weights}, "file")


def test_finite_numbers_whose_sum_is_not_are_accepted():
    check_finite({"w": torch.full((8,), 3e38)}, "file")
    check_finite({"w": torch.tensor([3e38, 3e38, -3e38, -3e38]), "ids": torch.arange(3)}, "file")
    with pytest.raises(CheckpointError):  # infinities of both signs, whose sum is NaN
        check_finite({"w": torch.tensor([math.inf, -math.inf])}, "file")


def test_a_skeleton_takes_no_memory_and_its_values_from_the_file():
    before = torch.get_rng_state()
    with skeleton():
        built = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
        outside = torch.ones(2, device="cpu").normal_(0, 1)  # only what is on the meta device stays undrawn
    assert all(tensor.is_meta for tensor in built.state_dict().values())
    assert not torch.equal(outside, torch.ones(2))
    torch.set_rng_state(before)
    real = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    assign(built, real.state_dict(), source="memory")
    ids = torch.tensor([4, 0])
    assert torch.equal(built(ids), real(ids))
