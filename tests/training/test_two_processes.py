"""Every strategy on two processes against one process: losses, resuming, averages, samples, artifacts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="pip install 'hftrainer[train]'")
pytest.importorskip("deepspeed", reason="pip install 'hftrainer[deepspeed]'")

from hftrainer.config import ConfigError, load_experiment
from hftrainer.models.checkpoint import open_checkpoint
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.training.export import export_run
from hftrainer.training.fit import fit
from tests.conftest import REPOSITORY
from tests.tiny import make_tiny_bundle, tiny_text_encoder
from tests.training.recorder import read
from tests.training.two_processes import STEPS, callbacks, folder_of, settings, train

CONFIG = REPOSITORY / "configs" / "gotozero" / "debug_ar.yaml"
WORKER = Path(__file__).parent / "two_processes.py"
QUICK = ["ddp", "fsdp2", "zero1", "zero2", "zero3"]
LONG = [
    "zero2:trainer.offload=optimizer",
    "zero3:trainer.offload=all:trainer.activation_checkpointing=true",
    "fsdp2:trainer.activation_checkpointing=true",
]
START = "model.init.ar=WORK/start:model.ar=null"  # weights of a model, of which a process reads its rows
STARTED = [f"fsdp2:{START}", f"zero3:{START}"]
ROUNDED = [
    "zero2:trainer.precision=bf16-true",
    "zero3:trainer.precision=bf16-true",
    "fsdp2:trainer.precision=bf16-mixed",
    "ddp:trainer.precision=bf16-mixed",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory, synthetic) -> Path:
    """A folder with data and a text encoder, in which runs lie side by side."""
    folder = tmp_path_factory.mktemp("strategies")
    shutil.copytree(synthetic, folder / "data")
    tiny_text_encoder().save_pretrained(folder / "text")
    return folder


def launch(work: Path, names: list[str]) -> None:
    """Both processes of `two_processes.py`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pair = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(work), str(rank), port, *names],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    logs = [process.communicate(timeout=900)[0] for process in pair]
    assert all(process.returncode == 0 for process in pair), "\n".join(logs)[-6000:]


@pytest.fixture(scope="module")
def alone(work) -> Path:
    """The same training in one process, which takes two batches for a step."""
    return train(work, "single", "trainer.accumulate_grad_batches=2")


@pytest.fixture(scope="module")
def quick(work, alone) -> Path:
    make_tiny_bundle().save_pretrained(work / "start")
    train(work, f"single:{START}", "trainer.accumulate_grad_batches=2")
    launch(work, [*QUICK, *STARTED])
    return work


@pytest.fixture(scope="module")
def long(work, alone) -> Path:
    launch(work, LONG)
    return work


@pytest.fixture(scope="module")
def rounded(work) -> Path:
    train(work, "single:trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2")
    launch(work, ROUNDED)
    return work


def compare(
    work: Path, name: str, *, against: str = "single", loss: float = 1e-4, weights: float = 2e-4, share: float = 0.0
) -> None:
    """Losses of each batch, whichever process saw it, and the artifact, which one process wrote whole."""
    run = folder_of(work, name)
    both = [read(Path(f"{run}.losses.{rank}")) for rank in range(2)]
    got = [value for pair in zip(*both, strict=True) for value in pair]
    want = read(Path(f"{folder_of(work, against)}.losses.0"))
    assert len(got) == len(want) == 2 * STEPS
    assert got == pytest.approx(want, rel=loss)
    made = open_checkpoint(run / "last" / "ar.safetensors")
    other = folder_of(work, against)
    if name.startswith("zero3"):  # which keeps no average
        expected = open_checkpoint(other / "checkpoints" / "last.ckpt", prefix="bundle.ar.")
    else:
        expected = open_checkpoint(other / "last" / "ar.safetensors")
    assert set(made) == set(expected)
    for key in expected:
        torch.testing.assert_close(made[key].float(), expected[key].float(), atol=weights, rtol=share)
    assert json.loads((run / "last.json").read_text())["step"] == STEPS
    samples = sorted(path.stem for path in (run / "samples" / f"step-{STEPS:08d}").glob("*.npy"))
    assert len(samples) == 2  # one prompt a process


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_train_as_one(quick, name):
    compare(quick, name)


@pytest.mark.parametrize("name", STARTED)
def test_two_processes_start_from_the_weights_of_a_model(quick, name):
    compare(quick, name, against=f"single:{START}")


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_two_processes_train_as_one_in_shares_and_offloaded(long, name):
    compare(long, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDED)
def test_two_processes_train_as_one_in_16_bits(rounded, name):
    compare(rounded, name, against="single:trainer.precision=bf16-mixed", loss=0.01, weights=0.01, share=2**-8)
    dtypes = {
        str(value.dtype)
        for value in MotionMillionBundle.from_pretrained(rounded / name.replace(":", "_") / "last").vqvae.parameters()
    }
    assert dtypes == {"torch.float32"}


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_deepspeed_checkpoints_hold_what_was_trained_and_nothing_frozen(quick, name):
    run = quick / name
    checkpoint = open_checkpoint(run / "checkpoints" / "last.ckpt")
    assert not [name for name in checkpoint if "vqvae" in name or "text_encoder" in name]
    ar = open_checkpoint(run / "checkpoints" / "last.ckpt", prefix="bundle.ar.")
    assert set(ar) == set(open_checkpoint(run / "last" / "ar.safetensors"))


def test_nothing_of_deepspeed_is_needed_to_load(quick):
    run = quick / "zero3"
    out = subprocess.run(
        [sys.executable, "-c", "import sys; from hftrainer.models.motion.motionmillion import MotionMillionBundle; "
         "from hftrainer.models.checkpoint import open_checkpoint; "
         f"open_checkpoint({str(run / 'checkpoints' / 'last.ckpt')!r}); "
         f"MotionMillionBundle.from_pretrained({str(run / 'last')!r}); print('deepspeed' in sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert out.strip() == "False"


def test_shares_of_parameters_are_put_together_as_they_are(quick):
    """Two ways: gathered by DeepSpeed for the artifact, and by us from the checkpoint's files."""
    weights = open_checkpoint(quick / "zero3" / "checkpoints" / "last.ckpt", prefix="bundle.ar.")
    written = open_checkpoint(quick / "zero3" / "last" / "ar.safetensors")
    for name in written:
        assert torch.equal(weights[name], written[name]), name


def test_a_ddp_run_goes_on_in_one_process(quick, alone):
    """On another number of processes the data goes on where it was; here the steps are made the same size, too."""
    longer = f"trainer.max_steps={STEPS + 2}"
    parts = "trainer.accumulate_grad_batches=2"
    runs = []
    for name in ("ddp", "single"):
        run = Path(shutil.copytree(quick / name, quick / f"{name}-on"))
        fit(load_experiment(CONFIG, [*settings(quick, run, callbacks(run, samples=False), longer, parts)]))
        runs.append(read(Path(f"{run}.losses.0")))
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert len(runs[0]) == 4


def test_a_deepspeed_run_on_another_number_of_processes_is_refused(quick):
    with pytest.raises(ConfigError, match="written by 2 processes and this run has 1"):
        fit(load_experiment(CONFIG, settings(quick, quick / "zero2", "trainer.strategy=zero2", "trainer.max_steps=9")))


# --- checkpoints to models -------------------------------------------------------------------------------------------


def test_a_run_without_an_artifact_becomes_one(quick, tiny_model, tmp_path):
    from hftrainer.cli import main

    for name in ("ddp", "zero2"):
        out = tmp_path / name
        assert main(["convert", "run", str(quick / name), "--tokenizer", str(tiny_model), "--out", str(out)]) == 0
        made = MotionMillionBundle.from_pretrained(out)
        stored = open_checkpoint(quick / name / "checkpoints" / "last.ckpt", prefix="bundle.ar.")
        for key, value in made.ar.state_dict().items():
            assert torch.equal(value, stored[key]), key
    with pytest.raises(ConfigError, match="give one with --tokenizer"):
        export_run(quick / "ddp", tmp_path / "out")
    with pytest.raises(ConfigError, match="was written by fsdp2"):
        export_run(quick / "fsdp2", tmp_path / "fsdp2")
    with pytest.raises(ConfigError, match="not the folder of a run"):
        export_run(tmp_path, tmp_path / "out")


@pytest.mark.slow
def test_the_command_starts_and_ends_both_processes(work):
    """`trainer.devices=2` alone: Lightning starts the second process, and both leave without an abort."""
    run = work / "by-command"
    command = [sys.executable, "-m", "hftrainer", "train", str(CONFIG),
               *settings(work, run, "trainer.devices=2", "trainer.strategy=fsdp2", "callbacks=[]")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        assert "terminate called" not in done.stderr
        assert (run / "checkpoints" / "last.ckpt" / ".metadata").is_file()
        shutil.rmtree(run)
