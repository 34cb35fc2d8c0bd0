"""Metrics in an evaluator's space: published values, slow and obvious second versions, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.evaluation import metrics
from hftrainer.evaluation.metrics import frechet_distance, r_precision

RNG = np.random.default_rng(0)


# --- published values ------------------------------------------------------------


def test_golden_values(golden):
    want = golden("metrics_pub")
    assert frechet_distance(want["real"], want["gen"]) == pytest.approx(float(want["fid"]), rel=1e-6)
    np.testing.assert_allclose(r_precision(want["text"], want["gen"]), want["r_precision"], rtol=1e-6)
    assert metrics.matching_distance(want["text"], want["gen"]) == pytest.approx(float(want["matching"]), rel=1e-6)
    rng = np.random.RandomState(int(want["diversity_seed"]))
    assert metrics.diversity(want["gen"], 300, rng) == pytest.approx(float(want["diversity_300"]), rel=1e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_golden_value_of_a_rank_deficient_set(golden, swapped):
    want = golden("metrics_pub")
    sets = (want["real"], want["gen"][:40])
    got = frechet_distance(*(sets[::-1] if swapped else sets))
    assert got == pytest.approx(float(want["fid_rank_deficient"]), rel=1e-3)


def test_the_values_of_the_original_metrics():
    """text-to-motion at 72df96ec, run on draws of numpy's old generator."""
    rng = np.random.RandomState(0)
    x = rng.randn(400, 16).astype(np.float32)
    y = (0.5 * x + rng.randn(400, 16) + 0.1).astype(np.float32)
    assert frechet_distance(x, y) == pytest.approx(0.6361711311, rel=1e-8)
    np.testing.assert_array_equal(r_precision(x, y), np.array([120, 193, 228]) / 384)
    assert metrics.matching_distance(x[:384], y[:384]) == pytest.approx(4.388949, rel=1e-6)
    sets = rng.randn(5, 30, 16)
    assert metrics.diversity(x, 300, np.random.RandomState(0)) == pytest.approx(5.4149547, rel=1e-6)
    assert metrics.multimodality(sets, 10, np.random.RandomState(0)) == pytest.approx(5.3540085984, rel=1e-9)


# --- second versions ------------------------------------------------------------


def correlated(n: int, d: int, rank: int | None = None, shift: float = 0.0) -> np.ndarray:
    return RNG.normal(size=(n, rank or d)) @ RNG.normal(size=(rank or d, d)) + shift


@pytest.mark.parametrize(("n", "d"), [(500, 64), (300, 8), (4000, 256)])
def test_fid_is_that_of_the_matrix_square_root(n, d):
    sqrtm = pytest.importorskip("scipy.linalg").sqrtm
    a, b = correlated(n, d), correlated(n + 7, d, shift=0.3)
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(sqrtm(s1 @ s2)).real
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-6)


def test_fid_of_known_gaussians():
    """Between diagonal Gaussians it is the squared distance of means and of standard deviations."""
    exact = RNG.normal(size=(2000, 6))
    exact = np.linalg.qr(exact - exact.mean(0))[0] * np.sqrt(1999)  # mean 0, covariance the identity, exactly
    scale, shift = np.array([1, 2, 3, 0.5, 1e-3, 0]), np.array([0, 1, 0, 0, 2, 0.5])
    want = (shift**2).sum() + ((1 - scale) ** 2).sum()
    assert frechet_distance(exact, exact * scale + shift) == pytest.approx(want, rel=1e-9)


def test_fid_of_a_set_with_itself_is_zero_whatever_its_rank():
    for rank in (32, 5):
        rows = correlated(200, 32, rank)
        assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-6 * np.trace(np.cov(rows, rowvar=False)))


def test_two_flat_sets_in_crossed_subspaces():
    """Both covariances are singular and share one direction; only that one overlaps."""
    base = np.linalg.qr(RNG.normal(size=(100, 3)) - 0)[0]
    base = np.linalg.qr(base - base.mean(0))[0] * np.sqrt(99)
    a, b = np.zeros((100, 5)), np.zeros((100, 5))
    a[:, [0, 1]], b[:, [1, 2]] = base[:, [0, 1]] * [3, 2], base[:, [1, 2]] * [4, 1]
    assert frechet_distance(a, b) == pytest.approx(9 + (2 - 4) ** 2 + 1, rel=1e-9)


def test_normalized_fid_is_another_metric():
    a, b = correlated(200, 8), correlated(200, 8, shift=1.0)
    got = frechet_distance(a, b, normalize=True)
    assert got == pytest.approx(frechet_distance(5 * a, 0.1 * b, normalize=True), rel=1e-9)
    assert got < 4
    assert got != pytest.approx(frechet_distance(a, b), rel=0.1)


def slow_r_precision(text, motion, groups, pool, orders=4000):
    """By sorting, with equal distances in random order, averaged over orders."""
    rng, hits, used = np.random.default_rng(1), np.zeros(3), len(text) // pool * pool
    for i in range(used):
        pool_rows = range(i // pool * pool, i // pool * pool + pool)
        distances = np.array([np.round(((text[i] - motion[j]) ** 2).sum(), 9) for j in pool_rows])
        right = np.array([groups[j] == groups[i] for j in pool_rows])
        for _ in range(orders):
            ranked = right[np.lexsort((rng.random(pool), distances))]
            hits += [ranked[:k].any() for k in (1, 2, 3)]
    return hits / orders / used


def test_r_precision_with_ties_and_shared_captions():
    text, motion = RNG.normal(size=(14, 3)), RNG.normal(size=(14, 3))
    motion[1] = motion[0]  # equal motions, other captions
    motion[4] = motion[5] = motion[3]
    motion[8] = motion[9]
    text[8] = text[9]
    groups = [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11]
    got = r_precision(text, motion, 3, pool=7, groups=groups)
    np.testing.assert_allclose(got, slow_r_precision(text, motion, groups, 7), atol=0.01)
    single = r_precision(text, motion, 3, pool=7)
    np.testing.assert_allclose(single, slow_r_precision(text, motion, list(range(14)), 7), atol=0.01)
    assert (got >= single).all()


def test_an_evaluator_that_sees_nothing_scores_chance():
    """Counting equal distances as hits, as sorting may, would give it full marks."""
    same = np.ones((64, 16))
    np.testing.assert_allclose(r_precision(RNG.normal(size=(64, 16)), same), [1 / 32, 2 / 32, 3 / 32])


def test_the_rest_that_fills_no_pool_is_left_out():
    text = RNG.normal(size=(70, 8))
    np.testing.assert_array_equal(r_precision(text, text), [1, 1, 1])
    broken = text.copy()
    broken[64:] = 1e3
    np.testing.assert_array_equal(r_precision(text, broken), [1, 1, 1])
    broken[0] = 1e3
    assert r_precision(text, broken)[0] == 1 - 1 / 64


def test_diversity_and_multimodality_by_loops():
    rows, sets = RNG.normal(size=(50, 4)), RNG.normal(size=(3, 12, 4))
    rng = np.random.default_rng(5)
    first, second = rng.choice(50, 20, replace=False), rng.choice(50, 20, replace=False)
    want = np.mean([np.sqrt(sum((rows[i] - rows[j]) ** 2)) for i, j in zip(first, second, strict=True)])
    assert metrics.diversity(rows, 20, 5) == pytest.approx(want)
    rng = np.random.default_rng(5)
    first, second = rng.choice(12, 10, replace=False), rng.choice(12, 10, replace=False)
    want = np.mean([[np.linalg.norm(s[i] - s[j]) for i, j in zip(first, second, strict=True)] for s in sets])
    assert metrics.multimodality(sets, rng=5) == pytest.approx(want)


# --- what is refused ------------------------------------------------------------

GOOD = RNG.normal(size=(64, 4))
BAD = np.where(np.arange(64)[:, None] == 7, np.nan, GOOD)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(GOOD, BAD), "generated: row 7 holds a NaN"),
        (lambda: r_precision(BAD, GOOD), "text: row 7 holds a NaN"),
        (lambda: metrics.matching_distance(GOOD, BAD), "motion: row 7 holds a NaN"),
        (lambda: metrics.diversity(BAD, 10), "row 7 holds a NaN"),
        (lambda: metrics.multimodality(BAD[None]), "holds a NaN"),
        (lambda: frechet_distance(GOOD[:1], GOOD), "real: .* n at least 2, got"),
        (lambda: frechet_distance(GOOD, GOOD[:, :3]), "4 dimensions, generated ones 3"),
        (lambda: frechet_distance(np.zeros((9, 4)), GOOD, normalize=True), "is zero and cannot be normalized"),
        (lambda: r_precision(GOOD, GOOD[:63]), "64 texts and 63 motions"),
        (lambda: r_precision(GOOD[:31], GOOD[:31]), "31 pairs do not fill a pool of 32"),
        (lambda: r_precision(GOOD, GOOD, top_k=40), "top_k must be between"),
        (lambda: r_precision(GOOD, GOOD, groups=[1, 2]), "2 groups for 64 pairs"),
        (lambda: metrics.diversity(GOOD, 65), "65 pairs cannot be drawn .* from 64"),
        (lambda: metrics.multimodality(GOOD), "must be .texts, motions, d."),
        (lambda: metrics.multimodality(GOOD.reshape(8, 8, 4)), "10 pairs cannot be drawn from 8"),
    ],
)
def test_bad_input_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
