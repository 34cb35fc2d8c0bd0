"""Small runs for the tests of training, and callbacks that do harm to them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L

from hftrainer.config import Experiment, load_experiment
from tests.conftest import REPOSITORY

TOKENIZER = REPOSITORY / "configs" / "gotozero" / "debug_tokenizer.yaml"


def settings(run: Path, data: Path, *overrides: str) -> list[str]:
    """A tokenizer run of 12 steps; checkpoints at 4, 8, 12, no validation."""
    return [
        f"output_dir={run}", f"data.root={data}", "trainer.progress_bar=false", "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1", "trainer.max_steps=12", "trainer.checkpoint_every_n_steps=4",
        "trainer.val_every_n_steps=null", "callbacks=[]", *overrides,
    ]  # fmt: skip


def experiment(run: Path, data: Path, *overrides: str) -> Experiment:
    return load_experiment(TOKENIZER, settings(run, data, *overrides))


def rows_of(run: Path) -> list[dict[str, str]]:
    paths = sorted(run.glob("logs/version_*/metrics.csv"))
    return [row for path in paths for row in csv.DictReader(path.read_text().splitlines())]


def losses(run: Path) -> dict[int, str]:
    """Step to training loss as written, over all starts of a run."""
    return {int(row["step"]): row["train/loss"] for row in rows_of(run) if row.get("train/loss")}


def start(run: Path, data: Path, *overrides: str) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "hftrainer", "train", str(TOKENIZER), *settings(run, data, *overrides)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class Slow(L.Callback):
    """Steps that leave time for a signal."""

    def __init__(self, seconds: float = 0.3):
        self.seconds = seconds

    def on_train_batch_end(self, trainer, task, *_):
        time.sleep(self.seconds)


class Endless(L.Callback):
    """A validation that does not end, and says where it is."""

    def __init__(self, mark: str):
        self.mark = mark

    def on_validation_epoch_end(self, trainer, task):
        if trainer.sanity_checking:
            return
        Path(self.mark).touch()
        time.sleep(600)


class Poison(L.Callback):
    """Makes the motion of batches NaN, at the given steps."""

    def __init__(self, steps: list[int]):
        self.steps = steps

    def on_train_batch_start(self, trainer, task, batch, index):
        if trainer.global_step in self.steps:
            batch.motion.fill_(float("nan"))


class Interrupt(L.Callback):
    """A signal to this process in the middle of a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM):
        self.step, self.number = step, number

    def on_before_optimizer_step(self, trainer, task, optimizer):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


class Break(L.Callback):
    """An error of any kind, at the start of a step or when its weights have changed and it is not over."""

    def __init__(self, step: int, half_done: bool):
        self.step, self.half_done = step, half_done

    def on_train_batch_start(self, trainer, task, batch, index):
        if trainer.global_step == self.step and not self.half_done:
            raise RuntimeError("power cut")

    def on_train_batch_end(self, trainer, task, *_):
        if trainer.global_step == self.step + 1 and self.half_done:
            raise RuntimeError("power cut")


class Fill(L.Callback):
    """Fills the disk of a folder at one step and makes room again at another."""

    def __init__(self, folder: str, full: int, free: int = -1):
        self.path, self.full, self.free = Path(folder) / "filler", full, free

    def on_train_batch_start(self, trainer, task, batch, index):
        if trainer.global_step == self.full:
            self.fill()
        if trainer.global_step == self.free:
            self.path.unlink()

    def fill(self) -> None:
        with open(self.path, "ab", buffering=0) as stream:
            size = 1 << 20
            while size:
                try:
                    stream.write(b"\0" * size)
                except OSError:
                    size //= 2


class KillWandb(L.Callback):
    """Kills W&B's processes at a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, task, batch, index):
        import psutil

        if trainer.global_step == self.step:
            children = [c for c in psutil.Process().children(recursive=True) if c.name().startswith("wandb")]
            assert children
            for child in children:
                child.kill()
            psutil.wait_procs(children, timeout=10)
