"""No lost work: whatever happens, a run goes on or ends with a checkpoint that resumes."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")

from hftrainer.config import ConfigError
from hftrainer.data.guarded import BadSample, GuardedDataset
from hftrainer.training.checkpoint_io import AtomicCheckpointIO, clear_leftovers, point_at
from hftrainer.training.faults import CheckpointFailed, NotFinite, Stopped
from hftrainer.training.fit import fit
from tests.training.runs import experiment, losses, rows_of, start, wait_for

HARM = "tests.training.runs"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, synthetic) -> Path:
    """A run that nothing happens to."""
    return fit(experiment(tmp_path_factory.mktemp("whole") / "run", synthetic))


def goes_on_as(whole: Path, run: Path, synthetic: Path, *overrides: str) -> None:
    """Resumed, it ends with the losses and weights of the run that nothing happened to."""
    fit(experiment(run, synthetic, *overrides))
    assert losses(run) == losses(whole)
    ends = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for r in (whole, run)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def step_of(run: Path) -> int:
    return int(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


# --- signals ----------------------------------------------------------------------------------------------------------


def test_sigterm_saves_and_ends_with_its_status(tmp_path, synthetic, whole):
    run = tmp_path / "run"
    process = start(run, synthetic, f"callbacks=[{{name: '{HARM}:Slow'}}]")
    wait_for(lambda: len(losses(run)) >= 5, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "saved at step" in said
    assert "Traceback" not in said
    assert step_of(run) == len(losses(run)) >= 5  # every step that was taken
    goes_on_as(whole, run, synthetic)


def test_sigkill_loses_the_steps_since_the_checkpoint_alone(tmp_path, synthetic, whole):
    run = tmp_path / "run"
    process = start(run, synthetic, f"callbacks=[{{name: '{HARM}:Slow'}}]")
    wait_for(lambda: len(losses(run)) >= 6, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert step_of(run) == 4
    goes_on_as(whole, run, synthetic)


def test_sigterm_does_not_wait_for_a_validation(tmp_path, synthetic, whole):
    run, mark = tmp_path / "run", tmp_path / "mark"
    harm = f"callbacks=[{{name: ema, decay: 0.5}}, {{name: '{HARM}:Endless', mark: '{mark}'}}]"
    process = start(run, synthetic, harm, "trainer.val_every_n_steps=6")
    wait_for(mark.exists, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert step_of(run) == 6
    goes_on_as(whole, run, synthetic, "callbacks=[{name: ema, decay: 0.5}]")  # the weights, not their average


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_signal_inside_a_step_ends_after_it(tmp_path, synthetic, accumulate):
    parts = f"trainer.accumulate_grad_batches={accumulate}"
    before = signal.getsignal(signal.SIGINT)  # ignored, if the tests run in the background
    straight = fit(experiment(tmp_path / "straight", synthetic, parts))
    harm = f"callbacks=[{{name: '{HARM}:Interrupt', step: 5, number: {int(signal.SIGINT)}}}]"
    with pytest.raises(Stopped) as stopped:
        fit(experiment(tmp_path / "run", synthetic, parts, harm))
    assert stopped.value.code == 128 + signal.SIGINT
    assert step_of(tmp_path / "run") == 6
    assert signal.getsignal(signal.SIGINT) is before
    goes_on_as(straight, tmp_path / "run", synthetic, parts)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_kill_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    io, path = AtomicCheckpointIO(), tmp_path / "step-1.ckpt"
    io.save_checkpoint({"value": torch.tensor(1.0)}, path)
    child = os.fork()
    if child == 0:

        def half(_, stream):
            stream.write(b"half of it")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half
        io.save_checkpoint({"value": torch.tensor(2.0)}, path)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert torch.load(path, weights_only=True)["value"] == 1
    assert len(list(tmp_path.iterdir())) == 2
    clear_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1.ckpt"]


def test_last_is_a_second_name_of_the_newest(tmp_path, whole):
    kept = sorted(p.name for p in (whole / "checkpoints").iterdir())
    assert kept == ["last.ckpt", "step-00000008.ckpt", "step-00000012.ckpt"]
    assert (whole / "checkpoints" / "last.ckpt").samefile(whole / "checkpoints" / "step-00000012.ckpt")
    folders = [tmp_path / name for name in ("step-1.ckpt", "step-2.ckpt")]
    for folder in folders:  # as DeepSpeed writes them
        folder.mkdir()
        point_at(tmp_path / "last.ckpt", folder)
        assert (tmp_path / "last.ckpt").resolve() == folder


def test_a_moved_run_goes_on_from_its_newest_checkpoint(tmp_path, synthetic, whole):
    """Lightning's callback writes to last-v1.ckpt after a move, and the next start takes the old last.ckpt."""
    moved = Path(shutil.copytree(whole, tmp_path / "moved"))
    fit(experiment(moved, synthetic, "trainer.max_steps=14", "resume.allow=[trainer.max_steps]"))
    assert step_of(moved) == 14


def test_a_broken_checkpoint_is_named_with_the_others(tmp_path, synthetic, whole):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    (run / "checkpoints" / "step-00000012.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"is not a complete checkpoint.*step-00000008\.ckpt"):
        fit(experiment(run, synthetic))


@pytest.mark.parametrize("half_done", [False, True])
def test_any_other_error_saves_what_is_whole(tmp_path, synthetic, whole, half_done):
    harm = f"callbacks=[{{name: '{HARM}:Break', step: 5, half_done: {half_done}}}]"
    with pytest.raises(RuntimeError, match="power cut"):
        fit(experiment(tmp_path / "run", synthetic, harm))
    assert step_of(tmp_path / "run") == (4 if half_done else 5)
    goes_on_as(whole, tmp_path / "run", synthetic)


# --- a full disk ------------------------------------------------------------------------------------------------------


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_save_is_tried_again_at_the_next(tmp_path, synthetic, whole, monkeypatch, caplog):
    save, calls = torch.save, []

    def sometimes(*arguments):
        calls.append(1)
        return full_disk() if len(calls) == 2 else save(*arguments)

    monkeypatch.setattr(torch, "save", sometimes)
    with caplog.at_level(logging.WARNING):
        run = fit(experiment(tmp_path / "run", synthetic))
    assert "step 8 was not saved: [Errno 28] No space left on device" in caplog.text
    assert losses(run) == losses(whole)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "last.ckpt", "step-00000004.ckpt", "step-00000012.ckpt",
    ]  # fmt: skip


def test_without_any_checkpoint_a_full_disk_is_an_error(tmp_path, synthetic, monkeypatch):
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointFailed, match=r"the first checkpoint could not be written.*No space left"):
        fit(experiment(tmp_path / "run", synthetic))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, where that is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_really_full(small_disk, synthetic, whole, caplog):
    harm = f"callbacks=[{{name: '{HARM}:Fill', folder: '{small_disk}', full: 6, free: 10}}, {{name: reconstruction}}]"
    with caplog.at_level(logging.WARNING):
        run = fit(experiment(small_disk / "run", synthetic, harm, "trainer.val_every_n_steps=7"))
    for lost in ("step 8 was not saved", "step-00000007 could not be written"):
        assert lost in caplog.text
    assert losses(run).items() <= losses(whole).items()  # a few rows may fit into the file's last block, or none
    assert 11 in losses(run)
    assert step_of(run) == 12


# --- numbers that are none --------------------------------------------------------------------------------------------


def test_a_nan_loss_stops_the_run_and_names_its_samples(tmp_path, synthetic, whole):
    run = tmp_path / "run"
    harm = f"callbacks=[{{name: '{HARM}:Poison', steps: [6]}}]"
    with pytest.raises(NotFinite, match=r"loss or gradient of step 6 is not a finite number; its samples: names '"):
        fit(experiment(run, synthetic, harm))
    assert step_of(run) == 6
    assert sorted(p.name for p in (run / "checkpoints").glob("step*")) == ["step-00000004.ckpt", "step-00000006.ckpt"]
    goes_on_as(whole, run, synthetic)


def test_a_nan_loss_can_be_skipped(tmp_path, synthetic, whole, caplog):
    harm = f"callbacks=[{{name: '{HARM}:Poison', steps: [6, 7]}}]"
    with caplog.at_level(logging.WARNING):
        run = fit(experiment(tmp_path / "run", synthetic, harm, "trainer.on_nan=skip"))
    assert "step 7 is not a finite number" in caplog.text
    assert "The step is skipped" in caplog.text
    assert float(rows_of(run)[-1]["train/skipped_steps"]) == 2
    got, want = losses(run), losses(whole)
    assert [got[step] == want[step] for step in range(6)] == [True] * 6
    assert got[6] == got[7] == "nan"
    assert all(np.isfinite(float(got[step])) for step in range(8, 12))


def test_skipping_has_an_end(tmp_path, synthetic):
    harm = f"callbacks=[{{name: '{HARM}:Poison', steps: [4, 5, 6, 7]}}]"
    with pytest.raises(NotFinite, match=r"step 6 .* 2 steps in a row were skipped"):
        fit(experiment(tmp_path / "run", synthetic, harm, "trainer.on_nan=skip", "trainer.max_skipped_in_a_row=2"))


# --- samples that cannot be read --------------------------------------------------------------------------------------


@pytest.fixture
def bad_data(tmp_path, synthetic) -> tuple[Path, list[str]]:
    """A data set with a NaN in one clip and too few channels in another."""
    from hftrainer.data.folder import DatasetFolder

    folder = DatasetFolder(shutil.copytree(synthetic, tmp_path / "data"))
    names = folder.names("train")[:3]
    motion = folder.motion(names[0])
    motion[3, 7] = np.nan
    np.save(folder.motion_path(names[0]), motion)
    np.save(folder.motion_path(names[1]), motion[:, :100])
    return folder.root, names


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_named_and_replaced_up_to_a_limit(tmp_path, bad_data, workers):
    root, _ = bad_data
    settings = ["data.in_memory=false", f"num_workers={workers}", "trainer.max_steps=6", "data.batch_size=12"]
    with pytest.raises(BadSample, match=r"cannot be used.*max_bad_samples=1 would"):
        fit(experiment(tmp_path / "strict", root, *settings))
    run = fit(experiment(tmp_path / "run", root, *settings, "max_bad_samples=2"))
    assert len(losses(run)) == 6


def test_which_sample_takes_the_place_follows_from_the_seed(bad_data, caplog):
    from hftrainer.data.folder import DatasetFolder
    from hftrainer.data.motion.windows import MotionWindows, MotionWindowsConfig

    root, names = bad_data
    loaded = DatasetFolder(root)
    data = MotionWindows(MotionWindowsConfig(root=str(root), in_memory=False)).train()
    path = loaded.motion_path(names[2])
    path.write_bytes(path.read_bytes()[:-100])  # after its header was read
    places = {data.name(i): i for i in range(len(data))}
    items = [(places[name], 5) for name in names]
    with caplog.at_level(logging.WARNING):
        first, second = (GuardedDataset(data, 3).__getitems__(items) for _ in range(2))
    assert [name for name, _ in first] == [name for name, _ in second]
    assert not set(names) & {name for name, _ in first}
    for name, why in zip(names, ("NaN", "expected floats (frames, 272)", "was it cut short"), strict=True):
        assert name in caplog.text
        assert why in caplog.text
    guarded = GuardedDataset(data, 2)
    with pytest.raises(BadSample, match=r"3 of .* samples are bad"):
        guarded.__getitems__(items)


def test_a_clip_that_cannot_be_read_at_the_start_is_named(tmp_path, bad_data):
    root, names = bad_data
    with pytest.raises(ValueError, match=names[0]):
        fit(experiment(tmp_path / "run", root))  # data.in_memory is true
