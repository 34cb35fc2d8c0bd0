"""`hftrainer evaluate generate` and the model card's script: sources, processes, what covers the whole set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hftrainer.apps.launch import parts, shard_from_environment, visible_devices
from hftrainer.cli import main
from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "eval" / "run_motionmillion_official272_exactlen_genonly.sh"
CAPTIONS = ["a person walks forward", "someone stands still", "a person squats", "turn left while walking"]


@pytest.fixture
def annotation(tmp_path):
    entries = {f"{i:06d}": {"caption": text, "num_frames": 9 + 4 * i} for i, text in enumerate(CAPTIONS)}
    path = tmp_path / "anno.json"
    path.write_text(json.dumps({"meta": {}, "data_list": entries}))
    return path


def generate(model, out, annotation, *more):
    arguments = ["--model", model, "--out", out, "--anno", annotation, "--steps", 8, "--device", "cpu", *more]
    return main(["evaluate", "generate", *map(str, arguments)])


@pytest.fixture(autouse=True)
def _no_ranks(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"):
        monkeypatch.delenv(name, raising=False)


def manifest_of(out):
    return json.loads((out / "manifest.json").read_text())


def test_one_process(tiny_model, annotation, tmp_path, capsys):
    out = tmp_path / "out"
    assert generate(tiny_model, out, annotation) == 0
    assert "all 4 motions are in" in capsys.readouterr().out
    manifest = manifest_of(out)
    assert [item["frames"] for item in manifest["items"]] == [9, 13, 17, 21]
    assert manifest["pair_source"] == "annotation"
    assert manifest["captions_hash"].startswith("sha256:")
    assert manifest["dtype"] == "as stored"
    assert all({"codes", "padded_frames", "wall_seconds", "seed"} <= item.keys() for item in manifest["items"])
    assert {np.load(p).shape for p in out.glob("*.npy")} == {(n, 272) for n in (9, 13, 17, 21)}
    assert generate(tiny_model, out, annotation, "--steps", 9) == 1
    assert "holds motions of another generation (max_sample_steps: 8 there, 9 now)" in capsys.readouterr().err
    with pytest.warns(UserWarning, match=r"generation_config.json names none"):
        assert generate(tiny_model, out, annotation, "--guidance-scale", 2) == 1
    assert "another generation (sampling: " in capsys.readouterr().err
    assert generate(tiny_model, tmp_path / "two", annotation, "--limit", 2) == 0
    assert [item["name"] for item in manifest_of(tmp_path / "two")["items"]] == ["000000", "000001"]


def test_a_part_of_the_shards_is_not_success(tiny_model, annotation, tmp_path, capsys):
    out = tmp_path / "out"
    part = ("--num-shards", 4, "--shard-base")
    assert generate(tiny_model, out, annotation, *part, 1) == 3
    assert "shards 1 are done; 3 of 4 motions are still missing, those of shards 0,2,3" in capsys.readouterr().err
    for base in (0, 3):
        assert generate(tiny_model, out, annotation, *part, base) == 3
    assert generate(tiny_model, out, annotation, *part, 2) == 0
    assert manifest_of(out)["made"] == 4
    assert generate(tiny_model, out, annotation, *part, 4) == 1
    assert "shards are numbered 0 to 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "environment",
    [
        [{"RANK": str(i), "WORLD_SIZE": "2", "LOCAL_RANK": str(i)} for i in (1, 0)],
        [
            {"SLURM_ARRAY_TASK_ID": str(5 + 2 * i), "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "5",
             "SLURM_ARRAY_TASK_STEP": "2"} for i in (0, 1)
        ],
    ],
    ids=["torchrun", "slurm"],
)  # fmt: skip
def test_ranks_take_their_parts(tiny_model, annotation, tmp_path, monkeypatch, environment, capsys):
    for number, variables in enumerate(environment):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert generate(tiny_model, tmp_path / "out", annotation) == 0
        assert manifest_of(tmp_path / "out")["made"] == 2 * (number + 1)
    assert generate(tiny_model, tmp_path / "out", annotation, "--num-shards", 2) == 1
    assert "remove --num-shards" in capsys.readouterr().err


def test_shards_from_the_environment():
    assert shard_from_environment({}) is None
    assert shard_from_environment({"RANK": "3", "WORLD_SIZE": "8"}) == (3, 8)
    slurm = {"SLURM_ARRAY_TASK_ID": "10", "SLURM_ARRAY_TASK_COUNT": "4"}
    with pytest.raises(ValueError, match="task 10 is not in its array of 4"):
        shard_from_environment(slurm)
    assert shard_from_environment({**slurm, "SLURM_ARRAY_TASK_MIN": "9"}) == (1, 4)
    assert parts(list(range(7)), 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert parts([0, 1], 4) == [[0], [1]]
    assert visible_devices(2, "cuda", {"CUDA_VISIBLE_DEVICES": "4, 7,9"}) == [
        {"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "7"},
    ]  # fmt: skip
    with pytest.raises(ValueError, match="3 workers requested, but 2 GPUs"):
        visible_devices(3, "cuda", {"CUDA_VISIBLE_DEVICES": "0,1"})


def card(model, out, annotation, **variables):
    environment = {
        **os.environ, "PY": sys.executable, "OUT": str(out), "ARTIFACT": str(model), "ANNO": str(annotation),
        "STEPS": "8", "DTYPE": "fp32", "DEVICE": "cpu", **variables,
    }  # fmt: skip
    return subprocess.run(["bash", str(SCRIPT)], env=environment, capture_output=True, text=True)


def test_the_cards_script_covers_all_shards_with_fewer_processes(tiny_model, annotation, tmp_path):
    out = tmp_path / "ms272" / "tiny"
    done = card(tiny_model, out, annotation, NGPU="2", TOTAL_SHARDS="4", LIMIT="0")
    assert done.returncode == 0, done.stderr
    assert "all 4 motions are in" in done.stdout
    logs = sorted(path.name for path in (tmp_path / "ms272" / "_logs").iterdir())
    assert logs == ["tiny_s0of4.log", "tiny_s1of4.log"]
    assert manifest_of(out)["dtype"] == "fp32"


def test_the_cards_script_fails_where_a_worker_does(tiny_model, annotation, tmp_path):
    entries = json.loads(annotation.read_text())
    broken = tmp_path / "model"
    broken.mkdir()
    for path in Path(tiny_model).iterdir():
        if path.name != "ar.safetensors":
            (broken / path.name).symlink_to(path)
    (broken / "ar.safetensors").write_bytes(b"not weights")
    assert entries["data_list"]
    done = card(broken, tmp_path / "out", annotation, NGPU="2", TOTAL_SHARDS="2")
    assert done.returncode == 1
    assert "worker 0 ended with status 1" in done.stderr
    assert "worker 1 ended with status 1" in done.stderr
    assert "ar.safetensors" in done.stderr


def test_the_card_names_its_default_places():
    text = SCRIPT.read_text()
    root = "outputs/evaluation/t2m/humanml3d_official_test"
    assert f"TEST={root}\n" in text
    assert "OUT=${OUT:-$TEST/ms272/gotozero_7b_train}" in text
    assert "$TEST/captions/humanml3d_official_corrected/test_hml3d_official272_gtlen_official_caption.json" in text
    assert "checkpoints/gotozero/hftrainer_7b_train_humanml272" in text
    assert os.access(SCRIPT, os.X_OK)


def test_without_corrected_captions_nothing_is_made(tiny_model, tmp_path, capsys):
    assert generate(tiny_model, tmp_path / "out", tmp_path / "gone.json") == 1
    assert "no annotation file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_other_sources(tiny_model, synthetic, tmp_path, capsys):
    arguments = [
        "--model",
        str(tiny_model),
        "--data",
        str(synthetic),
        "--steps",
        "8",
        "--device",
        "cpu",
        "--limit",
        "2",
    ]
    split = ["--out", str(tmp_path / "a"), "--pair-source", "official_split", "--split", "val"]
    assert main(["evaluate", "generate", *arguments, *split]) == 0
    assert "captions: the first raw one" in capsys.readouterr().out
    pairs = ["--out", str(tmp_path / "b"), "--pair-source", "evaluator", "--split", "val"]
    assert main(["evaluate", "generate", *arguments, *pairs]) == 0
    names = [item["name"] for item in manifest_of(tmp_path / "b")["items"]]
    assert all("#" in name for name in names)
    assert manifest_of(tmp_path / "b")["captions"] == "hml3d-272-allcaptions"


def test_greedy_generations_are_refused(tiny_model, annotation, tmp_path, capsys):
    assert generate(tiny_model, tmp_path / "out", annotation, "--generations", 2) == 1
    assert "2 greedy motions of one caption would be identical" in capsys.readouterr().err
    more = ("--generations", 2, "--generations-of", 1, "--temperature", 1)
    assert generate(tiny_model, tmp_path / "out", annotation, *more) == 0
    assert (tmp_path / "out" / "000000_1.npy").is_file()
    assert not (tmp_path / "out" / "000001_1.npy").exists()


def test_the_prompt_benchmark(tiny_model, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a person squats\nsomeone stands still\na person squats\n")
    arguments = ["evaluate", "run", "--benchmark", "motionmillion-eval", "--model", str(tiny_model), "--device", "cpu"]
    arguments += ["--prompts", str(prompts), "--out", str(tmp_path / "out"), "--steps", "8", "--temperature", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "is not the published file of 126 prompts" in said
    assert "3 motions for 3 prompts" in said
    result = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert result["published_prompts"] is False
    assert result["physical"]["published"]["n"] == 3
    assert len(list((tmp_path / "out").glob("*.npy"))) == 3  # the line that comes twice has two seeds
    assert (tmp_path / "out" / "index.html").is_file()
    assert main(["evaluate", "run", "--benchmark", "motionmillion-eval", "--model", str(tiny_model)]) == 1
    assert "needs --prompts FILE, --model NAME and --out FOLDER" in capsys.readouterr().err
    arguments[arguments.index(str(prompts))] = str(tmp_path / "gone.txt")
    assert main(arguments) == 1
    assert "assets/infer_batch_prompt.txt of MotionMillion-Codes" in capsys.readouterr().err
