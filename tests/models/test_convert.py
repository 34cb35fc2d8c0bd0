"""The converter: released files of every form in, an artifact with the same answers out."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch

from hftrainer.cli import main
from hftrainer.files import only_writer
from hftrainer.manifest import verify_manifest
from hftrainer.models.checkpoint import CheckpointError, open_checkpoint
from hftrainer.models.motion.motionmillion import MotionMillionBundle
from hftrainer.models.motion.motionmillion import convert as module
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from tests.tiny import tiny_text_encoder


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Files as the authors publish them, at a size of their own; the transformer beside an optimizer state."""
    folder = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    PRESETS["tiny-test"] = {"n_layer": 2, "n_head": 4, "n_embd": 32}
    ar = LLaMAHF(LLaMAHFConfig.from_name("tiny-test", clip_dim=32))
    optimizer = {"state": {i: {"exp_avg": torch.zeros(50_000)} for i in range(3)}}
    trans = {f"module.{k}": v.bfloat16() for k, v in ar.state_dict().items()}
    torch.save({"trans": trans, "optimizer": optimizer, "nb_iter": 9}, folder / "t2m_tiny_all.zip")
    torch.save({"net": HumanVQVAE().state_dict(), "nb_iter": 9}, folder / "fsq.zip")
    np.save(folder / "mean.npy", np.where(np.arange(272) == 9, 0.85, 0.0))
    np.save(folder / "std.npy", np.full(272, 0.1))
    tiny_text_encoder().save_pretrained(folder / "t5")
    (folder / "t5" / "pytorch_model.bin").write_bytes(b"another framework's copy")
    yield folder
    del PRESETS["tiny-test"]


def arguments(released, out, *more):
    return ["convert", "checkpoint", "--ar", str(released / "t2m_tiny_all.zip"), "--fsq", str(released / "fsq.zip"),
            "--mean", str(released / "mean.npy"), "--std", str(released / "std.npy"), "--out_dir", str(out),
            "--text_model_source", str(released / "t5"), *more]  # fmt: skip


def test_convert_and_verify(released, tmp_path, capsys):
    out = tmp_path / "made"
    assert main(arguments(released, out, "--repo_id", "someone/gotozero", "--verify")) == 0
    printed = capsys.readouterr().out
    assert "tensors have the source's hashes" in printed
    assert "8 greedy codes and the decoded motion are equal" in printed
    assert "not eligible for test-set leaderboards" in printed
    verify_manifest(out)
    config = json.loads((out / "mm_config.json").read_text())
    assert config["training_splits"] == "all"
    assert config["leaderboard_eligible"] is False
    card = (out / "README.md").read_text()
    assert "someone/gotozero" in card
    assert "not eligible for HumanML3D" in card
    assert {p.name for p in (out / "text_encoder").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    bundle = MotionMillionBundle.from_pretrained(out)
    assert bundle.ar.lm_head.weight.dtype == torch.bfloat16  # as in the source
    assert bundle.encode_text(["walk"]).features.shape[-1] == 32
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_dtype_and_the_card_script(released, tmp_path):
    import subprocess
    import sys

    from tests.conftest import REPOSITORY

    script = REPOSITORY / "scripts" / "eval" / "convert_motionmillion_checkpoint.py"
    command = [sys.executable, str(script), "--help"]
    assert "--text_model_source" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert main(arguments(released, tmp_path / "made", "--dtype", "float32", "--trained_on", "train", "--verify")) == 0
    state = open_checkpoint(tmp_path / "made" / "ar.safetensors")
    assert {state.dtype_of(name) for name in state} == {torch.float32}
    assert json.loads((tmp_path / "made" / "mm_config.json").read_text())["leaderboard_eligible"] is True


def test_an_interrupted_conversion_leaves_nothing_and_a_rerun_finishes_it(released, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "copy_text_encoder", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(arguments(released, tmp_path / "made"))
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [".made-partial"]
    kept = (tmp_path / ".made-partial" / "ar.safetensors").stat().st_mtime_ns
    assert main(arguments(released, tmp_path / "made", "--verify")) == 0
    assert "resuming " in capsys.readouterr().out
    assert (tmp_path / "made" / "ar.safetensors").stat().st_mtime_ns == kept
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


KILLED = """
import os, signal, sys
from hftrainer.models.checkpoint import safetensors
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
PRESETS["tiny-test"] = {"n_layer": 2, "n_head": 4, "n_embd": 32}
original = safetensors.write_safetensors

def write(path, tensors, load, **more):
    def dies(name):
        if path.name == "ar.safetensors" and name == "llama_proj.weight":
            os.kill(os.getpid(), signal.SIGKILL)
        return load(name)
    original(path, tensors, dies, **more)

from hftrainer.models.checkpoint import modules
modules.write_safetensors = write
from hftrainer.cli import main
main(sys.argv[1:])
"""


def test_a_killed_conversion_leaves_no_artifact_and_a_rerun_finishes_it(released, tmp_path, capsys):
    """Power is gone in the middle of a file: nothing can be cleaned up."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", KILLED, *arguments(released, tmp_path / "made")], cwd=tmp_path)
    assert done.returncode == -9
    assert [p.name for p in tmp_path.iterdir()] == [".made-partial"]
    assert any(".part" in p.name for p in (tmp_path / ".made-partial").iterdir())
    kept = (tmp_path / ".made-partial" / "fsq.safetensors").stat().st_mtime_ns
    assert main(arguments(released, tmp_path / "made", "--verify")) == 0
    assert "resuming " in capsys.readouterr().out
    assert (tmp_path / "made" / "fsq.safetensors").stat().st_mtime_ns == kept
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert not [p for p in (tmp_path / "made").rglob("*") if ".part" in p.name]
    verify_manifest(tmp_path / "made")
    MotionMillionBundle.from_pretrained(tmp_path / "made")


def test_of_a_whole_t5_the_encoder_alone_is_kept_and_compared(released, tmp_path):
    from safetensors.torch import load_file, save_file

    whole = tmp_path / "t5"
    shutil.copytree(released / "t5", whole)
    state = load_file(whole / "model.safetensors")
    save_file({**state, "decoder.final_layer_norm.weight": torch.ones(32)}, whole / "model.safetensors")
    out = tmp_path / "made"
    assert main(arguments(released, out, "--text_model_source", str(whole), "--verify")) == 0
    made = load_file(out / "text_encoder" / "model.safetensors")
    assert set(made) == set(state)
    about = json.loads((out / "mm_config.json").read_text())["text_encoder"]
    assert about["sha256"] == tiny_text_encoder().sha256()
    job = module.Conversion(
        ar=released / "t2m_tiny_all.zip", out=out, fsq=released / "fsq.zip", mean=released / "mean.npy",
        std=released / "std.npy", text_encoder=whole,
    )  # fmt: skip
    made["shared.weight"][0, 0] += 1
    save_file(made, out / "text_encoder" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"text_encoder tensor shared\.weight is not that of"):
        module.compare_tensors(job)


def test_the_splits_stay_with_the_model(released, tmp_path, capsys):
    """A model that saw the test set stays marked through loading, saving, and the doctor."""
    assert main(arguments(released, tmp_path / "made")) == 0
    bundle = MotionMillionBundle.from_pretrained(tmp_path / "made")
    assert bundle.config.training_splits == "all"
    bundle.save_pretrained(tmp_path / "again")
    content = json.loads((tmp_path / "again" / "mm_config.json").read_text())
    assert (content["training_splits"], content["leaderboard_eligible"]) == ("all", False)
    capsys.readouterr()
    assert main(["doctor", str(tmp_path / "again")]) == 0
    assert "not eligible for test-set leaderboards" in capsys.readouterr().out
    content["training_splits"] = "some"
    (tmp_path / "again" / "mm_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="training_splits must be one of"):
        MotionMillionBundle.from_pretrained(tmp_path / "again")


@pytest.mark.parametrize(
    ("name", "splits"),
    [("t2m_7B_all.zip", "all"), ("motionmillion_3B_all.pth", "all"), ("motionmillion_7B.pth", "unknown"),
     ("t2m-7b-train.pth", "train"), ("small.pth", "unknown")],
)  # fmt: skip
def test_splits_by_the_released_names(tmp_path, name, splits):
    job = module.Conversion(ar=tmp_path / name, out=tmp_path, fsq=tmp_path, mean=tmp_path, std=tmp_path)
    assert module.training_splits(job) == splits
    job.trained_on = "unknown"
    assert module.training_splits(job) == "unknown"


def test_a_rerun_with_another_source_starts_anew(released, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "copy_text_encoder", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(arguments(released, tmp_path / "made"))
    monkeypatch.undo()
    assert main(arguments(released, tmp_path / "made", "--dtype", "float32", "--verify")) == 0
    assert "was from a different source; starting over" in capsys.readouterr().out


def test_verify_finds_a_changed_tensor(released, tmp_path):
    assert main(arguments(released, tmp_path / "made")) == 0
    job = module.Conversion(
        ar=released / "t2m_tiny_all.zip", out=tmp_path / "made", fsq=released / "fsq.zip",
        mean=released / "mean.npy", std=released / "std.npy",
    )  # fmt: skip
    module.compare_tensors(job)
    module.compare_outputs(job)
    path = tmp_path / "made" / "ar.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"ar tensor .* is not that of"):
        module.compare_tensors(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--ar", "nowhere.pth"], "there is no ar file 'nowhere.pth'; give it with --ar"),
        (["--ar_config_name", "7B"], "holds 2 layers of width 32, 7B has 36 of 4096"),
        (["--fsq", "AR"], "one of the keys ['net', 'state_dict']; found 'trans'"),
        (["--text_model_source", "EMPTY"], "has no config.json"),
    ],
)
def test_wrong_requests_stop_before_anything_is_written(released, tmp_path, capsys, change, message):
    (tmp_path / "empty").mkdir()
    names = {"AR": str(released / "t2m_tiny_all.zip"), "EMPTY": str(tmp_path / "empty")}
    assert main(arguments(released, tmp_path / "made", *[names.get(c, c) for c in change])) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_an_existing_target_is_refused(released, tmp_path, capsys):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "x").write_text("")
    assert main(arguments(released, tmp_path / "made")) == 1
    assert "already exists" in capsys.readouterr().err


def test_deepspeed_folders_and_other_forms_convert_too(released, tmp_path):
    """The transformer as a legacy torch file, the tokenizer as a zip around safetensors."""
    import zipfile

    from safetensors.torch import save_file

    state = {k: v.clone() for k, v in open_checkpoint(released / "t2m_tiny_all.zip").items()}
    torch.save(state, tmp_path / "ar.pth", _use_new_zipfile_serialization=False)
    fsq = {k: v.clone() for k, v in open_checkpoint(released / "fsq.zip").items()}
    save_file(fsq, tmp_path / "fsq.safetensors")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "fsq.safetensors", "x/fsq.safetensors")
    changed = ["--ar", str(tmp_path / "ar.pth"), "--fsq", str(tmp_path / "outer.zip"), "--verify"]
    assert main(arguments(released, tmp_path / "made", *changed)) == 0


@pytest.mark.parametrize("name", ["text_encoder/model.safetensors", "fsq.safetensors", "mm_config.json"])
def test_a_part_that_is_deleted_meanwhile_is_noticed_and_made_again(released, tmp_path, monkeypatch, capsys, name):
    describe = module._describe

    def disturbed(job, folder, config):
        describe(job, folder, config)
        (folder / name).unlink()

    monkeypatch.setattr(module, "_describe", disturbed)
    assert main(arguments(released, tmp_path / "made")) == 1
    assert "were deleted meanwhile; run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    monkeypatch.undo()
    assert main(arguments(released, tmp_path / "made", "--verify")) == 0


def test_weights_that_are_deleted_before_they_are_noted_are_noticed(released, tmp_path, monkeypatch, capsys):
    write = module.write_state

    def disturbed(folder, stem, *arguments, **options):
        names = write(folder, stem, *arguments, **options)
        (folder / names[0]).unlink()
        return names

    monkeypatch.setattr(module, "write_state", disturbed)
    assert main(arguments(released, tmp_path / "made")) == 1
    assert "fsq.safetensors was deleted meanwhile; run the same command again" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(arguments(released, tmp_path / "made", "--verify")) == 0


@pytest.mark.parametrize("name", ["manifest.json", "mm_config.json", "ar.safetensors"])
def test_a_file_that_is_deleted_at_the_last_moment_is_noticed(released, tmp_path, monkeypatch, capsys, name):
    def replace(source, target):
        if str(target) == str(tmp_path / "made"):
            (source / name).unlink()
        os.rename(source, target)

    monkeypatch.setattr(module.os, "replace", replace)
    assert main(arguments(released, tmp_path / "made")) == 1
    assert "were deleted meanwhile; run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    monkeypatch.undo()
    assert main(arguments(released, tmp_path / "made", "--verify")) == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_text_encoder_that_loses_a_file_before_it_is_copied_is_noticed(released, tmp_path, monkeypatch, capsys):
    t5, write = shutil.copytree(released / "t5", tmp_path / "t5"), module._write_parts

    def disturbed(*arguments):
        (t5 / "tokenizer.json").rename(tmp_path / "away")
        write(*arguments)

    line = [*arguments(released, tmp_path / "made")[:-1], str(t5)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_parts", disturbed)
        assert main(line) == 1
    assert "changed meanwhile; run the same command again" in capsys.readouterr().err
    (tmp_path / "away").rename(t5 / "tokenizer.json")
    assert main([*line, "--verify"]) == 0
    assert (tmp_path / "made" / "text_encoder" / "tokenizer.json").is_file()


def test_two_conversions_into_one_folder(released, tmp_path, monkeypatch, capsys):
    """The second is refused while the first is at work, and when the first ends before the second begins to write."""
    with only_writer(tmp_path / ".made-partial"):
        assert main(arguments(released, tmp_path / "made")) == 1
    assert "another command is writing into" in capsys.readouterr().err
    first = only_writer

    def later(folder):
        (tmp_path / "made").mkdir()
        return first(folder)

    monkeypatch.setattr(module, "only_writer", later)
    assert main(arguments(released, tmp_path / "made")) == 1
    assert "appeared meanwhile" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_text_encoder_that_changed_meanwhile_is_not_mixed_in(released, tmp_path, monkeypatch, capsys):
    source = shutil.copytree(released / "t5", tmp_path / "t5")
    line = [*arguments(released, tmp_path / "made")[:-1], str(source)]
    monkeypatch.setattr(module, "_describe", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(line)
    monkeypatch.undo()
    tiny_text_encoder(64).save_pretrained(source)
    assert main([*line, "--verify"]) in (0, 1)  # its width is another one, so that the model may be refused
    assert "from a different source; starting over" in capsys.readouterr().out
