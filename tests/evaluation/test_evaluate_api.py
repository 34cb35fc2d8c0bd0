"""Evaluation as a library: what is refused before work, what is read, who judges, and several runs in one table."""

from __future__ import annotations

import json

import numpy as np
import pytest

import hftrainer
from hftrainer.apps.evaluate import evaluate, source_or_folders
from hftrainer.apps.evaluators import resolve_evaluator
from hftrainer.apps.generate_set import SetJob, Settings, Source
from hftrainer.apps.leaderboard import leaderboard, published_rows
from hftrainer.apps.pairs import PairSource, read_pairs
from hftrainer.cli import main
from hftrainer.data.text_motion.evaluation import Pair, UnusablePairs, check_names
from hftrainer.evaluation import predictions as prediction_files
from hftrainer.evaluation.physical_table import joints_of_clip, physical_table, skeleton_note
from hftrainer.evaluation.protocols import load_protocol
from hftrainer.evaluation.protocols.clips import EvaluationSet, Found, MotionStore, refuse_implausible
from hftrainer.evaluation.vocabulary import ARROWS
from hftrainer.pipelines.exact_length import make_requests
from tests.evaluation.runs import make_data, make_judge, noisy
from tests.tiny import tiny_evaluator


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return make_judge(tmp_path_factory.mktemp("judge") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory, synthetic):
    return make_data(tmp_path_factory.mktemp("data") / "set", synthetic)


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    return noisy(data, tmp_path_factory.mktemp("made") / "made", 0.01)


# --- the function -----------------------------------------------------------------------------------------------------


def test_a_folder_is_judged_without_a_word(data, judge, folder, tmp_path, capsys):
    report = hftrainer.evaluate(folder, data.root, protocol="hftrainer-v1", evaluator=judge)
    assert report["FID"] == report.rows["predicted"]["FID"]["mean"] >= 0
    assert report["R@1", "real"] == report.rows["real"]["R@1"]["mean"]
    assert report.flat()["predicted/R@1"] == report["R@1"]
    assert "R@1 ↑" in str(report)
    assert "| FID ↓ |" in report.markdown()
    written = report.write(tmp_path / "out", cases=1)
    assert [path.name for path in written] == ["report.html", "report.md", "report.json", "per_item.npz"]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"] == report.rows
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_the_command_and_the_function_give_the_same(data, judge, folder, tmp_path):
    arguments = ["--data", data.root, "--evaluator", judge, "--predictions", folder, "--out", tmp_path, "--cases", 1]
    assert main(["evaluate", "run", *map(str, arguments)]) == 0
    report = evaluate(folder, data.root, evaluator=judge)
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == report.rows


def test_an_evaluator_is_a_name_a_section_or_an_object(data, judge, folder):
    by_name = evaluate(folder, data.root, evaluator=judge)
    section = {"name": "motionstreamer272", "path": judge}
    by_section = evaluate(folder, data.root, evaluator=section)
    by_object = evaluate([folder], data.root, evaluator=tiny_evaluator())
    assert by_name.rows == by_section.rows
    assert by_object["FID"] == pytest.approx(by_name["FID"], rel=1e-4)
    assert by_name.result["evaluator"]["identity"] == by_object.result["evaluator"]["identity"]
    with pytest.raises(ValueError, match=r"evaluator\.path is missing"):
        evaluate(folder, data.root, evaluator={"name": "motionstreamer272"})


def test_an_evaluator_of_another_representation_is_refused():
    class Other:
        representation = "hml263"
        encode_motions = encode_texts = None

    with pytest.raises(ValueError, match="hftrainer-v1 evaluates motion272, but the evaluator expects hml263"):
        resolve_evaluator(Other(), load_protocol("hftrainer-v1"))
    with pytest.raises(ValueError, match="motionclip135 evaluators do not cache embeddings"):
        resolve_evaluator("somewhere", load_protocol("motionclip-135"), cache_dir="cache")
    with pytest.raises(ValueError, match="needs a motionstreamer272 evaluator: --evaluator"):
        resolve_evaluator(None, load_protocol("hftrainer-v1"))


def test_a_model_says_what_its_motions_are_made_of(tiny_model, tmp_path):
    import shutil

    assert Source(str(tiny_model)).representation == "motion272"
    assert Source("gotozero-nano").representation == "motion272"
    assert Source(released={"fsq": "a", "ar": "b"}).representation == "motion272"
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "representation": "hml263"}))
    assert Source(str(other)).representation == "hml263"


def test_a_folder_with_weights_is_a_model(tiny_model, folder, tmp_path):
    assert source_or_folders(str(tiny_model)) == (Source(model=str(tiny_model)), [])
    assert source_or_folders(folder) == (None, [folder])
    assert source_or_folders([folder, folder]) == (None, [folder, folder])
    assert source_or_folders("gotozero-nano")[0] == Source(model="gotozero-nano")
    with pytest.raises(ValueError, match="list of prediction folders is empty"):
        source_or_folders([])


@pytest.mark.parametrize(
    ("released", "message"),
    [
        ({}, "give a model"),
        ({"fsq": "a.pth"}, "released files need --ar too"),
        ({"fsq": "gone.pth", "ar": "b.pth"}, "there is no file 'gone.pth'"),
        ({"vocoder": "a.pth"}, "no pipeline can read the released files vocoder"),
    ],
)
def test_what_generates_has_to_be_said(released, message):
    with pytest.raises(ValueError, match=message):
        Source(released=released).identify()


# --- before work is spent ---------------------------------------------------------------------------------------------


def test_too_few_clips_are_refused_before_anything_is_generated(data, judge, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("hftrainer.apps.evaluate.generate_set", lambda *a, **k: pytest.fail("generated"))
    with pytest.raises(ValueError, match="6 items are less than one pool of 32; evaluate more clips"):
        evaluate(str(tiny_model), data.root, evaluator=judge, out=tmp_path, limit=6)
    with pytest.raises(ValueError, match="is no evaluator"):
        evaluate(str(tiny_model), data.root, evaluator="gotozero-nano", out=tmp_path)
    with pytest.raises(ValueError, match="a model needs --out"):
        evaluate(str(tiny_model), data.root, evaluator=judge)


def test_each_prediction_and_each_real_clip_is_read_once(data, judge, folder, monkeypatch, tmp_path):
    read, real = [], []
    load, motion = prediction_files.read_prediction, type(data).motion
    monkeypatch.setattr(prediction_files, "read_prediction", lambda path, width: read.append(path) or load(path, width))
    monkeypatch.setattr(type(data), "motion", lambda self, name: real.append(name) or motion(self, name))
    report = evaluate(folder, data.root, evaluator=judge, out=tmp_path)
    report.write(tmp_path, cases=3)
    assert len(read) == len(set(read)) == 40
    assert len(real) == len(set(real)) == 40


def test_a_store_keeps_what_fits_and_no_errors():
    asked = []

    def load(name):
        asked.append(name)
        if name == "bad":
            raise ValueError("broken")
        return np.zeros(100, np.uint8)

    store = MotionStore(load, budget=250)
    for name in ("a", "b", "c", "a", "b", "c"):
        store(name)
    assert asked == ["a", "b", "c", "c"]
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            store("bad")
    assert asked[4:] == ["bad", "bad"]


# --- motions that are something else ----------------------------------------------------------------------------------


def changed(data, out, change):
    out.mkdir()
    for number, name in enumerate(data.names("test")):
        np.save(out / f"{name}.npy", change(data.motion(name), number).astype(np.float32))
    return out


def z_scored(motion, _):
    return (motion - motion.mean(0)) / (motion.std(0) + 1e-6)


def frozen(motion, _):
    return np.repeat(motion[:1], len(motion), axis=0)


def scaled(factor):
    def change(motion, _):
        motion = motion.copy()
        motion[:, :2] *= factor
        motion[:, 8:140] *= factor
        return motion

    return change


def upside_down(motion, _):
    motion = motion.copy()
    motion[:, 9:74:3] *= -1
    return motion


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (z_scored, "not motion272 in physical units"),
        (scaled(100), "not motion272 in physical units .units"),
        (scaled(0.01), "not motion272 in physical units .units"),
        (frozen, "not motion272 in physical units .frozen"),
        (upside_down, "not motion272 in physical units .(upside down|floor)"),
    ],
)
def test_folders_of_something_else_are_refused_with_what_shows_it(data, judge, tmp_path, change, said):
    made = changed(data, tmp_path / "made", change)
    with pytest.raises(ValueError, match=said) as error:
        evaluate(made, data.root, evaluator=judge)
    assert "40 of 40 predictions" in str(error.value)
    assert "--any-values" in str(error.value)
    report = evaluate(made, data.root, evaluator=judge, any_values=True)
    assert report.result["counts"]["implausible"] == 40


def test_bad_velocities_are_a_models_quality_and_not_another_unit(data, judge, tmp_path):
    def sloppy(motion, number):
        motion = motion.copy()
        motion[:, 74:140] += 0.05 * np.random.default_rng(number).normal(size=(len(motion), 66))
        return motion

    made = changed(data, tmp_path / "made", sloppy)
    assert evaluate(made, data.root, evaluator=judge).result["implausible"] == {}


def test_a_data_set_of_something_else_is_refused(data, judge, folder, tmp_path, synthetic):
    bad = make_data(tmp_path / "set", synthetic)
    for name in bad.names():
        bad.write_motion(name, z_scored(bad.motion(name), 0))
    with pytest.raises(
        ValueError, match=r"looked at are not motion272 in physical units .*Predictions cannot be evaluated"
    ):
        evaluate(folder, bad.root, evaluator=judge)


def test_a_few_implausible_motions_are_named_and_judged(data, judge, tmp_path):
    made = changed(data, tmp_path / "made", lambda motion, number: frozen(motion, 0) if number < 3 else motion)
    report = evaluate(made, data.root, evaluator=judge)
    names = data.names("test")[:3]
    assert list(report.result["implausible"]["frozen"]) == names
    assert f"implausible, frozen: 3 ({', '.join(names)})" in str(report)
    assert report.result["counts"]["items"] == 40


def test_a_models_own_motions_are_named_and_not_refused(data, judge, tiny_model, tmp_path):
    """Its units are known; an untrained model makes garbage, which is its result."""
    settings = Settings(steps=4)
    report = evaluate(str(tiny_model), data.root, evaluator=judge, out=tmp_path, settings=settings)
    assert report.result["counts"]["implausible"] > 20
    assert report.result["predictions"]["model_hash"].startswith("sha256:")


@pytest.mark.parametrize(("odd", "refused"), [(0, False), (20, False), (21, True), (40, True)])
def test_more_than_half_have_to_be_implausible(odd, refused):
    cases = {"frozen": {f"{i}": "no joint moves" for i in range(odd // 3)}}
    cases["units"] = {f"{i}": "374 m of bones" for i in range(odd // 3, odd)}
    found = Found(lengths={f"{i}": 10 for i in range(40)}, implausible={k: v for k, v in cases.items() if v})
    assert len(found.odd) == odd
    if not refused:
        refuse_implausible(load_protocol("hftrainer-v1"), found)
        return
    with pytest.raises(
        ValueError, match=rf"{odd} of 40 predictions are not motion272 in physical units \(units; .* m of"
    ):
        refuse_implausible(load_protocol("hftrainer-v1"), found)


def test_a_folder_that_is_converted_has_its_own_rate(data, tmp_path):
    made = noisy(data, tmp_path / "made", 0.01)
    wanted = dict.fromkeys(data.names("test"), 40)
    for noted, good in ((30.0, True), (20.0, False)):
        (made / "manifest.json").write_text(json.dumps({"fps": noted}))
        found = prediction_files.Predictions(made, "hml263")
        if good:
            found.check_rate(wanted, 20.0)
        else:
            with pytest.raises(ValueError, match="says 20 fps; motion272 has 30"):
                found.check_rate(wanted, 20.0)


def test_a_clip_with_several_captions_is_measured_once(data):
    first, second = data.names("test")[:2]
    asked = []
    table = physical_table([first, second, first], lambda name: asked.append(name) or data.motion(name), "motion272")
    assert asked == [first, second]
    np.testing.assert_array_equal(table.published[0], table.published[2])
    np.testing.assert_array_equal(table.in_units[0], table.in_units[2])
    assert np.isfinite(table.published).all()
    assert not np.array_equal(table.published[0], table.published[1])


def test_rotations_on_a_mean_body_are_said_to_be(data):
    assert skeleton_note("motion272") is None
    assert "mean skeleton" in skeleton_note("motion135")
    motion = data.motion(data.names("test")[0])
    six = prediction_files.converted(motion, "motion272", "motion135")
    assert joints_of_clip(six, "motion135").shape == (len(motion), 22, 3)
    apart = np.linalg.norm(joints_of_clip(six, "motion135") - joints_of_clip(motion, "motion272"), axis=-1)
    assert apart.mean() < 0.2  # another body in the same pose, in the layout that is judged


# --- names that become paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/tmp/outside", "../outside", "a/../../outside", "a\\b", "", "a\nb"])
def test_names_that_lead_out_of_a_folder_are_refused(data, judge, tiny_model, tmp_path, name):
    with pytest.raises(UnusablePairs, match="is not a valid file name below"):
        check_names(["fine", name], "split 'test'")
    with pytest.raises(ValueError, match="is not a valid file name below"):
        make_requests([Pair(name, "a person walks", 20)], 0)


@pytest.mark.parametrize("kind", ["evaluator", "official_split"])
def test_a_data_set_cannot_write_outside_the_output_folder(data, judge, tiny_model, tmp_path, synthetic, kind):
    outside = tmp_path / "outside.npy"
    np.save(outside, np.ones(3))
    before = outside.read_bytes()
    bad = make_data(tmp_path / "set", synthetic)
    bad.write_split("test", [*bad.names("test"), str(outside.with_suffix(""))])
    (tmp_path / "outside.txt").write_text("a person walks\n")
    arguments = ["evaluate", "generate", "--model", str(tiny_model), "--data", str(bad.root), "--pair-source", kind]
    assert main([*arguments, "--out", str(tmp_path / "made"), "--steps", "2", "--device", "cpu"]) == 1
    with pytest.raises(ValueError, match="is not a valid file name below"):
        evaluate(str(tiny_model), bad.root, evaluator=judge, out=tmp_path / "run")
    assert outside.read_bytes() == before
    with pytest.raises(ValueError, match="is not a valid file name below"):
        prediction_files.Predictions(noisy(data, tmp_path / "p", 0.01)).path("../x")


def test_pairs_of_an_unknown_kind_are_refused():
    with pytest.raises(
        ValueError, match="the source of pairs must be one of annotation, official_split, evaluator, got 'x'"
    ):
        read_pairs(PairSource("x"))


# --- several runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(data, judge, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, scale in (("good", 0.002), ("middling", 0.01), ("bad", 0.04)):
        made = noisy(data, root / name, scale)
        evaluate(made, data.root, evaluator=judge).write(root / f"{name}_run", cases=1)
    return [root / f"{name}_run" for name in ("bad", "good", "middling")]


def test_a_leaderboard_has_every_run_from_the_best_on(runs, tmp_path, capsys):
    assert main(["evaluate", "leaderboard", *map(str, runs), "--out", str(tmp_path), "--resamples", "200"]) == 0
    said = capsys.readouterr().out
    rows = [line.split()[0] for line in said.splitlines() if "±" in line and "interval" not in line]
    assert [name.rpartition("/")[2] for name in rows[1:]] == ["good", "middling", "bad"]
    assert rows[0] == "real"
    board = json.loads((tmp_path / "leaderboard.json").read_text())
    by_name = {row["name"].rpartition("/")[2]: row for row in board["rows"]}
    good, bad = by_name["good"], by_name["bad"]
    assert good["values"]["Jitter"] < bad["values"]["Jitter"]
    assert 0 < good["half"]["R@1"] < 0.5
    assert 0 < bad["half"]["FID"]
    assert good["items"] == 40
    assert "| FID ↓ |" in (tmp_path / "leaderboard.md").read_text()


def test_runs_of_one_model_are_told_apart_by_their_folders(runs, tmp_path):
    import shutil

    for name in ("first", "second"):
        shutil.copytree(runs[1], tmp_path / name)
    board = leaderboard([tmp_path / "first", tmp_path / "second"], published=False, resamples=20)
    names = [row.name for row in board.rows[1:]]
    assert [name.rpartition(" ")[2] for name in names] == ["[first]", "[second]"]
    board.rows[1].values["FID"], board.rows[1].half["FID"] = 3.0, 1e-12
    assert "±" not in board.table()[2][board.table()[0].index("FID ↓")]


def test_intervals_shrink_with_the_number_of_clips(runs):
    from hftrainer.evaluation.compare import Run, half_widths, read_run

    run = read_run(runs[0])
    protocol = load_protocol("hftrainer-v1", ["batches.size=8"])
    four = Run(run.folder, run.result, {name: np.concatenate([array] * 4) for name, array in run.items.items()})
    wide, narrow = half_widths(protocol, run, resamples=400), half_widths(protocol, four, resamples=400)
    for metric in ("MM-Dist", "Jitter"):
        assert narrow[metric] == pytest.approx(wide[metric] / 2, rel=0.3)
    distances = np.linalg.norm(run.items["text"] - run.items["predicted"], axis=1)
    assert wide["MM-Dist"] == pytest.approx(1.96 * distances.std() / np.sqrt(len(distances)), rel=0.25)


def test_runs_that_do_not_compare_are_refused(runs, data, judge, folder, tmp_path):
    evaluate(folder, data.root, evaluator=judge, overrides=["seed=1"]).write(tmp_path / "a", cases=1)
    with pytest.raises(ValueError, match="were evaluated differently: seed is"):
        leaderboard([runs[0], tmp_path / "a"])
    evaluate(folder, data.root, evaluator=judge, limit=33).write(tmp_path / "b", cases=1)
    with pytest.raises(ValueError, match="33 of 40 items in common; they were evaluated on different clips"):
        leaderboard([runs[0], tmp_path / "b"])
    with pytest.raises(ValueError, match="at least one run"):
        leaderboard([])


def test_published_rows_stand_beside_and_are_marked():
    rows = {row.name: row for row in published_rows("hml3d-272-leaderboard")}
    assert rows["MotionStreamer"].values["FID"] == 12.211
    assert "FID" not in rows["MDM"].values  # measured against another reference
    assert [row.values["R@1"] for row in published_rows("hml3d-272-paper")] == [0.702, 0.631]
    assert all(set(row.values) <= {*ARROWS, "FID-refk", "FID-hml263_roundtrip"} for row in rows.values())
    assert rows["gotozero-7b-train"].values["FID"] == 3.081
    assert rows["gotozero-7b-train"].values["R@1"] == 0.740
    assert rows["gotozero-3b-train"].values["FID-refk"] == 4.981
    assert rows["real clips"].values["R@1"] == 0.778
    assert all(row.origin == "published" and not row.half for row in rows.values())
    assert not published_rows("hftrainer-v1")
    marked = [row for row in rows.values() if any("not eligible" in note for note in row.notes)]
    assert [row.name for row in marked] in ([], ["gotozero-7b-all"])


def test_a_leaderboard_shows_published_rows_of_its_protocol(data, judge, folder, tmp_path):
    options = {"protocol": "hml3d-272-leaderboard", "evaluator": judge}
    evaluate(folder, data.root, **options).write(tmp_path / "run", cases=1)
    board = leaderboard([tmp_path / "run"], resamples=50)
    names = [row[0] for row in board.table()[1:]]
    assert "gotozero-7b-train (published)" in names
    assert any("published rows are over 4042 clips, these over 40: not comparable" in note for note in board.notes)
    assert "(published)" in board.markdown()
    assert all("(published)" not in row[0] for row in leaderboard([tmp_path / "run"], published=False).table())


def test_a_run_of_an_earlier_version_is_read(runs, tmp_path):
    import shutil

    from hftrainer.evaluation.compare import read_run

    shutil.copytree(runs[1], tmp_path / "old")
    (tmp_path / "old" / "per_item.npz").rename(tmp_path / "old" / "judged.npz")
    result = json.loads((tmp_path / "old" / "report.json").read_text())
    result["rows"] = {
        row: {"fid_raw" if n == "FID" else n: v for n, v in f.items()} for row, f in result["rows"].items()
    }
    result["protocol"]["metrics"].pop("use")
    result["protocol"]["metrics"] |= {"fid": ["raw", "l2_normalized"], "diversity": ["l2"]}
    (tmp_path / "old" / "report.json").write_text(json.dumps(result))
    old, new = read_run(tmp_path / "old"), read_run(runs[1])
    assert old.result["rows"] == new.result["rows"]
    board = leaderboard([tmp_path / "old", runs[0]], resamples=20)
    assert len(board.rows) == 3


# --- sets -------------------------------------------------------------------------------------------------------------


def test_greedy_generations_and_settings_of_a_set(tiny_model, tmp_path):
    pairs = [Pair("a", "a person walks", 20)]
    job = SetJob(
        Source(str(tiny_model)), tmp_path, pairs, Settings(dtype="bfloat16", sampling={"top_k": 5}), generations=2
    )
    with pytest.raises(ValueError, match="2 greedy motions of one caption would be identical"):
        job.claim()
    job = SetJob(Source(str(tiny_model)), tmp_path, pairs, Settings(dtype="bfloat16"))
    assert job.generation.dtype == "bf16"  # as folders of earlier versions have it
    assert job.generation.about["captions_hash"].startswith("sha256:")


def test_an_evaluation_set_names_its_predictions():
    from hftrainer.evaluation.protocols.plan import Entry

    entries = [Entry("a#0", "a", ("x",), 0, 80), Entry("a@0", "a", ("y",), 30, 60)]
    clips = EvaluationSet(["a"], {}, {"a": 80}, lambda name: None)
    assert clips.wanted(entries) == {"a": 80}
    clips.by_key = True
    assert clips.wanted(entries) == {"a#0": 80, "a@0": 30}
