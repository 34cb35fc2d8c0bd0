"""Figures of motions in memory, as training logs them: those of the protocol, under the names that reports have."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.evaluation.physical import KEYS, compute_physical_metrics
from hftrainer.evaluation.protocols import load_protocol
from hftrainer.evaluation.protocols.scoring import score_embeddings
from hftrainer.evaluation.validation import FIGURES, physical_figures, retrieval_figures
from hftrainer.motion.representation.base import get_representation


def embeddings(n, seed=0):
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(n, 6))
    return text, text + 0.3 * rng.normal(size=(n, 6)), text + 0.8 * rng.normal(size=(n, 6))


def test_the_figures_are_the_protocols():
    captions = [str(i) for i in range(80)]
    found = retrieval_figures(*embeddings(80), captions, repeats=3, seed=5)
    protocol = load_protocol("hftrainer-v1", ["repeats=3", "seed=5", "metrics.diversity_pairs=40"])
    rows = score_embeddings(protocol, *embeddings(80), captions)
    for name in ("FID", "FID-unit", "R@1", "R@3", "MM-Dist", "Diversity"):
        assert found[name] == rows["predicted"][name]["mean"]
    assert found["real/R@1"] == rows["real"]["R@1"]["mean"] > found["R@1"]
    assert found["real/FID"] == rows["split_half"]["FID"]["mean"]


@pytest.mark.parametrize("n", [2, 3, 7, 33])
def test_few_clips_have_smaller_pools(n):
    found = retrieval_figures(*embeddings(n), [str(i) for i in range(n)], repeats=2)
    assert all(np.isfinite(value) for value in found.values())
    assert set(found) <= set(FIGURES)
    assert ("real/FID" in found) == (n >= 4)
    assert found["R@3"] >= found["R@1"]
    if n <= 3:
        assert found["R@3"] == 1.0  # three of at most three


def test_physical_figures_have_the_tables_units():
    kind = get_representation("motion272")
    motions = [make_motion("walk", 40, 0), make_motion("squat", 30, 1), make_motion("walk", 3, 2)]
    found = physical_figures(motions, kind, "real/")
    each = [compute_physical_metrics(kind.to_joints(motion)) for motion in motions[:2]]
    assert set(found) == {f"real/{name}" for name in KEYS} <= set(FIGURES)
    assert found["real/Slide"] == pytest.approx(1000 * np.mean([one["Slide"] for one in each]))
    assert found["real/Float"] == pytest.approx(100 * np.mean([one["Float"] for one in each]))
