"""Metrics by name: chance as a yardstick, plug-ins, counts, and one name for each figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hftrainer.config import ConfigError
from hftrainer.evaluation.protocols import load_protocol, protocol_names
from hftrainer.evaluation.protocols.measures import FID, MMDist, Row, RPrecision, Sample, build_metrics
from hftrainer.evaluation.protocols.retrieval import caption_groups, chance_pools
from hftrainer.evaluation.protocols.scoring import score, score_embeddings
from hftrainer.evaluation.vocabulary import (
    ALIASES,
    ARROWS,
    arrow_of,
    current_name,
    current_protocol,
    current_result,
    in_order,
    label_of,
)
from hftrainer.registry import METRICS


def row_of(n=96, d=8, seed=0, noise=0.1, captions=None):
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(n, d))
    return Row(text, text + noise * rng.normal(size=(n, d)), captions or [str(i) for i in range(n)])


def mean_of(rows, row, name):
    return float(np.mean(rows[row].values[name]))


# --- chance -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["hftrainer-v1", "hml3d-272-allcaptions"])
@pytest.mark.parametrize("noise", [0.0, 0.3, 50.0])
def test_random_captions_score_exactly_chance(protocol, noise):
    """Whatever the evaluator is worth: k / 32. With the caption's own motion in the pool a good one scores half."""
    row = row_of(200, noise=noise)
    rows = score(load_protocol(protocol, ["repeats=40"]), row)
    for k in (1, 2, 3):
        chance = k / 32
        error = (chance * (1 - chance) / (200 * 40)) ** 0.5
        assert mean_of(rows, "random_caption", f"R@{k}") == pytest.approx(chance, abs=5 * error)
    if noise == 0.0:
        assert mean_of(rows, "real", "R@1") == 1.0


def test_chance_holds_where_many_clips_share_a_caption():
    captions = [f"does thing {i % 5}" for i in range(60)]
    text = np.eye(8)[[i % 5 for i in range(60)]]
    rows = score(load_protocol("hftrainer-v1", ["repeats=40"]), Row(text, text.copy(), captions))
    error = (1 / 32 / (60 * 40)) ** 0.5
    assert mean_of(rows, "random_caption", "R@1") == pytest.approx(1 / 32, abs=5 * error)


def test_no_pool_of_chance_holds_what_its_caption_is_about():
    groups = caption_groups([f"c{i % 40}" for i in range(100)])
    captions, pool = chance_pools(groups, 32, np.random.default_rng(0))
    assert sorted(captions) == list(range(100))
    assert pool.shape == (100, 32)
    assert not (groups[pool] == groups[captions][:, None]).any()
    assert all(len(set(candidates)) == 32 for candidates in pool.tolist())
    firsts = np.bincount(pool[:, 0], minlength=100)
    assert firsts.max() <= 3  # the one that is right is not always the same


def test_one_caption_for_all_has_no_chance_row():
    rows = score(load_protocol("hftrainer-v1"), row_of(40, captions=["the same"] * 40))
    assert rows["random_caption"].values == {}
    captions, pool = chance_pools(np.arange(32), 32, np.random.default_rng(0))
    assert (len(captions), pool.shape) == (0, (0, 32))  # 31 motions of other captions fill no pool


# --- entries of METRICS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_names_metrics_that_exist(name):
    protocol = load_protocol(name)
    built = build_metrics(protocol)
    assert len(built) == len(protocol.metrics.use)
    assert any(isinstance(metric, RPrecision) for metric in built)


def test_settings_of_a_metric_are_checked():
    assert build_metrics(load_protocol("hftrainer-v1", ["metrics.use=[{name: R@k, top_k: 5}]"]))[0].top_k == 5
    wrong = load_protocol("hftrainer-v1", ["metrics.use=[{name: R@k, topk: 5}]"])
    with pytest.raises(ConfigError, match=r"metrics\.use\[0\].*top_k"):
        build_metrics(wrong)


def test_top_k_reaches_every_row():
    protocol = load_protocol("hftrainer-v1", ["metrics.use=[{name: R@k, top_k: 5}, MM-Dist]", "repeats=2"])
    rows = score_embeddings(protocol, *(row_of().text, row_of().motion, row_of(seed=1).motion), row_of().captions)
    for row in ("predicted", "real", "random_caption"):
        assert {f"R@{k}" for k in range(1, 6)} <= rows[row].keys()
    assert rows["split_half"] == {}


def test_a_plug_ins_metric_is_measured_like_the_built_in_ones(monkeypatch):
    @dataclass
    class Settings:
        scale: float = 1.0

    class Spread:
        Config = Settings

        def __init__(self, config):
            self.scale = config.scale

        def __call__(self, sample):
            return {"spread": self.scale * float(sample.motions.std())}

    monkeypatch.setitem(METRICS._targets, "spread", Spread)
    protocol = load_protocol("hftrainer-v1", ["metrics.use=[FID, {name: spread, scale: 3}]", "repeats=2"])
    row = row_of()
    rows = score(protocol, row, row)
    assert rows["predicted"].values["spread"] == pytest.approx([3 * row.motion.std()] * 2)
    assert set(rows["predicted"].values) == {"FID", "spread"}


def test_failures_are_counted_and_have_no_distance():
    row = row_of(64, noise=0.2)
    motion = row.motion.copy()
    motion[[3, 17]] = np.nan
    protocol = load_protocol("hftrainer-v1", ["missing=failure", "repeats=1"])
    found = score(protocol, row, Row(row.text, motion, row.captions))["predicted"]
    made = [i for i in range(64) if i not in (3, 17)]
    assert found.counts == {"retrieval_items": 64, "failures": 2}
    want = np.linalg.norm(row.text[made] - row.motion[made], axis=1).mean()
    assert found.values["MM-Dist"] == pytest.approx([want])


def test_mm_dist_is_of_the_paired_motion_whatever_captions_are_shared():
    row = row_of(64, captions=["walk"] * 32 + [str(i) for i in range(32)])
    distances = np.linalg.norm(row.text - row.motion, axis=1)
    for positives in ("diagonal", "same_caption"):
        protocol = load_protocol("hftrainer-v1", [f"metrics.positives={positives}", "repeats=1"])
        assert score(protocol, row)["real"].values["MM-Dist"] == pytest.approx([distances.mean()])


def test_items_outside_full_pools_are_in_no_dropped_figure():
    protocol = load_protocol("hml3d-272-leaderboard")
    row, order = row_of(70), np.random.default_rng(0).permutation(70)
    sample = Sample(protocol, row, order, order[:64], {"": row.motion + 1}, None, 0, True)
    assert sample.asked.tolist() == order[:64].tolist()
    assert MMDist(None)(sample)["MM-Dist"] == pytest.approx(
        np.linalg.norm(row.text[order[:64]] - row.motion[order[:64]], axis=1).mean()
    )
    assert FID(None)(sample)["FID"] == pytest.approx(row.motion.shape[1])  # moved by one in each direction
    assert sample.motions.shape == (64, 8)
    RPrecision(RPrecision.Config())(sample)
    assert sample.counts["retrieval_items"] == 64


def test_seeds_decide_shuffles_and_nothing_else():
    row, other = row_of(100, noise=0.8), row_of(100, noise=0.9, seed=0)
    first = score(load_protocol("hftrainer-v1"), row, other)
    again = score(load_protocol("hftrainer-v1"), row, other)
    moved = score(load_protocol("hftrainer-v1", ["seed=1"]), row, other)
    assert first["predicted"].values == again["predicted"].values
    assert first["predicted"].values["R@1"] != moved["predicted"].values["R@1"]
    assert first["predicted"].values["FID"] == pytest.approx(moved["predicted"].values["FID"], rel=1e-9)
    assert len(first["predicted"].values["FID"]) == 1
    assert first["predicted"].summary()["R@1"]["ci95"] > 0
    swapped = score(load_protocol("hftrainer-v1"), other, row)
    assert swapped["predicted"].values["R@1"] == first["real"].values["R@1"]


def test_an_interval_is_1_96_standard_errors():
    row = row_of(100, noise=0.8)
    figures = score(load_protocol("hftrainer-v1"), row)["real"]
    values = figures.values["R@1"]
    assert figures.summary()["R@1"]["ci95"] == pytest.approx(1.96 * np.std(values) / np.sqrt(20))
    assert figures.summary()["R@1"]["n"] == 20


# --- names ------------------------------------------------------------------------------------------------------------


def test_every_old_name_has_one_of_today():
    assert set(ALIASES.values()) <= set(ARROWS)
    assert current_name("fid_raw") == current_name("fid") == "FID"
    assert current_name("FID") == "FID"
    assert current_name("fid_raw_refk") == "FID-refk"
    assert current_name("fid_l2_normalized_hml263_roundtrip") == "FID-unit-hml263_roundtrip"
    assert current_name("r_precision_2") == "R@2"
    assert current_name("val/r1") == "val/R@1"
    assert current_name("val/real_matching") == "val/real/MM-Dist"
    assert current_name("val/slide") == "val/Slide"
    assert current_name("val/loss") == "val/loss"
    assert current_name("something_else") == "something_else"


def test_labels_have_units_and_arrows():
    assert label_of("FID") == "FID ↓"
    assert label_of("FID-refk") == "FID-refk ↓"
    assert label_of("FID-unit-refk") == "FID-unit-refk ↓"
    assert label_of("R@1") == "R@1 ↑"
    assert label_of("Slide") == "Slide, mm/frame ↓"
    assert label_of("skate_percent") == "skate, % ↓"
    assert label_of("jerk_m_per_s3") == "jerk, m/s³ →"
    assert label_of("MultiModality") == "MultiModality"
    assert arrow_of("mine") == ""
    assert in_order({"ties", "mine", "FID-refk", "R@1", "FID", "Slide"}) == [
        "FID",
        "FID-refk",
        "R@1",
        "ties",
        "Slide",
        "mine",
    ]


def test_reports_and_protocols_of_earlier_versions_are_read():
    old = {
        "protocol": {
            "name": "x",
            "metrics": {"fid": ["raw", "l2_normalized"], "diversity": ["l2"], "fid_items": "all"},
        },
        "rows": {"predicted": {"fid_raw": {"mean": 1.0}, "r_precision_1": {"mean": 0.5}}},
    }
    new = current_result(old)
    assert new["rows"]["predicted"] == {"FID": {"mean": 1.0}, "R@1": {"mean": 0.5}}
    assert new["protocol"]["metrics"] == {"use": ["R@k", "MM-Dist", "Diversity", "FID", "FID-unit"], "fid_items": "all"}
    assert current_result(new) == new
    assert current_protocol({"metrics": {"diversity": ["unit_l1"]}})["metrics"]["use"] == [
        "R@k", "MM-Dist", "Diversity-unit-L1", "FID",
    ]  # fmt: skip
    assert load_protocol("motionclip-135", ["crop.length=whole"]).crop.length == "full"
    assert (
        current_protocol({"prediction": {"crop": "whole"}, "crop": {"length": "coin"}})["prediction"]["crop"] == "full"
    )
    assert load_protocol("hftrainer-v1", ["metrics.fid=[raw]"]).metrics.use == ["R@k", "MM-Dist", "Diversity", "FID"]
