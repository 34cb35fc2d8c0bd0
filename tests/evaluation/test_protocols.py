"""Protocols against a slow second implementation of each (slow_protocols.py), and what their reports say."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy")

from hftrainer.config import ConfigError
from hftrainer.data.folder import Caption
from hftrainer.evaluation.protocols import load_protocol, protocol_names
from hftrainer.evaluation.protocols.clips import EvaluationSet
from hftrainer.evaluation.protocols.measures import Row
from hftrainer.evaluation.protocols.plan import draw, entries
from hftrainer.evaluation.protocols.retrieval import caption_groups, chances, pools
from hftrainer.evaluation.protocols.run import run_protocol
from hftrainer.evaluation.protocols.scoring import score
from tests.evaluation import slow_protocols as slow

SECOND = {
    "hml3d-272-leaderboard": slow.leaderboard, "hml3d-272-allcaptions": slow.allcaptions, "hftrainer-v1": slow.ours,
    "motius-strict": slow.strict, "motionmillion-upstream": slow.upstream, "hml3d-272-paper": slow.paper,
    "hml3d-263-official": slow.official263, "hml3d-263-leaderboard": slow.leaderboard263,
    "motionclip-135": slow.motionclip,
}  # fmt: skip


class FakeEvaluator:
    """Embeddings that depend on every frame, the number of frames and every letter."""

    def encode_motions(self, motions, lengths=None, batch_size=32):
        return np.array([[*m.mean(0), m[0, 0], m[-1, 1], len(m) / 50] for m in motions])

    def encode_texts(self, captions, batch_size=32):
        seeds = (zlib.crc32(caption.encode()) for caption in captions)
        return np.array([np.random.default_rng(seed).normal(size=9) for seed in seeds])


def make_data(seed=0, n=90, *, exactly_one=False, longest=330):
    rng = np.random.default_rng(seed)
    data = []
    for i in range(n):
        frames = int(rng.integers(61, 200)) if rng.random() < 0.85 else int(rng.integers(5, longest))
        lines = [(f"does thing {rng.integers(40)}", 0.0, 0.0)]
        if not exactly_one:
            lines += [(f"another view {j} of {i}", 0.0, 0.0) for j in range(rng.integers(3))]
            if rng.random() < 0.3:
                lines.insert(0, (f"a part of {i}", 0.5, float(rng.uniform(1, 8))))
            if rng.random() < 0.05:
                lines = [(f"only a part of {i}", 0.0, 3.0)]
        real = rng.normal(size=(frames, 6)).cumsum(0) / 5
        real += np.random.default_rng(zlib.crc32(lines[0][0].encode())).normal(size=6)
        pred = real + rng.normal(size=(frames, 6)) * 0.5
        refk = real + 0.2
        data.append({"id": f"{i:06d}", "lines": lines, "real": real, "pred": pred, "refk": refk})
    return data


def clips_of(data, **changes):
    table = {clip["id"]: clip for clip in data}
    lines = {i: [Caption(text, a, b, tokens=text) for text, a, b in c["lines"]] for i, c in table.items()}
    clips = EvaluationSet(
        list(table), lines, {i: len(c["real"]) for i, c in table.items()}, lambda i: table[i]["real"],
        lambda i: table[i]["pred"], {"refk": lambda i: table[i]["refk"]},
    )  # fmt: skip
    return replace(clips, **changes)


def same(report, want):
    for row, figures in want.items():
        for name, value in figures.items():
            assert report.rows[row][name]["mean"] == pytest.approx(value, rel=1e-9, abs=1e-12), (row, name)


def test_every_shipped_protocol_has_a_second_implementation():
    assert set(SECOND) == set(protocol_names())


@pytest.mark.parametrize("name", SECOND)
def test_the_whole_protocol_equals_the_second_implementation(name):
    if name == "motius-strict":
        data = make_data(exactly_one=True)
    elif name == "hml3d-272-leaderboard":
        data = [clip for clip in make_data(1) if len(clip["real"]) >= 8]
    else:
        data = make_data(2)
    protocol = load_protocol(name)
    want = SECOND[name](data, FakeEvaluator())
    report = run_protocol(protocol, clips_of(data), FakeEvaluator())
    same(report, want)
    assert report.rows["predicted"]["R@3"]["n"] == protocol.repeats
    assert report.counts["missing"] == report.counts["broken"] == 0
    json.dumps(report.as_dict())


def test_the_second_implementation_would_notice():
    """A seed off by one, a crop from elsewhere or another tail is another protocol."""
    data = make_data(3)
    want = slow.leaderboard([c for c in data if len(c["real"]) >= 8], FakeEvaluator())
    for change in ("seed=1", "crop.start=first", "crop.length=units", "captions.rule=random", "lengths.min=70"):
        protocol = load_protocol("hml3d-272-leaderboard", [change])
        report = run_protocol(protocol, clips_of([c for c in data if len(c["real"]) >= 8]), FakeEvaluator())
        with pytest.raises(AssertionError):
            same(report, want)


def test_strict_scoring_gives_the_published_tools_numbers():
    """Values of Motius' own aggregate on drawn embeddings (at 50cf750, two repeats)."""
    rng = np.random.default_rng(123)
    text = rng.standard_normal((70, 16)).astype(np.float32)
    real = text + 0.5 * rng.standard_normal((70, 16)).astype(np.float32)
    pred = text + 0.8 * rng.standard_normal((70, 16)).astype(np.float32)
    captions = [str(i) for i in range(70)]
    protocol = load_protocol("motius-strict", ["repeats=2"])
    rows = score(protocol, Row(text, real, captions), Row(text, pred, captions))
    got = {name: np.mean(values) for name, values in rows["predicted"].values.items()}
    assert [got[f"R@{k}"] for k in (1, 2, 3)] == pytest.approx([0.9609375, 0.9921875, 1.0])
    assert np.std(rows["predicted"].values["R@1"]) == pytest.approx(0.0234375)
    assert got["MM-Dist"] == pytest.approx(3.0533921122550964, rel=1e-6)
    assert got["FID-unit"] == pytest.approx(0.07245230274575898, rel=1e-5)
    assert got["Diversity"] == pytest.approx(6.833777904510498, rel=1e-6)
    assert np.mean(rows["real"].values["Diversity"]) == pytest.approx(6.325456619262695, rel=1e-6)


# --- failures ---------------------------------------------------------------------------------------------------------


def broken_data():
    data = make_data(4, exactly_one=True, longest=200)
    data[3]["pred"] = None
    data[5]["pred"] = data[5]["pred"][:-2]
    data[8]["pred"] = np.where(np.arange(6) == 2, np.nan, data[8]["pred"])
    return data


def test_missing_predictions_are_an_error_unless_told_otherwise():
    data = broken_data()
    said = r"1 have no prediction \(000003\) and 2 are broken \(000005: .* frames"
    with pytest.raises(ValueError, match=said) as error:
        run_protocol(load_protocol("hftrainer-v1"), clips_of(data), FakeEvaluator())
    assert "missing=drop" in str(error.value)
    report = run_protocol(load_protocol("hftrainer-v1", ["missing=drop"]), clips_of(data), FakeEvaluator())
    assert report.missing == ["000003"]
    assert set(report.broken) == {"000005", "000008"}
    assert report.counts["items"] == 87
    protocol = load_protocol("hftrainer-v1", ["missing=drop", "repeats=1"])
    long = make_data(4, exactly_one=True)
    long[0]["real"] = np.resize(long[0]["real"], (400, 6))
    for frames, good in ((400, True), (300, True), (299, False)):
        long[0]["pred"] = np.resize(long[0]["pred"], (frames, 6))
        report = run_protocol(protocol, clips_of(long, references={}), FakeEvaluator())
        assert (report.counts["broken"] == 0) == good
    assert "missing=drop" in report.protocol["name"]


def test_failures_are_wrong_answers():
    data = broken_data()
    protocol = load_protocol("hftrainer-v1", ["missing=failure"])
    report = run_protocol(protocol, clips_of(data), FakeEvaluator())
    for clip in data:
        if clip["pred"] is not None and np.isnan(clip["pred"]).any():
            clip["pred"] = None
    same(report, slow.ours(data, FakeEvaluator()))
    assert report.counts["failures"] == 3
    assert report.counts["retrieval_items"] == 90


def test_a_perfect_model_without_its_failures_would_look_better():
    text = np.eye(32)
    captions = [str(i) for i in range(32)]
    motion = text.copy()
    motion[:8] = np.nan
    protocol = load_protocol("hftrainer-v1", ["missing=failure", "metrics.diversity_pairs=10", "repeats=2"])
    rows = score(protocol, Row(text, text, captions), Row(text, motion, captions))
    assert rows["predicted"].values["R@1"] == [0.75, 0.75]
    assert rows["real"].values["R@1"] == [1.0, 1.0]
    plain = load_protocol("hftrainer-v1")
    with pytest.raises(ValueError, match=r"NaN or infinite values \(8 motions\)"):
        score(plain, Row(text, text, captions), Row(text, motion, captions))


# --- steps ------------------------------------------------------------------------------------------------------------


def test_same_captions_are_right_and_ties_count_by_chance():
    text = np.array([[0.0, 0], [10, 0], [20, 0]])
    motion = np.array([[4.0, 0], [3, 0], [20, 0]])  # the first caption is nearer to the second's motion
    everything = np.arange(3)
    found = chances(text, motion, np.array([0, 1, 2]), everything, everything)
    assert found.chances.T.tolist() == [[0, 1, 1], [0, 1, 1], [1, 1, 1]]
    found = chances(text, motion, np.array([0, 0, 2]), everything, everything)
    assert found.chances.T.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    found = chances(text, np.zeros((3, 2)), np.array([0, 1, 2]), everything, everything)  # a collapsed model
    np.testing.assert_allclose(found.chances.T, [[1 / 3, 2 / 3, 1]] * 3)
    assert found.tied.all()
    assert caption_groups(["A man  walks.", "a man walks", "a man"]).tolist() == [1, 1, 0]


def test_a_collapsed_model_scores_chance_whole_protocol():
    captions = [f"does thing {number}" for number in range(90)]
    text, motion = FakeEvaluator().encode_texts(captions), np.full((90, 9), 0.5)
    rows = score(load_protocol("hftrainer-v1"), Row(text, text, captions), Row(text, motion, captions))
    for k in (1, 2, 3):
        assert np.mean(rows["predicted"].values[f"R@{k}"]) == pytest.approx(k / 32)
    assert set(rows["predicted"].values["ties"]) == {1.0}


def test_refilled_pools_ask_every_item_once():
    made = pools(np.random.default_rng(0).permutation(75), 32, "refill")
    queries = np.concatenate([q for q, _ in made])
    assert sorted(queries) == list(range(75))
    assert all(len(c) == 32 == len(set(c)) and set(q) <= set(c) for q, c in made)
    assert sum(len(q) for q, _ in pools(np.arange(75), 32, "drop")) == 64


def test_half_rows_say_what_fid_is_worth():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(640, 16))
    real = text + 0.1 * rng.normal(size=(640, 16))
    rows = score(load_protocol("hml3d-272-leaderboard"), Row(text, real, [str(i) for i in range(640)]))
    assert rows["real"].values["R@1"] == [1.0]
    assert 0 < rows["split_half"].values["FID"][0] < 1.0
    assert "predicted" not in rows


def test_drawing_twice_is_the_same_and_repeats_differ():
    data = make_data(5)
    clips = clips_of(data)
    protocol = load_protocol("hml3d-272-paper")
    kept = entries(protocol, clips.ids, clips.captions, clips.frames).kept
    assert draw(protocol, kept) == draw(protocol, kept)
    assert draw(protocol, kept) != draw(protocol, kept, 1)
    for item in draw(protocol, kept):
        assert item.frames % 4 == 0
        assert 0 <= item.start <= item.start + item.frames <= clips.frames[item.id]


def test_very_short_clips_do_not_break_the_coin():
    """The published script asks for 0 or -4 frames of them."""
    protocol = load_protocol("hml3d-272-leaderboard")
    lengths = {f"{i}": n for i, n in enumerate([4, 5, 6, 7] * 10)} | {"tiny": 3}
    captions = {i: [Caption("x")] for i in lengths}
    found = entries(protocol, lengths, captions, lengths)
    assert {item.frames for item in draw(protocol, found.kept)} == {4}
    assert found.dropped == {"shorter than 4 frames": ["tiny"]}


def test_what_is_left_out_has_a_reason():
    protocol = load_protocol("hml3d-272-allcaptions")
    captions = {
        "a": [Caption("all of it"), Caption("part", 1.0, 4.0), Caption("blink", 1.0, 1.5)], "b": [],
        "c": [Caption("long")],
    }  # fmt: skip
    found = entries(protocol, ["a", "b", "c"], captions, {"a": 200, "b": 100, "c": 300})
    assert [entry.key for entry in found.kept] == ["a#0", "a@0"]
    assert (found.kept[1].start, found.kept[1].end) == (30, 120)
    assert found.dropped == {"segment with a length outside 60 to 300 (excluded)": ["a@1"],
                             "length outside 60 to 300 (excluded)": ["c"]}  # fmt: skip
    with pytest.raises(ValueError, match="clip a has 2 captions of the full clip; motius-strict needs exactly one"):
        entries(load_protocol("motius-strict"), ["a"], {"a": [Caption("x"), Caption("y")]}, {"a": 100})
    with pytest.raises(ValueError, match="clip b has no length"):
        entries(protocol, ["a", "b"], captions, {"a": 100})
    with pytest.raises(ValueError, match="has no tokens, which hml3d-263-official requires"):
        entries(load_protocol("hml3d-263-official"), ["a"], {"a": [Caption("x")]}, {"a": 100})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["crop.lenght=coin"], "did you mean 'length'"),
        (["crop.length=dice"], "crop.length must be one of coin, units, full, got 'dice'"),
        (["metrics.use=[FDI]"], "no metric called 'FDI'. Did you mean 'FID'"),
        (["metrics.use=[3]"], "metrics.use must list names of metrics, got 3"),
        (["missing=failure"], "missing=failure needs metrics.positives=same_caption"),
        (["repeats=20"], "20 repeats need redraw"),
        (["batches.size=1"], "at least 2"),
    ],
)
def test_wrong_protocols_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_protocol("hml3d-272-leaderboard", overrides)


def test_unknown_protocols_list_the_near_ones(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'hml3d-272-leaderboard'"):
        load_protocol("hml3d-272-leaderbord")
    own = tmp_path / "mine.yaml"
    own.write_text("summary: a\nsource: b\nevaluator: c\nbatches: {size: 8}\n")
    assert load_protocol(own).name == "mine"
    assert load_protocol(own, ["seed=3"]).name == "mine seed=3"


def test_too_few_items_for_a_pool_are_an_error():
    data = make_data(6, n=20)
    with pytest.raises(ValueError, match="less than one pool of 32"):
        run_protocol(load_protocol("motionclip-135"), clips_of(data), FakeEvaluator())
