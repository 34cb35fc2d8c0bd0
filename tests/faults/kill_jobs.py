"""Run by tests: a job is killed by SIGKILL at random moments and run again; the result has to be that of one run.

    python -m tests.faults.kill_jobs generate /tmp/place --kills 200

Jobs run in forks of a process that has imported everything once, so a run takes as long as its work. Files that differ
between two runs that nobody killed (they hold a time) are left out of the comparison, and named.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hftrainer.cli import main as hftrainer
from hftrainer.files import sha256
from hftrainer.models.checkpoint import open_checkpoint, tensor_hash

Job = Callable[[Path, Path], list[list[str]]]  # what is given, where it goes: command lines
STARTS = re.compile(r"config\.\d+\.yaml")  # a run's record of each time that it was started
LEFT_OUT = ("logs", "_logs", "wandb", "lightning_logs")
SHORT = ["trainer.accelerator=cpu", "trainer.progress_bar=false", "callbacks=[{name: artifact}]"]


def prepare(place: Path) -> None:
    """What the jobs read: a model, released files, a dataset, BVH files."""
    import numpy as np
    import torch

    from hftrainer.data.synthetic.motions import write_dataset
    from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
    from hftrainer.models.motion.motionmillion.network.llama import PRESETS
    from hftrainer.motion.io.bvh_write import write_bvh  # noqa: F401 -- imported before the forks
    from tests.tiny import SENTENCES, make_tiny_bundle, tiny_text_encoder

    make_tiny_bundle().save_pretrained(place / "model")
    write_dataset(place / "data", clips=24, seed=0)
    (place / "prompts.txt").write_text("\n".join(SENTENCES) + "\n")
    (place / "released").mkdir()
    PRESETS["tiny-test"] = {"n_layer": 2, "n_head": 4, "n_embd": 32}
    torch.manual_seed(0)
    ar = LLaMAHF(LLaMAHFConfig.from_name("tiny-test", clip_dim=32))
    torch.save({"trans": ar.state_dict()}, place / "released" / "ar.zip")
    torch.save({"net": HumanVQVAE().state_dict()}, place / "released" / "fsq.zip")
    np.save(place / "released" / "mean.npy", np.where(np.arange(272) == 9, 0.85, 0.0))
    np.save(place / "released" / "std.npy", np.full(272, 0.1))
    tiny_text_encoder().save_pretrained(place / "released" / "t5")


def _copy(given: Path, out: Path) -> Path:
    if not (out / "data").is_dir():
        shutil.copytree(given / "data", out / "data")
    return out / "data"


JOBS: dict[str, Job] = {
    "generate": lambda given, out: [["generate", "--prompts", str(given / "prompts.txt"), "--model",
        str(given / "model"), "--seconds", "2", "--formats", "npy,npz,bvh", "--out", str(out / "made"),
        "--batch-size", "2", "-n", "2", "--temperature", "1"]],
    "evaluate-generate": lambda given, out: [["evaluate", "generate", "--model", str(given / "model"), "--data",
        str(given / "data"), "--pair-source", "official_split", "--split", "train", "--greedy", "--device", "cpu",
        "--batch-size", "4", "--out", str(out / "made")]],
    "convert": lambda given, out: [["convert", "checkpoint", "--ar", str(given / "released/ar.zip"), "--fsq",
        str(given / "released/fsq.zip"), "--mean", str(given / "released/mean.npy"), "--std",
        str(given / "released/std.npy"), "--text_model_source", str(given / "released/t5"), "--out_dir",
        str(out / "made")]],
    "tokenize": lambda given, out: [["data", "tokenize", str(_copy(given, out)), "--model", str(given / "model")]],
    "stats": lambda given, out: [["data", "stats", str(_copy(given, out)), "--split", "train"]],
    "pack-motions": lambda given, out: [["data", "pack-motions", str(given / "data"), "--out", str(out / "made")]],
    "pack-tokens": lambda given, out: [
        ["data", "tokenize", str(_copy(given, out)), "--model", str(given / "model")],
        ["data", "pack-tokens", str(out / "data"), "--out", str(out / "made")]],
    "train": lambda given, out: [["train", "configs/gotozero/debug_tokenizer.yaml", f"data.root={given / 'data'}",
        "trainer.max_steps=8", "trainer.checkpoint_every_n_steps=2", f"output_dir={out / 'run'}", *SHORT]],
}  # fmt: skip


def run(lines: list[list[str]], kill_after: float | None = None) -> bool:
    """Run command lines in a fork; whether they came to their end. A status other than 0 is an error."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = max(hftrainer(line) for line in lines)
        if status:
            os.write(2, said.getvalue().encode()[-1500:])
        os._exit(status)
    if kill_after is not None:
        threading.Event().wait(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), f"status {status}"
    return status == 0


def weights_hash(path: Path) -> str:
    """Of the weights in a training checkpoint; its counters say how often the run was started."""
    found = open_checkpoint(path)
    hashes = [f"{name} {tensor_hash(found[name])}" for name in sorted(found)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def content(folder: Path) -> dict[str, str]:
    """Hash of every file by name; temporary names are files too."""
    return {
        str(path.relative_to(folder)): weights_hash(path) if path.suffix == ".ckpt" else sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not STARTS.fullmatch(path.name)
        and not set(path.relative_to(folder).parts) & set(LEFT_OUT)
    }


def main() -> int:
    """Two runs without a kill, then `kills` with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("place", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    args = parser.parse_args()
    given, job, rng = args.place / "given", JOBS[args.job], random.Random(args.job)
    given.mkdir(parents=True)
    prepare(given)
    clean = []
    for _ in range(2):
        out = args.place / "clean"
        out.mkdir()
        start = time.monotonic()
        assert run(job(given, out))
        took = time.monotonic() - start
        clean.append(content(out))
        shutil.rmtree(out)
    assert set(clean[0]) == set(clean[1]), set(clean[0]) ^ set(clean[1])
    timed = {name for name in clean[0] if clean[0][name] != clean[1][name]}
    kills, reruns = 0, 0
    while kills < args.kills:
        out = args.place / "clean"  # the same place: some files name it
        out.mkdir()
        for _ in range(rng.choice((1, 1, 2, 3))):
            if run(job(given, out), kill_after=rng.uniform(0, took)) or (
                args.job == "convert" and (out / "made").is_dir()
            ):
                break
            kills += 1
        if args.job != "convert" or not (out / "made").is_dir():  # killed after its end: convert replaces no folder
            assert run(job(given, out))
        reruns += 1
        found = content(out)
        assert set(found) == set(clean[0]), f"after {kills} kills: {sorted(set(found) ^ set(clean[0]))}"
        wrong = [name for name in found if name not in timed and found[name] != clean[0][name]]
        assert not wrong, f"after {kills} kills: {wrong}"
        shutil.rmtree(out)
    print(f"{args.job}: {kills} kills, {reruns} reruns, {len(clean[0])} files equal but {sorted(timed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
