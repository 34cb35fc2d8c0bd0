"""Which rows are read together, and how they get there."""

import random
from itertools import pairwise

import pytest
import torch

from hftrainer.models.motion.motionmillion.engine import row_groups
from hftrainer.models.motion.motionmillion.engine.row_groups import GROUP, Span, kv_spans, plan_compaction
from hftrainer.models.motion.motionmillion.network.kv_cache import KVCache


def test_rows_of_like_length_are_read_together():
    assert kv_spans([7] * 20) == [Span(0, 20, 8, even=True)]
    assert kv_spans([7] * 19 + [9]) == [Span(0, 20, 10, even=False)]
    assert kv_spans([150] * 8 + [20] * 8) == [Span(0, 8, 151, even=True), Span(8, 16, 21, even=True)]
    assert kv_spans([150] * 8 + [20] * 3 + [30]) == [Span(0, 8, 151, even=True), Span(8, 12, 31, even=False)]
    assert kv_spans([0]) == [Span(0, 1, 1, even=True)]


@pytest.mark.parametrize("seed", range(20))
def test_spans_cover_every_row_and_slot(seed):
    rng = random.Random(seed)
    positions = [rng.randrange(170) for _ in range(rng.randrange(1, 70))]
    spans = kv_spans(positions)
    assert [row for s in spans for row in range(s.start, s.stop)] == list(range(len(positions)))
    for span in spans:
        part = positions[span.start : span.stop]
        assert span.kv_len == max(part) + 1
        assert span.even == (len(set(part)) == 1)
    read = sum((s.stop - s.start) * s.kv_len for s in spans)
    assert read <= (max(positions) + 1) * len(positions)


@pytest.mark.parametrize("seed", range(40))
def test_rows_move_into_free_ones_and_end_up_sorted_by_group(seed):
    rng = random.Random(seed)
    count = rng.randrange(1, 50)
    before = [rng.choice([0, 0, *range(1, 160)]) for _ in range(count)]
    rows = list(before)
    for source, target in plan_compaction(before):
        assert rows[target] == 0
        assert rows[source] > 0
        rows[target], rows[source] = rows[source], 0
    assert sorted(rows) == sorted(before)
    live = sum(slots > 0 for slots in rows)
    assert all(rows[:live])  # what is free comes last
    assert plan_compaction(rows) == []


def test_one_row_that_ends_moves_one_row_of_each_later_group():
    reach = sorted((random.Random(0).randrange(20, 170) for _ in range(32)), reverse=True)
    assert plan_compaction(reach) == []
    reach[3] = 0
    moves = plan_compaction(reach)
    assert [target // GROUP for _, target in moves] == [0, 1, 2, 3]
    assert moves[0] == (8, 3)
    for source, target in moves:
        reach[target], reach[source] = reach[source], 0
    groups = [reach[start : start + GROUP] for start in range(0, 32, GROUP)]
    assert all(min(a) >= max(b) for a, b in pairwise(groups))
    assert reach[31] == 0


def test_moves_copy_what_is_live_and_writes_what_is_prefilled():
    mine, texts = (KVCache(2, rows, 3, slots, 4, torch.zeros(1)) for rows, slots in ((4, 9), (3, 5)))
    mine.blocks.normal_()
    texts.blocks.normal_()
    before = mine.blocks.clone()
    mine.move(1, 3, kv_len=6)
    assert torch.equal(mine.blocks[:, 3, :, :, :6], before[:, 1, :, :, :6])
    assert torch.equal(mine.blocks[:, 3, :, :, 6:], before[:, 3, :, :, 6:])
    mine.write(torch.tensor([0, 2]), texts, torch.tensor([2, 1]))
    assert torch.equal(mine.blocks[:, 0, :, :, :5], texts.blocks[:, 2])
    assert torch.equal(mine.blocks[:, 2, :, :, :5], texts.blocks[:, 1])
    assert torch.equal(mine.blocks[:, 2, :, :, 5:], before[:, 2, :, :, 5:])


def test_a_call_of_attention_has_its_price(monkeypatch):
    positions = [30] * 8 + [20] * 8
    assert len(kv_spans(positions)) == 1
    monkeypatch.setattr(row_groups, "_CALL", 0)
    assert len(kv_spans(positions)) == 2
