"""What is written is complete or absent after any interruption, and errors of the disk name the file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hftrainer import files
from hftrainer.cli import main
from hftrainer.files import (
    atomic_folder,
    atomic_path,
    check_writable,
    recover_folder,
    remove_leftovers,
    replaced_folder,
    write_json,
)
from hftrainer.processes import is_running, this_process

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("job", ["paths", "probes", "folders", "folders-by-two-renames"])
def test_every_crash_leaves_the_old_or_the_new(tmp_path, job):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.crash_points", job, str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= {"paths": 10, "probes": 2}.get(job, 60)


def test_a_folder_that_was_put_aside_does_not_block(tmp_path):
    """The leftover of a kill between two renames once made every rerun fail."""
    (tmp_path / ".x-old" / "deep").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    with atomic_folder(tmp_path / "x") as staging:
        (staging / "new").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    shutil.move(tmp_path / "x", tmp_path / ".x-old")
    recover_folder(tmp_path / "x")  # which atomic_folder does before anything else
    assert (tmp_path / "x" / "new").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    "line",
    [
        "bench fit x.npy --json {}/a/b.json", "bench fit x.npy --measure {}/a/b.json",
        "evaluate tokenizer gotozero-nano --data x --out {}/a", "evaluate actions gotozero-nano --data x --out {}/a",
        "evaluate prompts gotozero-nano --data x --out {}/a", "evaluate leaderboard x --out {}/a",
        "evaluate run --compare x y --out {}/a",
        "data text-features --prompts x --model gotozero-nano --out {}/a/b.safetensors",
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_named_before_the_work(line, tmp_path, capsys):
    """Before what is to be read, too: x is not there."""
    (tmp_path / "file").touch()
    assert main(line.format(tmp_path / "file").split()) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_named_before_the_work(tmp_path):
    from hftrainer.apps.evaluators import resolve_evaluator
    from hftrainer.evaluation.protocols.schema import load_protocol

    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write .* another one with --cache"):
        resolve_evaluator("x", load_protocol("hftrainer-v1"), cache_dir=tmp_path / "file")


def test_what_could_not_be_written_is_named_as_the_user_calls_it(tmp_path):
    """Not by the temporary folder that it would have come from."""

    def write() -> None:
        with atomic_folder(tmp_path / "made") as staging, atomic_path(staging / "deep" / "a.npy"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "made")


def test_a_replaced_folder_changes_in_one_step(tmp_path):
    (tmp_path / "m" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "deep" / "large").write_text("1")
    write_json(tmp_path / "m" / "a.json", 1)
    (tmp_path / "link").symlink_to("m")
    number = (tmp_path / "m" / "deep" / "large").stat().st_ino
    with pytest.raises(ZeroDivisionError), replaced_folder(tmp_path / "link") as staging:
        write_json(staging / "a.json", 1 / 0)
    with replaced_folder(tmp_path / "link") as staging:
        write_json(staging / "a.json", 2)
        assert (tmp_path / "m" / "a.json").read_text() == "1\n"
    assert (tmp_path / "link" / "a.json").read_text() == "2\n"
    assert (tmp_path / "m" / "deep" / "large").stat().st_ino == number
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "m"]


def killed(code: str) -> None:
    subprocess.run(
        [sys.executable, "-c", code + "\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"], check=False
    )


def test_leftovers_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path, monkeypatch):
    killed(f"""if True:
        from hftrainer.files import atomic_path
        held = atomic_path({str(tmp_path / "a.npy")!r}); held.__enter__()""")
    dead = list(tmp_path.iterdir())
    assert len(dead) == 1
    code = f"""if True:
        from hftrainer.files import atomic_folder
        held = atomic_folder({str(tmp_path / "b")!r}); held.__enter__()
        print(flush=True); input()"""
    living = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with living:
        assert living.stdout is not None
        living.stdout.readline()
        (tmp_path / ".somebody's-file.part").touch()
        monkeypatch.setattr(files, "_swept", set())
        write_json(tmp_path / "c.json", {})
        names = sorted(p.name for p in tmp_path.iterdir())
        assert len(names) == 3
        assert names[0].startswith(".b-")
        assert names[1:] == [".somebody's-file.part", "c.json"]
        living.kill()
    monkeypatch.setattr(files, "_swept", set())
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".somebody's-file.part", "c.json"]


def test_a_process_is_known_by_number_and_start():
    _, pid, start = this_process()
    assert is_running(pid, start)
    assert not is_running(pid, start + 1)
    assert not is_running(1 << 22, start)


def test_permissions_are_those_of_other_files(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    write_json(tmp_path / "a.json", {})
    with atomic_folder(tmp_path / "b"):
        pass
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_an_error_keeps_the_old_file_and_names_it(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(OSError, match=r"No space left on device.*a\.json") as caught, atomic_path(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "a.json").read_text() == "1\n"
    with pytest.raises(FileNotFoundError, match=r"elsewhere"), atomic_path(tmp_path / "a.json"):
        open("/elsewhere/b")
    with pytest.raises(ValueError, match=r"^ours$"), atomic_path(tmp_path / "a.json"):
        raise ValueError("ours")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", ["numpy", "safetensors", "torch"])
def test_a_full_disk_is_named_whatever_the_writer_says(tmp_path, monkeypatch, kind):
    """numpy says how many items it wrote, safetensors has an error of its own, torch's is a RuntimeError."""

    class SafetensorError(Exception):
        pass

    said = {
        "numpy": OSError("272000 requested and 0 written"),
        "safetensors": SafetensorError("I/O error"),
        "torch": RuntimeError("unexpected pos 64 vs 0"),
    }[kind]
    monkeypatch.setattr(files, "_is_full", lambda folder: True)
    with pytest.raises(OSError, match=r"No space left on device.*model\.bin"), atomic_path(tmp_path / "model.bin"):
        raise said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_device_that_is_full(tmp_path):
    def write() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_text("x" * 100_000)

    with pytest.raises(OSError, match=r"No space left on device.*a\.txt"):
        write()


def test_a_file_too_large_for_its_limit(tmp_path):
    code = f"""if True:
        import resource, signal
        import numpy as np
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        from hftrainer.files import atomic_path
        with atomic_path({str(tmp_path / "a.npy")!r}) as path, open(path, "wb") as stream:
            stream.write(bytes(100_000))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"File too large: '{tmp_path / 'a.npy'}'" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_folders_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"a\.json"):
        write_json(tmp_path / "a.json", {})
    with pytest.raises(ValueError, match="cannot write to the output folder"):
        check_writable(tmp_path / "out")


def test_two_writers_of_one_folder_leave_one_complete(tmp_path):
    code = f"""if True:
        import sys
        from hftrainer.files import atomic_folder
        for turn in range(30):
            with atomic_folder({str(tmp_path / "x")!r}) as staging:
                for name in "abcdef":
                    (staging / name).write_text(sys.argv[1])"""
    both = [subprocess.Popen([sys.executable, "-c", code, text], stderr=subprocess.PIPE) for text in ("1", "2")]
    for process in both:
        with process:
            _, said = process.communicate()
        assert process.returncode == 0, said.decode()[-1500:]
    assert len({p.read_text() for p in (tmp_path / "x").iterdir()}) == 1
    assert len(list((tmp_path / "x").iterdir())) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_numpy_files_of_an_interrupted_writer_are_not_there(tmp_path):
    def write() -> None:
        with atomic_path(tmp_path / "a.npy") as path, open(path, "wb") as stream:
            np.save(stream, np.zeros(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_second_name_of_a_checkpoint_that_was_never_put_in_place_is_swept(tmp_path, monkeypatch):
    """A kill between the two steps would otherwise keep the checkpoint's room for ever."""
    from hftrainer.training.checkpoint_io import clear_leftovers, point_at

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "step-1.ckpt").write_bytes(b"weights")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            point_at(tmp_path / "last.ckpt", tmp_path / "step-1.ckpt")
    assert len(list(tmp_path.iterdir())) == 2
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1.ckpt"]
