"""The order of training is a function of a seed and a number."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from hftrainer.data.order import BatchPlan, PlanSampler, balanced_weights

LENGTHS = np.random.default_rng(0).integers(10, 200, size=103)


def test_an_epoch_shows_every_item_once_but_for_the_last_incomplete_batch():
    plan = BatchPlan(LENGTHS, 8, seed=1)
    seen = [index for number in range(plan.batches_per_epoch) for index, _ in plan.batch(number)]
    assert len(seen) == len(set(seen)) == 96
    assert [plan.batch(0)] != [plan.batch(plan.batches_per_epoch)]


def test_any_batch_can_be_asked_for_first():
    forward = [BatchPlan(LENGTHS, 8, seed=1).batch(n) for n in range(30)]
    plan = BatchPlan(LENGTHS, 8, seed=1)
    assert [plan.batch(n) for n in reversed(range(30))] == forward[::-1]
    assert BatchPlan(LENGTHS, 8, seed=2).batch(0) != forward[0]


def test_every_draw_has_its_own_seed():
    plan = BatchPlan(LENGTHS, 8, seed=1)
    seeds = [seed for n in range(50) for _, seed in plan.batch(n)]
    assert len(set(seeds)) == len(seeds)


def test_batches_are_of_like_length():
    lengths = np.random.default_rng(0).integers(10, 200, size=2000)
    spread = {bucket: np.mean([np.ptp(lengths[[i for i, _ in BatchPlan(lengths, 8, 1, bucket=bucket).batch(n)]])
                               for n in range(50)]) for bucket in (1, 50)}  # fmt: skip
    assert spread[50] < spread[1] / 10


def test_ranks_share_the_batches_and_resume_where_they_were():
    plan = BatchPlan(LENGTHS, 8, seed=1)
    whole = [plan.batch(n) for n in range(12)]
    ranks = [list(islice(PlanSampler(plan, rank=r, world=3), 4)) for r in range(3)]
    assert [ranks[n % 3][n // 3] for n in range(12)] == whole
    assert list(islice(PlanSampler(plan, start=2, rank=1, world=3), 2)) == ranks[1][2:]


def test_weights_draw_groups_evenly():
    groups = ["rare"] * 10 + ["common"] * 990
    weights = balanced_weights(groups)
    plan = BatchPlan(np.full(1000, 5), 10, seed=0, weights=weights)
    drawn = Counter(groups[i] for n in range(100) for i, _ in plan.batch(n))
    assert 400 < drawn["rare"] < 600
    half = balanced_weights(groups, evenness=0.5)
    assert half[0] / half[-1] == pytest.approx((990 / 10) ** 0.5)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="a batch of 200 items cannot be made of 103"):
        BatchPlan(LENGTHS, 200, seed=0)
