"""The benchmark of evaluation measures the real thing, and its two ways to FID agree."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("scipy")

from hftrainer.bench import metrics
from hftrainer.cli import main


def test_every_part_is_measured(tmp_path, monkeypatch, capsys):
    small = metrics.MetricsBench(clips=6, rounds=1, latent=16, layers=1, fid_widths=(8,))
    monkeypatch.setattr(metrics, "MetricsBench", lambda clips, rounds, device: small)
    assert main(["bench", "metrics", "--clips", "6", "--json", str(tmp_path / "bench.json")]) == 0
    said = capsys.readouterr().out
    assert "FID of 8 dimensions" in said
    rows = {row["name"]: row for row in json.loads((tmp_path / "bench.json").read_text())["results"]}
    assert {"evaluator, motions", "physical metrics", "272 to 263", "FID by scipy's sqrtm, 8 dimensions"} <= rows.keys()
    assert all(row["seconds"][0] > 0 for row in rows.values())


def test_made_clips_are_those_lengths():
    made = metrics.clips(30)
    assert all(40 <= len(clip) <= 300 and clip.shape[1] == 272 for clip in made)
    assert len({len(clip) for clip in made}) > 10


def test_ways_that_do_not_agree_are_refused(monkeypatch):
    metrics.fid_agreement(50, 8)
    real = metrics.scipy_fid
    monkeypatch.setattr(metrics, "scipy_fid", lambda a, b: real(a, b) * (1 + 1e-5))
    with pytest.raises(ValueError, match=r"by eigenvalues and .* by the matrix square root"):
        metrics.fid_agreement(50, 8)
    assert np.isfinite(real(*metrics.embeddings(50, 8)[1:]))
