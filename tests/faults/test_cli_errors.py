"""What bad input causes is one sentence with the file's name and exit status 1; a bug keeps its traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from hftrainer import cli
from hftrainer.blame import explain, last_file
from hftrainer.config import ConfigError, read_yaml, save_yaml
from hftrainer.environment import without_secrets
from hftrainer.hashes import file_hash
from hftrainer.hub import ModelNotFound, find_model
from hftrainer.manifest import fingerprint, write_manifest
from hftrainer.terminal import guarded_streams

REPOSITORY = Path(__file__).parents[2]


def run(monkeypatch, error: BaseException | None, *, reads: Path | None = None) -> int:
    """`hftrainer doctor` with a command that reads a file and fails."""

    def failing(args: object) -> int:
        if reads is not None:
            reads.read_bytes()
        if error is not None:
            raise error
        print(f"name: {reads.name if reads else ''}")
        return 0

    monkeypatch.setattr("hftrainer.commands.doctor.run", failing)
    return cli.main(["doctor"])


class SafetensorError(Exception):
    pass


class PanicException(BaseException):
    """As a library in Rust ends."""


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("maximum recursion depth exceeded"), MemoryError(), EOFError("Ran out of input"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 4 bytes\nmore"),
        RuntimeError("shape '[2]' is invalid"), SafetensorError("header too large"), zipfile.BadZipFile("no zip"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), OverflowError("too large"),
        PanicException("The global thread pool has not been initialized.: ThreadPoolBuildError { kind: IOError }"),
        PanicException("index out of bounds"), RuntimeError("can't start new thread"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_errors_of_libraries_name_the_file(monkeypatch, capsys, tmp_path, error):
    (tmp_path / "broken.json").write_text("{")
    assert run(monkeypatch, error, reads=tmp_path / "broken.json") == 1
    said = capsys.readouterr().err
    assert said.startswith("hftrainer doctor: ")
    assert str(tmp_path / "broken.json") in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AssertionError(), AttributeError("x"), IndexError()])
def test_bugs_keep_their_traceback(monkeypatch, error):
    with pytest.raises(type(error)):
        run(monkeypatch, error)


def test_a_library_that_does_not_fit_into_memory(monkeypatch, capsys):
    """torch, with 300 MB."""
    assert run(monkeypatch, ImportError("libtorch_cpu.so: failed to map segment from shared object")) == 1
    assert capsys.readouterr().err.startswith("hftrainer doctor: not enough memory (libtorch_cpu.so")


def test_a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("HFTRAINER_TRACEBACK", "1")
    with pytest.raises(MemoryError):
        run(monkeypatch, MemoryError())


def test_wrong_usage_is_status_2():
    for line in (["doctor", "--no-such-flag"], ["no-such-command"], []):
        with pytest.raises(SystemExit) as caught:
            cli.main(line)
        assert caught.value.code == 2


def test_only_input_counts_as_the_file_that_was_read(tmp_path):
    (tmp_path / "in.txt").write_text("x")
    with last_file() as opened:
        (tmp_path / "in.txt").read_text()
        (tmp_path / "out.txt").write_text("y")
        Path(json.__file__).read_text()
        Path("/proc/self/status").read_text()
    assert opened.path == str(tmp_path / "in.txt")
    assert str(tmp_path / "in.txt") in str(explain(EOFError(), opened))


def test_names_cannot_steer_the_terminal(monkeypatch, capsys, tmp_path):
    path = tmp_path / "a\x1b[2J\x07\u202e.txt"
    path.touch()
    assert run(monkeypatch, None, reads=path) == 0
    assert run(monkeypatch, ValueError(f"{path} is bad"), reads=path) == 1
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "a\\x1b[2J\\x07\\u202e.txt" in text
        assert not set("\x1b\x07\u202e") & set(text)


def test_progress_bars_still_move(capsys):
    from tqdm import tqdm

    with guarded_streams():
        for _ in tqdm(range(3), file=sys.stderr, desc="a\x1b[31m"):
            pass
    said = capsys.readouterr().err
    assert "\r" in said
    assert "\x1b[31m" not in said


def test_output_that_nobody_reads_is_no_traceback():
    command = f"{sys.executable} -m hftrainer zoo list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert "Traceback" not in done.stderr


def command(line: str, **more: object) -> subprocess.CompletedProcess[str]:
    """A command line in a shell; ``hftrainer`` is this one."""
    line = f'hftrainer() {{ "{sys.executable}" -m hftrainer "$@"; }}; {line}'
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=environment, **more)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_failure(closed, tmp_path):
    """`hftrainer doctor >&-` once was a traceback; and a file that was opened next got what libraries print."""
    made = command(f"hftrainer data synthetic --clips 2 --out made {closed}", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert "Traceback" not in made.stdout
    assert len(list((tmp_path / "made" / "motion_data").glob("*.npy"))) == 2


def test_output_that_cannot_be_written_is_named():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = command("hftrainer zoo list > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "hftrainer zoo: [Errno 28] No space left on device: '<standard output>'\n"


def test_a_pipe_of_another_process_is_not_ours(monkeypatch, capsys):
    """Any broken pipe once ended a command without a word, as if `head` had closed its output."""
    assert run(monkeypatch, BrokenPipeError(32, "Broken pipe")) == 1
    assert "Broken pipe" in capsys.readouterr().err


def test_letters_that_the_output_lacks_are_spelt_out(tmp_path):
    """A finished command once failed because the terminal has no such letter."""
    made = command("PYTHONIOENCODING=ascii hftrainer data synthetic --clips 2 --out läuft", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == "2 clips -> l\\xe4uft\n"


def test_a_current_folder_that_was_removed_is_named(tmp_path):
    """Intel's library ends the process there, with its own words and status 2."""
    gone = command("mkdir gone && cd gone && rmdir ../gone && hftrainer doctor", cwd=tmp_path)
    assert gone.returncode == 1
    assert gone.stderr.startswith("hftrainer doctor: the current folder cannot be used")
    assert gone.stderr.count("\n") == 1


@pytest.mark.parametrize("flags", [[], ["--seconds", "1", "--then"]])
def test_a_prompt_that_is_no_text_is_refused(flags, capsys, tmp_path):
    said = "a person \udcff walks"
    line = [*flags, said, "1"] if flags else [said]
    words = ["generate", *(["a person walks"] if flags else []), *line, "--model", "gotozero-nano"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 1
    assert "is not text" in capsys.readouterr().err


def test_interrupted_while_arguments_are_read(monkeypatch, capsys):
    def interrupted(argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_parse", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["TERM", "KILL", "INT"])
def test_workers_end_with_their_parent(tmp_path, signal):
    """8 of 8 workers of a killed parent once kept running."""
    (tmp_path / "hftrainer").mkdir()
    worker = f"""if True:
        import os, sys, time
        sys.path.insert(0, {str(REPOSITORY)!r})
        from hftrainer.processes import die_with_parent_if_told
        die_with_parent_if_told()
        assert "HFTRAINER_PARENT" not in os.environ
        open({str(tmp_path)!r} + f"/{{os.getpid()}}.pid", "w").close()
        time.sleep(60)"""
    parent = f"""if True:
        import signal
        from pathlib import Path
        from hftrainer.apps import launch
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
        launch.subprocess.Popen, original = (
            lambda command, **more: original([command[0], "-c", {worker!r}], **more), launch.subprocess.Popen)
        launch.run_workers([["x"]] * 3, [{{}}] * 3, [Path({str(tmp_path)!r}) / f"{{n}}.log" for n in range(3)])"""
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    for _ in range(600):
        pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
        if len(pids) == 3:
            break
        time.sleep(0.1)
    assert len(pids) == 3
    subprocess.run(["kill", f"-{signal}", str(process.pid)], check=True)
    process.wait(timeout=30)
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {[pid for pid in pids if alive(pid)]}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- models -----------------------------------------------------------------------------------------------------------


def test_fingerprints_are_of_the_bytes(tmp_path):
    """The manifest says what the files were; weights that were changed once kept the published hash."""
    (tmp_path / "ar.safetensors").write_bytes(b"weights")
    (tmp_path / "vocab.txt").write_text("a\n")
    before = fingerprint(tmp_path)
    write_manifest(tmp_path)
    assert fingerprint(tmp_path) == before
    (tmp_path / "README.md").write_text("words")
    (tmp_path / ".ar-leftover.part.safetensors").write_text("x")
    assert fingerprint(tmp_path) == before
    for name in ("ar.safetensors", "vocab.txt"):
        old = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(old[::-1] + b"!")
        assert fingerprint(tmp_path) != before
        (tmp_path / name).write_bytes(old)
    assert fingerprint(tmp_path) == before


def test_hashes_of_large_files_are_remembered_until_they_change(tmp_path, monkeypatch):
    from hftrainer import hashes

    read: list[Path] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "_LARGE", 4)
    monkeypatch.setattr(hashes, "_SETTLED", -1.0)
    original = hashes.sha256
    monkeypatch.setattr(hashes, "sha256", lambda path: read.append(path) or original(path))
    path = tmp_path / "large.bin"
    path.write_bytes(b"abcdef")
    first = file_hash(path)
    assert file_hash(path) == first
    assert len(read) == 1
    times = path.stat()
    path.write_bytes(b"ABCDEF")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had been written
    assert file_hash(path) != first
    (tmp_path / "cache" / "hftrainer" / "hashes.json").write_text("[")
    assert file_hash(path) == original(path)


def test_a_user_without_a_home_has_hashes_all_the_same(tmp_path, monkeypatch):
    """A container that runs under any number has none: large files once could not be hashed, and fonts not be found."""
    from hftrainer import hashes
    from hftrainer.render.fonts import font_for

    def homeless(cls: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(homeless))
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(hashes, "_LARGE", 4)
    (tmp_path / "large.bin").write_bytes(b"abcdef")
    assert file_hash(tmp_path / "large.bin") == hashes.sha256(tmp_path / "large.bin")
    font_for("a", 11)


def test_a_model_cannot_name_a_text_encoder_outside_of_its_folder(tmp_path, tiny_model):
    from hftrainer.models.motion.motionmillion import MotionMillionBundle

    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.move(tmp_path / "model" / "text_encoder", tmp_path / "text_encoder")
    path = tmp_path / "model" / "mm_config.json"
    for place in ("../text_encoder", str(tmp_path / "text_encoder")):
        about = json.loads(path.read_text())
        about["text_encoder"]["path"] = place
        path.write_text(json.dumps(about))
        with pytest.raises(ValueError, match="not a valid file name below"):
            MotionMillionBundle.from_pretrained(tmp_path / "model")


def test_a_mistyped_folder_does_not_ask_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training").mkdir()
    wrong = ["training/best", "runs/best", "out/model", "trainings/best", "checkpoints/x", "a/b/c", "./x/y", "~/x"]
    for name in wrong:
        with pytest.raises(ModelNotFound):
            find_model(name)
    assert asked == []
    with pytest.raises(ModelNotFound, match="hf:runs/best"):
        find_model("runs/best")
    for name, wanted in (("hf:runs/best", "runs/best"), ("google/flan-t5-xl", "google/flan-t5-xl")):
        find_model(name)
        assert asked.pop() == wanted
    for name in ("hf:", "hf:x", "hf:a/b/c", "hf:../b"):
        with pytest.raises(ModelNotFound):
            find_model(name)


def test_a_job_of_the_server_cannot_name_files_elsewhere(tmp_path):
    """The oldest jobs are deleted with their motions; ids are read from files."""
    pytest.importorskip("starlette")  # of the extra `serve`
    from hftrainer.serve.store import Store

    folder, outside = tmp_path / "jobs", tmp_path / "kept.npy"
    folder.mkdir()
    outside.write_bytes(b"somebody's")
    for number in range(3):
        name = f"{number:024x}"
        job = {"id": name, "model": "m", "request": {}, "motions": [{"id": "../kept"}], "representation": "motion272",
               "created": "2026", "status": "done", "error": None, "answer": {}}  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(job))
    store = Store(folder, 1, lambda motion: {})
    assert len(store) == 0
    store.close()
    assert outside.read_bytes() == b"somebody's"
    (folder / f"{name}.json").write_text(json.dumps({**job, "motions": [{"id": f"{name}-0"}]}))
    store = Store(folder, 1, lambda motion: {})
    assert len(store) == 1
    store.close()


# --- configurations ---------------------------------------------------------------------------------------------------


def test_yaml_mistakes_are_one_line(tmp_path):
    path = tmp_path / "typo.yaml"
    wrong = [
        "a: [1, 2\nb: 3\n", "a: 1\n b: 2\n", "\ta: 1\n", "a: {b: *c}\n", "a: &a [*a]\n", "[" * 3000, "a: ${b}\n",
        "a: ${", "a: ${x:}\n", "? [a]\n: 1\n", "a: 1\na: 2\n", "!!python/object:os.system x\n",
    ]  # fmt: skip
    for text in wrong:
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_yaml(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_environment_is_closed_unless_a_configuration_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t-value")
    path = tmp_path / "run.yaml"
    path.write_text("token: ${oc.env:SECRET_TOKEN}\n")
    with pytest.raises(ConfigError, match=r"SECRET_TOKEN.*may not read.*allow_env") as caught:
        read_yaml(path)
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(ConfigError, match="may not read"):
        read_yaml(path, ["allow_env=[OTHER]"])
    with pytest.raises(ConfigError, match="must be a list"):
        read_yaml(path, ["allow_env=SECRET_TOKEN"])
    with pytest.raises(ConfigError, match="an expression other than"):
        read_yaml(path, ["token=${oc.decode:${oc.env:SECRET_TOKEN}}"])
    path.write_text("allow_env: [SECRET_TOKEN]\ntoken: ${oc.env:SECRET_TOKEN}\nurl: https://x:${token}@y\nn: 3\n")
    read = read_yaml(path)
    assert read["token"] == "s3cr3t-value"
    hidden = without_secrets(read)
    assert "s3cr3t" not in json.dumps(hidden)
    assert hidden["n"] == 3
    save_yaml(read, tmp_path / "saved.yaml")
    assert "s3cr3t" not in (tmp_path / "saved.yaml").read_text()
    assert read_yaml(tmp_path / "saved.yaml") == read


@pytest.mark.parametrize("flags", [["-n", "0"], ["-n", "-1"], ["--batch-size", "0"], ["--batch-size", "-1"]])
def test_nothing_asked_for_is_not_success(tmp_path, capsys, flags):
    """`-n 0` once said "0 motions" with status 0."""
    assert cli.main(["generate", "x", "--model", "gotozero-nano", "--out", str(tmp_path), *flags]) == 1
    assert "must be at least 1" in capsys.readouterr().err
