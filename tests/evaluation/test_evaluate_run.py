"""`hftrainer evaluate run`: folders and models judged, reports, comparisons, and what broken folders are told."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from hftrainer.apps.eval_dataset import frames_to_make, open_dataset, protocol_pairs
from hftrainer.cli import main
from hftrainer.data.folder import Caption
from hftrainer.data.synthetic.motions import CAPTIONS, make_motion
from hftrainer.evaluation import compare
from hftrainer.evaluation.page import retrieval_cases, write_page
from hftrainer.evaluation.predictions import Predictions
from hftrainer.evaluation.protocols import load_protocol
from hftrainer.evaluation.protocols.clips import EvaluationSet
from hftrainer.evaluation.protocols.run import plan_items, run_protocol
from hftrainer.motion.representation.convert import motion272_to_hml263
from tests.evaluation.runs import make_data, make_judge, noisy
from tests.tiny import tiny_evaluator


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return make_judge(tmp_path_factory.mktemp("judge") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory, synthetic):
    return make_data(tmp_path_factory.mktemp("data") / "set", synthetic)


@pytest.fixture
def folder(data, tmp_path):
    return noisy(data, tmp_path / "made", 0.01)


def run(data, judge, predictions, *more):
    arguments = ["--data", data.root, "--evaluator", judge, "--predictions", predictions, *more]
    return main(["evaluate", "run", *map(str, arguments)])


# --- what it gives ----------------------------------------------------------------------------------------------------


def test_a_folder_is_judged_and_reported(data, judge, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(data, judge, folder, "--out", out, "--cases", 2, "--cache", tmp_path / "cache", "--wandb", "x") == 0
    assert {path.name.split("-")[1] for path in (tmp_path / "cache").iterdir()} == {"motion.npz", "text.npz"}
    said = capsys.readouterr().out
    assert "R@1 ↑" in said
    assert "not comparable with published results" in said
    result = json.loads((out / "report.json").read_text())
    assert result["counts"]["items"] == 40
    assert set(result["rows"]) == {"predicted", "real", "split_half", "random_caption"}
    assert result["rows"]["predicted"]["R@1"]["n"] == 20
    assert set(result["physical"]) == {"real", "predicted"}
    assert result["physical"]["predicted"]["published"]["n"] == 40
    assert result["physical"]["predicted"]["published"]["Jitter"] > result["physical"]["real"]["published"]["Jitter"]
    markdown = (out / "report.md").read_text()
    assert "| R@1 ↑ |" in markdown
    assert "Slide, mm/frame ↓" in markdown
    page = (out / "report.html").read_text()
    assert "http://" not in page.split("<script")[0]  # in one file, from nowhere else
    assert "https://" not in page.split("<script")[0]
    cases = json.loads(page.split('id="cases">')[1].split("</script>")[0])
    assert [case["kind"] for case in cases] == ["worst", "worst", "best", "best"]
    assert all(len(case["motions"]["clips"]) == 2 for case in cases)
    with np.load(out / "per_item.npz", allow_pickle=False) as items:
        assert items["keys"].tolist() == data.names("test")
        assert items["predicted"].shape == items["text"].shape == (40, 16)
        first = data.captions(data.names("test")[0])[0].text
        assert items["captions"][0] == first


def test_a_model_makes_what_is_judged_and_goes_on_where_it_stopped(data, judge, tiny_model, tmp_path, capsys):
    arguments = ["evaluate", "run", "--data", str(data.root), "--evaluator", str(judge), "--model", str(tiny_model)]
    arguments += ["--out", str(tmp_path / "out"), "--steps", "8", "--limit", "32", "--cases", "1"]
    assert main(arguments) == 0
    assert "32 motions, 32 to generate" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result["predictions"]["model_hash"].startswith("sha256:")
    assert result["predictions"]["padded_clips"] == 32
    manifest = json.loads((tmp_path / "out" / "predictions" / "manifest.json").read_text())
    assert [item["name"] for item in manifest["items"]] == data.names("test")[:32]
    assert all(item["frames"] == data.frames(item["name"]) for item in manifest["items"])
    assert main(arguments) == 0
    assert "32 motions, 0 to generate" in capsys.readouterr().out
    again = json.loads((tmp_path / "out" / "report.json").read_text())
    assert again["rows"] == result["rows"]


def test_two_runs_are_compared_item_by_item(data, judge, tmp_path, capsys):
    for name, scale in (("good", 0.002), ("bad", 0.04)):
        made = noisy(data, tmp_path / name, scale)
        assert run(data, judge, made, "--out", tmp_path / f"{name}_run", "--cases", 1) == 0
    capsys.readouterr()
    command = ["evaluate", "run", "--compare", *(str(tmp_path / f"{n}_run") for n in ("good", "bad"))]
    assert main([*command, "--out", str(tmp_path / "c")]) == 0
    assert "Jitter" in capsys.readouterr().out
    rows = json.loads((tmp_path / "c" / "comparison.json").read_text())["differences"]
    found = {row["metric"]: row for row in rows}
    jitter = found["Jitter"]
    assert 0 < jitter["low"] < jitter["difference"] < jitter["high"]
    assert jitter["difference"] == pytest.approx(jitter["b"] - jitter["a"], rel=1e-6)
    fid = found["FID"]
    assert fid["low"] < fid["difference"] < fid["high"]
    a, b = (compare.read_run(tmp_path / f"{n}_run") for n in ("good", "bad"))
    for one in compare.compare(a, a, resamples=50, fid_resamples=5):
        assert (one.difference, one.low, one.high, one.seen) == (0, 0, 0, False)
    want = float(np.linalg.norm(a.items["text"] - a.items["predicted"], axis=1).mean())
    assert found["MM-Dist"]["a"] == pytest.approx(want, rel=1e-5)
    assert found["FID"]["a"] == pytest.approx(a.result["rows"]["predicted"]["FID"]["mean"], rel=1e-4, abs=1e-7)
    b.result["evaluator"]["identity"] = "other"
    with pytest.raises(ValueError, match="evaluated by different evaluators"):
        compare.compare(a, b)
    b = compare.read_run(tmp_path / "bad_run")
    b.result["protocol"]["crop"]["max_frames"] = 100
    with pytest.raises(ValueError, match="evaluated differently: crop is"):
        compare.compare(a, b)
    b = compare.read_run(tmp_path / "bad_run")
    b.items["captions"][3] = "another"
    with pytest.raises(ValueError, match="different captions"):
        compare.compare(a, b)
    with pytest.raises(ValueError, match=r"has no report\.json"):
        compare.read_run(tmp_path)


def test_intervals_of_differences_cover_what_they_say():
    """Of many made pairs of runs with a known difference, about 95 % of the intervals hold it."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        a = rng.normal(size=60)
        b = a + 0.3 + 0.5 * rng.normal(size=60)
        d = compare._paired("x", a, b, rng.integers(60, size=(300, 60)))
        inside += d.low <= 0.3 <= d.high
    assert 0.88 <= inside / 200 <= 0.99


def test_the_page_ranks_by_a_slow_second_count():
    rng = np.random.default_rng(0)
    text, made = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    made[7] = np.nan
    captions = [f"caption {i // 2}" for i in range(30)]
    cases = retrieval_cases(text, made, captions)
    assert len(cases) == 29
    assert [case.rank for case in cases] == sorted((case.rank for case in cases), reverse=True)
    for case in cases:
        i = case.row
        wrong = {j: np.linalg.norm(text[i] - made[j]) for j in range(30) if j != 7 and captions[j] != captions[i]}
        own = np.linalg.norm(text[i] - made[i])
        assert case.rank == sum(d < own for d in wrong.values())
        first = min(wrong, key=wrong.get)
        assert case.nearest == (first if wrong[first] < own else None)


NASTY = (
    "</script><script>document.body.dataset.hacked = 1</script> <img src=x onerror=alert(1)> {{cases}} \u2028 'a' \"b\""
)


def page_of(tmp_path):
    rng = np.random.default_rng(0)
    motions = [make_motion(content, 20, seed) for seed, content in enumerate(sorted(CAPTIONS))]
    items = {
        "text": rng.normal(size=(5, 4)), "predicted": rng.normal(size=(5, 4)),
        "keys": [f"k{i}{NASTY}" for i in range(5)], "captions": [f"{i} {NASTY}" for i in range(5)],
    }  # fmt: skip
    result = {
        "protocol": {"name": f"p {NASTY}", "representation": "motion272"}, "evaluator": {"name": NASTY}, "dropped": {},
        "rows": {"predicted": {"FID": {"mean": 1.0, "ci95": 0.0, "n": 1}}}, "counts": {"ids": 5, "items": 5},
        "missing": [], "broken": {}, "predictions": {"name": NASTY},
    }  # fmt: skip
    path = tmp_path / "report.html"
    write_page(path, result, items, motions.__getitem__, motions.__getitem__, count=2)
    return path


def test_no_text_becomes_part_of_the_page(tmp_path):
    page = page_of(tmp_path).read_text()
    assert page.count("</script>") == 3  # cases, frame, and the page's own
    assert "<img" not in page.replace("\\u003cimg", "")
    cases = json.loads(page.split('id="cases">')[1].split("</script>")[0])
    assert all(case["caption"].endswith(NASTY) for case in cases)
    assert [case["kind"] for case in cases] == ["worst", "worst", "best", "best"]


@pytest.mark.slow
def test_a_browser_plays_the_worst_retrieval(tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    done = subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--disable-background-networking", "--no-first-run", "--window-size=900,700",
            "--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            page_of(tmp_path).as_uri(),
        ],
        capture_output=True, check=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.count('aria-current="true"') == 1
    assert done.stdout.count("<button") == 4
    assert "data-shown=" in done.stdout
    assert "data-hacked" not in done.stdout
    assert "<iframe" in done.stdout
    assert "srcdoc=" in done.stdout


# --- several generations ----------------------------------------------------------------------------------------------


def test_multimodality_by_folders_and_by_suffixes(data, judge, tmp_path):
    made = [noisy(data, tmp_path / f"{k}", 0.02, seed=k) for k in range(3)]
    results = []
    assert run(data, judge, made[0], *made[1:], "--out", tmp_path / "a", "--cases", 1) == 0
    for k in (1, 2):
        for name in data.names("test"):
            shutil.copyfile(made[k] / f"{name}.npy", made[0] / f"{name}_{k}.npy")
    assert run(data, judge, made[0], "--out", tmp_path / "b", "--cases", 1) == 0
    results = [json.loads((tmp_path / n / "report.json").read_text()) for n in ("a", "b")]
    rows = [result["rows"]["predicted"] for result in results]
    assert rows[0]["MultiModality"] == rows[1]["MultiModality"]
    assert results[0]["counts"]["multimodality_generations"] == 3
    evaluator = tiny_evaluator()
    names = data.names("test")
    sets = []
    for folder in made:
        clips = [np.load(folder / f"{name}.npy") for name in names]
        sets.append(evaluator.encode_motions([clip[: min(len(clip), 300) // 4 * 4] for clip in clips]))
    pairs = [
        np.linalg.norm(a - b, axis=1).mean() for a, b in ((sets[0], sets[1]), (sets[0], sets[2]), (sets[1], sets[2]))
    ]
    assert rows[0]["MultiModality-all-pairs"]["mean"] == pytest.approx(np.mean(pairs), rel=1e-4)
    assert 0 < rows[0]["MultiModality"]["mean"] < rows[0]["MultiModality-all-pairs"]["mean"]  # some are with themselves


def test_predictions_by_key_stand_for_parts_and_captions():
    protocol = load_protocol("hml3d-272-allcaptions", ["lengths.min=8", "batches.size=3", "repeats=1"])
    rng = np.random.default_rng(0)
    real = {name: rng.normal(size=(80, 4)) for name in "abcd"}
    captions = {
        name: [Caption(f"{name} one"), Caption(f"{name} two"), Caption(f"{name} part", 1.0, 2.0)] for name in real
    }
    clips = EvaluationSet(list(real), captions, dict.fromkeys(real, 80), real.__getitem__, by_key=True)
    pairs = protocol_pairs(protocol, plan_items(protocol, clips).kept, "motion272")
    assert [(p.name, p.frames) for p in pairs[:3]] == [("a#0", 80), ("a#1", 80), ("a@0", 30)]
    seen = []

    class Judge:
        def encode_motions(self, motions, lengths=None, batch_size=32):
            seen.extend(len(m) for m in motions)
            return np.array([m.mean(0) for m in motions])

        def encode_texts(self, texts, batch_size=32):
            return np.array([[len(t), *(ord(c) for c in t[:3])] for t in texts], dtype=float)

    asked = []

    def predicted(key):
        asked.append(key)
        return real[key[0]][30:60] if "@" in key else real[key[0]]

    clips.predicted = predicted
    report = run_protocol(protocol, clips, Judge())
    assert set(asked) == {pair.name for pair in pairs}
    assert report.counts["items"] == 12
    np.testing.assert_allclose(report.embedded.predicted, report.embedded.real)


# --- other representations --------------------------------------------------------------------------------------------


def test_a_folder_of_272_is_converted_for_a_judge_of_263(data, folder):
    protocol = load_protocol("hml3d-263-leaderboard")
    made = Predictions(folder, protocol.representation)
    name = data.names("test")[0]
    motion = np.load(folder / f"{name}.npy")
    np.testing.assert_allclose(made(name), motion272_to_hml263(motion), atol=1e-5)
    clips = open_dataset(data.root, protocol, split="test")
    assert clips.frames[name] == len(clips.real(name))
    for frames in range(20, 60):  # what is asked for gives the judged length after conversion, or a little more
        asked = np.repeat(motion[:1], frames_to_make(frames, "motion272", "hml263"), axis=0)
        assert 0 <= len(motion272_to_hml263(asked)) - frames <= 3


# --- broken folders ---------------------------------------------------------------------------------------------------


def refused(capsys, status):
    assert status == 1
    return capsys.readouterr().err


def test_missing_predictions(data, judge, folder, capsys, tmp_path):
    names = data.names("test")
    for name in names[:7]:
        (folder / f"{name}.npy").unlink()
    said = refused(capsys, run(data, judge, folder, "--out", tmp_path / "o"))
    assert "of 40 items of protocol hftrainer-v1, 7 have no prediction" in said
    assert names[0] in said
    assert "missing=drop" in said
    assert not (tmp_path / "o" / "report.json").exists()
    assert run(data, judge, folder, "--set", "missing=failure", "--out", tmp_path / "o", "--cases", 1) == 0
    result = json.loads((tmp_path / "o" / "report.json").read_text())
    assert result["missing"] == names[:7]
    assert result["counts"]["failures"] == 7
    assert result["protocol"]["name"] == "hftrainer-v1 missing=failure"
    assert result["physical"]["predicted"]["published"]["n"] == 33
    assert "missing: 7" in (tmp_path / "o" / "report.md").read_text()


def test_nan_empty_unreadable_and_short_files(data, judge, folder, capsys):
    names = data.names("test")
    motion = np.load(folder / f"{names[0]}.npy")
    motion[5, 3] = np.nan
    np.save(folder / f"{names[0]}.npy", motion)
    (folder / f"{names[1]}.npy").write_bytes(b"")
    (folder / f"{names[2]}.npy").write_bytes(b"no array")
    np.save(folder / f"{names[3]}.npy", motion[:0])
    np.save(folder / f"{names[4]}.npy", np.load(folder / f"{names[4]}.npy")[:-9])
    said = refused(capsys, run(data, judge, folder))
    assert "5 are broken" in said
    assert f"{names[0]}.npy: frame 5 holds a NaN" in said
    assert f"{names[1]}.npy cannot be read as a numpy array: it is empty" in said
    assert f"{names[2]}.npy cannot be read" in said
    assert f"{names[3]}.npy has no frames" in said
    assert f"its clip has {data.frames(names[4])}" in said
    assert "Traceback" not in said


def test_wrong_width(data, judge, folder, capsys, tmp_path):
    for name in data.names("test"):
        path = folder / f"{name}.npy"
        np.save(path, np.load(path)[:, :200])
    said = refused(capsys, run(data, judge, folder))
    assert "(frames, 200), no known representation has that shape; expected motion272" in said
    assert "convert-representation" in said
    strange = noisy(data, tmp_path / "strange", 0.01)
    for path in strange.rglob("*.npy"):
        np.save(path, np.load(path)[:, :77])
    assert "no known representation has that shape" in refused(capsys, run(data, judge, strange))


def test_one_file_of_another_width_is_named(data, judge, folder, capsys):
    name = data.names("test")[11]
    np.save(folder / f"{name}.npy", np.zeros((data.frames(name), 263), np.float32))
    said = refused(capsys, run(data, judge, folder))
    assert f"{name}.npy: expected floats (frames, 272), got ({data.frames(name)}, 263)" in said


@pytest.mark.parametrize("protocol", ["hftrainer-v1", "motius-strict"])
def test_wrong_frame_rate(data, judge, folder, capsys, protocol):
    for name in data.names("test"):
        path = folder / f"{name}.npy"
        motion = np.load(path)
        np.save(path, motion[np.linspace(0, len(motion) - 1, round(len(motion) * 20 / 30)).round().astype(int)])
    said = refused(capsys, run(data, judge, folder, "--protocol", protocol, "--set", "captions.rule=first"))
    assert "have 0.667 times the frames of their clips, as motions at 20 fps would have; 30 fps is expected" in said
    (folder / "manifest.json").write_text(json.dumps({"fps": 20.0}))
    said = refused(capsys, run(data, judge, folder, "--protocol", protocol, "--set", "captions.rule=first"))
    assert "manifest.json says 20 fps; motion272 has 30" in said


def test_nothing_to_judge(data, judge, folder, capsys, tmp_path):
    assert "there is no folder of predictions" in refused(capsys, run(data, judge, tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "has no .npy files" in refused(capsys, run(data, judge, tmp_path / "empty"))
    for number, path in enumerate(sorted(folder.rglob("*.npy"))):
        path.rename(folder / f"{number:06d}.npy")
    said = refused(capsys, run(data, judge, folder))
    assert "holds 40 motions, none of which has the name of a clip" in said


def test_what_does_not_fit_together(data, judge, folder, capsys, tiny_model, tmp_path):
    said = refused(capsys, main(["evaluate", "run", "--data", str(data.root), "--evaluator", str(judge)]))
    assert "give either --predictions FOLDER or --model NAME" in said
    said = refused(capsys, main(["evaluate", "run", "--data", str(data.root), "--predictions", str(folder)]))
    assert "needs a motionstreamer272 evaluator: --evaluator" in said
    said = refused(capsys, run(data, "gotozero-nano", folder))
    assert "gotozero-nano is no evaluator; motionstreamer272 is needed" in said
    said = refused(capsys, run(data, judge, folder, "--set", "missing"))
    assert "write field=value" in said
    arguments = ["--data", data.root, "--evaluator", judge, "--model", tiny_model, "--out", tmp_path]
    said = refused(capsys, main(["evaluate", "run", *map(str, arguments), "--protocol", "hml3d-263-leaderboard"]))
    assert "has no tokens, which hml3d-263-leaderboard requires" in said
    said = refused(capsys, main(["evaluate", "run", *map(str, arguments), "--protocol", "motionclip-135"]))
    assert "bundle_config.json cannot be read" in said  # an evaluator of another kind
    said = refused(capsys, run(data, judge, folder, "--protocol", "motionclip-135"))
    assert "bundle_config.json" in said
