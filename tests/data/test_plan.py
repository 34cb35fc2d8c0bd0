"""The order of training is a function of a seed and a number."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from hftrainer.data.batching import Size
from hftrainer.data.loader import ValidationShard, limited
from hftrainer.data.order import BatchPlan, PlanSampler, Position, balanced_weights

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
    plan.start_at(plan.position(6))
    assert list(islice(PlanSampler(plan, rank=1, world=3), 2)) == ranks[1][2:]


def test_weights_draw_groups_evenly():
    groups = ["rare"] * 10 + ["common"] * 990
    weights = balanced_weights(groups)
    plan = BatchPlan(np.full(1000, 5), 10, seed=0, weights=weights)
    drawn = Counter(groups[i] for n in range(100) for i, _ in plan.batch(n))
    assert 400 < drawn["rare"] < 600
    half = balanced_weights(groups, balance_power=0.5)
    assert half[0] / half[-1] == pytest.approx((990 / 10) ** 0.5)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size=200 exceeds the number of items, 103"):
        BatchPlan(LENGTHS, 200, seed=0)


def test_another_batch_size_shows_the_rest_of_the_epoch_once():
    before, after = BatchPlan(LENGTHS, 8, seed=1), BatchPlan(LENGTHS, 5, seed=1)
    position = before.position(17)  # one epoch of 12 batches, and 5 of the next
    assert (position.samples, position.epoch, position.done) == (136, 1, ((Size(8), 5),))
    after.start_at(Position.from_plain(position.plain()))
    seen = [i for n in range(12, 17) for i, _ in before.batch(n)]
    rest = [i for n in range(17, 17 + 12) for i, _ in after.batch(n)]  # 63 left, 12 batches of 5
    assert len(set(seen + rest)) == 100
    assert after.position(29).epoch == 2
    again = BatchPlan(LENGTHS, 5, seed=1)
    again.start_at(after.position(20))
    assert [again.batch(n) for n in range(20, 60)] == [after.batch(n) for n in range(20, 60)]


@pytest.mark.parametrize("rules", [{"weights": LENGTHS.astype(float)}, {"max_tokens": 700}, {"curriculum": 2.0}, {}])
def test_a_plan_continues_from_any_position_as_if_nothing_had_happened(rules):
    plan = BatchPlan(LENGTHS, 8, seed=1, **rules)
    for taken in (1, 11, 12, 30):
        other = BatchPlan(LENGTHS, 8, seed=1, **rules)
        other.start_at(plan.position(taken))
        assert [other.batch(n) for n in range(taken, 50)] == [plan.batch(n) for n in range(taken, 50)]
        assert other.position(45) == plan.position(45)
        assert other.epochs(45) == pytest.approx(plan.epochs(45))


def test_batches_hold_as_many_tokens_as_they_may():
    plan = BatchPlan(LENGTHS, 8, seed=1, max_tokens=800)
    padded = []
    for number in range(plan.batches_per_epoch):
        rows = [i for i, _ in plan.batch(number)]
        padded.append(len(rows) * (int(LENGTHS[rows].max()) + 1))
    assert max(padded) <= 800
    assert np.mean(padded) > 600
    assert plan.position(plan.batches_per_epoch).samples >= len(LENGTHS) - 800 // 11
    with pytest.raises(ValueError, match="is smaller than the longest row"):
        BatchPlan(LENGTHS, 8, seed=1, max_tokens=100)


def test_shares_are_exact_and_no_item_waits_for_another_to_come_twice():
    plan = BatchPlan(np.full(120, 7), 10, seed=1, shares=[(0, 20, 0.5), (20, 120, 0.5)])
    drawn = Counter(i for n in range(plan.batches_per_epoch) for i, _ in plan.batch(n))
    assert sum(count for i, count in drawn.items() if i < 20) == 60
    assert {count for i, count in drawn.items() if i < 20} == {3}
    assert {count for i, count in drawn.items() if i >= 20} == {1}


def test_a_curriculum_begins_with_short_items_and_ends():
    lengths = np.random.default_rng(0).integers(10, 200, size=2000)
    plan = BatchPlan(lengths, 8, seed=1, curriculum=2.0)

    def mean(first: int) -> float:
        return float(np.mean([lengths[i] for n in range(first, first + 40) for i, _ in plan.batch(n)]))

    first, later, after = mean(0), mean(200), mean(500)
    assert first < 60 < 140 < later
    assert abs(after - lengths.mean()) < 10
    seen = [i for n in range(250) for i, _ in plan.batch(n)]
    assert len(set(seen)) == 2000


def test_validation_is_shared_out_evenly():
    batches = list("abcdefg")
    shards = [ValidationShard(batches, limited(7, None), rank, 3) for rank in range(3)]
    assert [[shard[i] for i in range(len(shard))] for shard in shards] == [list("adg"), list("bee"), list("cff")]
    assert [[shard.repeated(i) for i in range(3)] for shard in shards] == [[False] * 3, *[[False, False, True]] * 2]
    assert limited(10, 3) == [0, 4, 9]  # not the first, which are the shortest
    assert limited(10, 0.5) == limited(10, 5)
    assert limited(10, 99) == list(range(10))


def test_a_long_run_keeps_few_epochs_and_finds_earlier_ones_again():
    """One epoch's bookkeeping a step would be 50 MB in an hour of training on a few clips, and a search of each."""
    plan = BatchPlan(LENGTHS[:4], 3, seed=0)
    first = [plan.batch(number) for number in range(5)]
    last = plan.batch(1000), plan.position(1000), plan.epochs(1000)
    assert len(plan._epochs) == 256
    assert [plan.batch(number) for number in range(5)] == first
    assert (plan.batch(1000), plan.position(1000), plan.epochs(1000)) == last
    assert last[1].epoch == 1000
