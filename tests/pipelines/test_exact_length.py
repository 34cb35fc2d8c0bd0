"""GenerationSettings for an evaluation: exact lengths, rest at the end, reruns, processes that share one folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hftrainer.motion.representation import motion272
from hftrainer.pipelines.exact_length import (
    GenerationSettings,
    OtherSettings,
    coverage,
    fit_length,
    generate,
    make_requests,
    prepare,
    read_records,
    shard_of,
    why_not_valid,
    write_manifest,
)
from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.requests import SamplingParams
from tests.tiny import make_tiny_bundle

PAIRS = [
    ("a", "a person walks forward", 21),
    ("sub/b", "someone stands still", 8),
    ("c", "run as fast as possible", 90),
    ("d", "a person squats", 33),
]  # fmt: skip


@pytest.fixture(scope="module")
def pipe():
    return MotionMillionPipeline(make_tiny_bundle())


def generation(**changes):
    return GenerationSettings("tiny", "sha256:x", **{"max_sample_steps": 30, **changes})


def make(pipe, out, orders, given=None, **options):
    given = given or generation()
    prepare(out, given)
    failed = generate(pipe, given, orders, out, **options)
    return failed, write_manifest(out, given, orders)


def test_every_motion_has_its_length_and_rests_at_the_end(pipe, tmp_path):
    orders = make_requests(PAIRS, 0)
    failed, manifest = make(pipe, tmp_path, orders)
    assert failed == {}
    free = pipe.infer_t2m([caption for _, caption, _ in PAIRS], max_sample_steps=30)
    for (name, _, frames), whole, item in zip(PAIRS, free, manifest["items"], strict=True):
        motion = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        assert motion.shape == (frames, 272)
        assert motion.dtype == np.float32
        kept = min(frames, len(whole))
        np.testing.assert_allclose(motion[:kept], whole[:kept], atol=1e-4)
        assert item["padded_frames"] == frames - kept
        joints = motion272.to_joints(motion.astype(np.float64))
        np.testing.assert_allclose(joints[kept:], np.broadcast_to(joints[kept - 1], joints[kept:].shape), atol=1e-4)
    assert manifest["padded_clips"] == 1  # c: 30 codes are 60 frames
    assert manifest["padded_frames"] == 30
    c = manifest["items"][2]
    assert (c["codes"], c["ended"], c["seed"]) == (30, False, 0)
    assert {"model_hash", "dtype", "sampling", "max_sample_steps"} <= manifest.keys()
    assert manifest["made"] == manifest["wanted"] == 4
    assert manifest["missing"] == {}


def test_repeating_the_last_vector_would_have_drifted():
    motion = np.zeros((5, 272), np.float32)
    motion[:, 0] = 0.02  # two centimetres a frame
    motion[:, 2:8] = [1, 0, 0, 0, 1, 0]
    rest = motion272.to_joints(fit_length(motion, 20).astype(np.float64))
    np.testing.assert_allclose(rest[4:, 0], np.broadcast_to(rest[4, 0], (16, 3)), atol=1e-6)
    glide = np.concatenate([motion, np.repeat(motion[-1:], 15, axis=0)])
    assert motion272.to_joints(glide.astype(np.float64))[-1, 0, 0] == pytest.approx(0.02 * 20)
    np.testing.assert_array_equal(fit_length(motion, 3), motion[:3])


def test_a_rerun_makes_only_what_is_not_whole(pipe, tmp_path):
    orders = make_requests(PAIRS, 0)
    make(pipe, tmp_path, orders)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*.npy")}
    times = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")}
    (tmp_path / "a.npy").write_bytes(before["a.npy"][:500])  # an interrupted copy
    broken = np.load(tmp_path / "d.npy")
    broken[3, 5] = np.nan
    np.save(tmp_path / "d.npy", broken)
    made = []
    failed, _ = make(pipe, tmp_path, orders, progress=lambda items: made.append(len(items)) or iter(items))
    assert failed == {}
    assert made == [2]
    for path in tmp_path.rglob("*.npy"):
        assert path.read_bytes() == before[path.name]
        assert (path.stat().st_mtime_ns == times[path.name]) == (path.name in ("b.npy", "c.npy"))
    changed = make_requests([PAIRS[0], ("d", "turn left while walking", 33), *PAIRS[1:3]], 0)
    make(pipe, tmp_path, changed, progress=lambda items: made.append(len(items)) or iter(items))
    assert made == [2, 1]  # another caption is another motion, whatever lies under its name
    assert read_records(tmp_path)["d"]["caption"] == "turn left while walking"
    with open(tmp_path / "_generation" / "0of1.jsonl", "a") as records:
        records.write('{"name": "a", "cut o')  # an interruption in the middle of a line
    make(pipe, tmp_path, changed, progress=lambda items: made.append(len(items)) or iter(items))
    assert made == [2, 1]


def test_a_folder_belongs_to_one_generation(pipe, tmp_path):
    prepare(tmp_path / "a", generation())
    prepare(tmp_path / "a", generation())
    with pytest.raises(OtherSettings, match=r"max_sample_steps: 30 there, 31 now.*--overwrite"):
        prepare(tmp_path / "a", generation(max_sample_steps=31))
    prepare(tmp_path / "a", generation(max_sample_steps=31), overwrite=True)
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "x.npy", np.zeros(3))
    with pytest.raises(OtherSettings, match=r"did not generate .x.npy"):
        prepare(tmp_path / "b", generation())


def test_shards_make_what_one_process_makes(pipe, tmp_path):
    sampled = generation(sampling=SamplingParams(do_sample=True, min_new_tokens=2))
    pairs = [*PAIRS, ("e", PAIRS[0][1], 17), ("f", PAIRS[0][1], 17)]  # one caption three times: seeds count up
    orders = make_requests(pairs, 5)
    assert [order.seed for order in orders] == [5, 5, 5, 5, 6, 7]
    make(pipe, tmp_path / "one", orders, sampled)
    prepare(tmp_path / "many", sampled)
    for index in (2, 0, 1):
        mine = shard_of(orders, index, 3)
        generate(pipe, sampled, mine, tmp_path / "many", label=f"{index}of3", batch_size=1)
        lacking = coverage(tmp_path / "many", sampled, orders)
        assert not set(lacking) & {order.name for order in mine}
    assert lacking == {}
    manifest = write_manifest(tmp_path / "many", sampled, orders)
    alone = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert [item["codes"] for item in manifest["items"]] == [item["codes"] for item in alone["items"]]
    for name, _, _ in pairs:
        np.testing.assert_allclose(
            np.load(tmp_path / "one" / f"{name}.npy"), np.load(tmp_path / "many" / f"{name}.npy"), atol=1e-4
        )
    assert not np.array_equal(np.load(tmp_path / "one" / "e.npy"), np.load(tmp_path / "one" / "f.npy"))
    with pytest.raises(ValueError, match="shard 3 of 3"):
        shard_of(orders, 3, 3)


def test_a_motion_without_frames_is_a_failure(pipe, tmp_path, monkeypatch):
    orders = make_requests(PAIRS[:2], 0)
    real = pipe.run

    def run(*arguments, **options):
        for number, made in real(*arguments, **options):
            made.motion = made.motion[:0] if number == 1 else made.motion
            yield number, made

    monkeypatch.setattr(pipe, "run", run)
    failed, manifest = make(pipe, tmp_path, orders)
    assert failed == {"sub/b": "the model ended before the first frame"}
    assert manifest["missing"] == failed
    assert not (tmp_path / "sub" / "b.npy").exists()


def test_several_generations_of_the_first_clips():
    orders = make_requests(PAIRS, 0, generations=3, of_first=2)
    assert [order.name for order in orders] == ["a", "sub/b", "c", "d", "a_1", "sub/b_1", "a_2", "sub/b_2"]
    assert [order.seed for order in orders if order.caption == PAIRS[0][1]] == [0, 1, 2]
    with pytest.raises(ValueError, match="'a_1' is a clip's name and one of several"):
        make_requests([*PAIRS, ("a_1", "x", 9)], 0, generations=2)


def test_what_is_wrong_with_a_file(tmp_path):
    path = tmp_path / "m.npy"
    assert why_not_valid(path, 5) == "missing"
    path.write_bytes(b"")
    assert "cannot be read" in why_not_valid(path, 5)
    np.save(path, np.zeros((5, 272)))
    assert "float64" in why_not_valid(path, 5)
    np.save(path, np.zeros((4, 272), np.float32))
    assert "(4, 272)" in why_not_valid(path, 5)
    np.save(path, np.full((5, 272), np.inf, np.float32))
    assert "NaN or infinite" in why_not_valid(path, 5)
    np.save(path, np.zeros((5, 272), np.float32))
    assert why_not_valid(path, 5) is None
    assert why_not_valid(path, 5, "0" * 64) == "was changed after it was written"
