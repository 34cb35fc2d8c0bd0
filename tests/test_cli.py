"""The command line, as a user types it: files, reruns, messages, exit statuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hftrainer.cli import main
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.io.bvh import read_bvh

PROMPTS = ["a person walks forward, then waves", "someone stands still"]


def generate(model, out, *arguments):
    return main(["generate", *arguments, "--model", str(model), "--out", str(out), "--seconds", "0.6"])


def test_generate_writes_every_format_and_a_manifest(tiny_model, tmp_path, capsys):
    assert generate(tiny_model, tmp_path / "out", *PROMPTS, "-n", "2", "--temperature", "1") == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(manifest["items"]) == 4
    assert manifest["model_hash"].startswith("sha256:")
    assert {"hftrainer", "torch", "transformers"} <= manifest["versions"].keys()
    for item in manifest["items"]:
        assert item["frames"] == 18
        motion = np.load(tmp_path / "out" / f"{item['stem']}.npy")
        assert motion.shape == (18, 272)
        assert motion.dtype == np.float32
        with np.load(tmp_path / "out" / f"{item['stem']}.npz") as arrays:
            assert arrays["joints"].shape == (18, 22, 3)
            assert arrays["poses"].shape == (18, 66)
        assert len(read_bvh(tmp_path / "out" / f"{item['stem']}.bvh").values) == 18
        assert (tmp_path / "out" / f"{item['stem']}.mp4").read_bytes()[4:8] == b"ftyp"
    page = (tmp_path / "out" / "index.html").read_text()
    assert PROMPTS[0] in page
    assert "4 motions" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob(".*"))  # no temporary files stay


def test_parts_that_follow_one_another_are_one_motion(tiny_model, tmp_path, capsys):
    arguments = ["a person walks forward", "--then", "someone stands still", "1.0", "--formats", "npy"]
    assert generate(tiny_model, tmp_path / "out", *arguments) == 0
    (item,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["items"]
    assert (item["prompt"], item["frames"]) == ("a person walks forward, then someone stands still", 18 + 30)
    assert np.load(tmp_path / "out" / f"{item['stem']}.npy").shape == (48, 272)
    assert generate(tiny_model, tmp_path / "out", "walk", "--then", "run", "fast") == 1
    assert "--then takes a prompt and its seconds, got 'fast' for 'run'" in capsys.readouterr().err
    assert main(["generate", "walk", "--then", "run", "2", "--model", str(tiny_model)]) == 1
    assert "give the length of the first part" in capsys.readouterr().err


def test_a_rerun_keeps_what_is_finished(tiny_model, tmp_path):
    out = tmp_path / "out"
    arguments = [*PROMPTS, "--formats", "npy"]
    assert generate(tiny_model, out, *arguments) == 0
    files = sorted(out.glob("*.npy"))
    before = [path.stat().st_mtime_ns for path in files]
    files[1].unlink()
    assert generate(tiny_model, out, *arguments) == 0
    after = [path.stat().st_mtime_ns for path in sorted(out.glob("*.npy"))]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert generate(tiny_model, out, *arguments, "--seed", "9", "--temperature", "1") == 0
    assert len(list(out.glob("*.npy"))) == 4  # other settings, other files


def test_prompt_files_and_prompts_that_look_like_markup(tiny_model, tmp_path):
    nasty = 'walk </script><b>"&\u202e\U0001f483'
    (tmp_path / "prompts.txt").write_text(f"{PROMPTS[0]}\n\n{nasty}\n", encoding="utf-8")
    assert (
        generate(tiny_model, tmp_path / "o", "--prompts", str(tmp_path / "prompts.txt"), "--formats", "npy,html") == 0
    )
    items = json.loads((tmp_path / "o" / "manifest.json").read_text())["items"]
    assert [item["prompt"] for item in items] == [PROMPTS[0], nasty]
    assert "</script><b>" not in (tmp_path / "o" / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "prompt 1 is empty; describe what the person does"),
        ([], "give a prompt"),
        (["walk " * 2000], "tokens, but the model reads 150; shorten it"),
        (
            ["walk", "--seconds", "60"],
            "a motion of 60 s cannot be generated: this model generates up to 10 s (150 codes)",
        ),
        (["walk", "-n", "2", "--greedy"], "greedy motions would be identical"),
        (["walk", "--formats", "fbx"], "unknown formats ['fbx']"),
        (["walk", "--top-p", "2"], "top_p must be in (0, 1]"),
        (["walk", "--greedy", "--top-k", "3"], "--greedy does not sample"),
        (["--prompts", "nowhere.txt"], "there is no prompt file 'nowhere.txt'"),
    ],
)
def test_bad_requests_say_so_and_exit_1(tiny_model, tmp_path, capsys, arguments, message):
    status = main(["generate", *arguments, "--model", str(tiny_model), "--out", str(tmp_path / "out")])
    assert status == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("*.npy"))


def test_unknown_models_and_unwritable_folders(tiny_model, tmp_path, capsys):
    assert main(["generate", "walk", "--model", "gotozero-7", "--out", str(tmp_path)]) == 1
    assert "there is no model called 'gotozero-7'. Did you mean" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert generate(tiny_model, tmp_path / "file" / "out", "walk") == 1
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_damaged_models(tiny_model, tmp_path, capsys):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "ar.safetensors").write_bytes((broken / "ar.safetensors").read_bytes()[:4000])
    assert generate(broken, tmp_path / "out", "walk") == 1
    assert "is not a complete safetensors file" in capsys.readouterr().err
    broken = shutil.copytree(tiny_model, tmp_path / "broken2")
    np.save(broken / "mean.npy", np.zeros(263))
    assert generate(broken, tmp_path / "out", "walk") == 1
    assert "mean.npy: expected floats (272,) of motion272, got (263,)" in capsys.readouterr().err


def test_export_does_the_good_and_reports_the_bad(tmp_path, capsys):
    np.save(tmp_path / "walk.npy", make_motion("walk", 20, 0))
    np.save(tmp_path / "bad.npy", np.zeros((5, 263)))
    arguments = [str(tmp_path / "walk.npy"), str(tmp_path / "bad.npy"), "--out", str(tmp_path / "out")]
    assert main(["export", *arguments, "--formats", "bvh,npz,html"]) == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"walk.bvh", "walk.npz", "index.html"}
    captured = capsys.readouterr()
    assert "bad.npy: expected floats (frames, 272), got (5, 263)" in captured.err
    assert "1 motions exported" in captured.out


def test_the_data_commands_from_motions_to_tokens(tiny_model, tmp_path, capsys):
    root = tmp_path / "data"
    assert main(["data", "synthetic", "--out", str(root), "--clips", "30"]) == 0
    assert main(["data", "verify", str(root)]) == 0
    arguments = ["--model", str(tiny_model), "--split", "train", "--split", "val"]
    assert main(["data", "tokenize", str(root), *arguments]) == 0
    assert main(["data", "stats", str(root), "--split", "all"]) == 0
    assert "entries of" in capsys.readouterr().out
    dataset = DatasetFolder(root)
    name = dataset.names()[0]
    motion = dataset.motion(name).copy()
    motion[3, 5] = np.nan
    dataset.write_motion(name, motion)
    assert main(["data", "verify", str(root)]) == 1
    assert "frame 3 holds a NaN" in capsys.readouterr().out


def test_zoo_doctor_and_version(tiny_model, capsys):
    assert main(["zoo"]) == 0
    out = capsys.readouterr().out
    assert "gotozero-nano" in out
    assert "gotozero-7b-train" in out
    assert main(["zoo", "show", "motionmillion-7b"]) == 0
    assert "ZeyuLing/hftrainer-gotozero-7b-train-humanml272" in capsys.readouterr().out
    assert main(["zoo", "show", "gotozero-8b"]) == 1
    assert main(["doctor", str(tiny_model)]) == 0
    assert "240 codes of 2 frames" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0


def test_wrong_usage_exits_2():
    for arguments in ([], ["generat"], ["generate", "--no-such-flag", "walk"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_train_check_prints_the_resolved_configuration(capsys):
    pytest.importorskip("lightning")
    from tests.conftest import REPOSITORY

    config = REPOSITORY / "configs" / "gotozero" / "debug_tokenizer.yaml"
    assert main(["train", str(config), "trainer.max_steps=3", "--check"]) == 0
    assert "max_steps: 3" in capsys.readouterr().out
    assert main(["train", str(config), "trainer.max_stepz=3", "--check"]) == 1
    assert "did you mean 'max_steps'" in capsys.readouterr().err


def test_a_warning_is_one_line(tmp_path):
    code = """
import sys, warnings
import hftrainer.commands.zoo as zoo
from hftrainer.cli import main
zoo.run_list = lambda args: warnings.warn("task.lr is\\nold; write task.optimizer.lr", FutureWarning) or 0
sys.exit(main(["zoo"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: task.lr is old; write task.optimizer.lr\n"
