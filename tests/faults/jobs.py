"""Run by tests: small jobs of every kind, what they read, and which of their results are finished items."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from hftrainer.apps import launch
from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare import workers
from hftrainer.data.synthetic.motions import CAPTIONS, make_motion, write_dataset
from hftrainer.files import sha256
from hftrainer.models.motion.motionmillion import convert
from hftrainer.models.motion.motionmillion.config import MotionMillionConfig
from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from hftrainer.readers import read_jsonl
from tests.clips import write_clip
from tests.evaluation.runs import make_judge, noisy
from tests.faults import served
from tests.faults.forks import ForkedWorker
from tests.tiny import SENTENCES, make_tiny_bundle, tiny_text_encoder, tiny_vqvae_config

SHORT = ["trainer.accelerator=cpu", "trainer.progress_bar=false", "callbacks=[{name: artifact}]"]
CLIPS = 8


@dataclass(frozen=True)
class Job:
    """`lines(given, out)`: command lines. `finished(out)`: files that records in `out` say are finished, each with its
    hash; a rerun must not make them again. `copies`: what of `given` a job works in, and so gets a copy of. `refused`:
    what a rerun must be told to write into a folder whose records somebody deleted. `ends`: what a rerun may say in
    place of a result, and `spare`: files that it need not bring back, after somebody deleted one."""

    lines: Callable[[Path, Path], list[list[str]]]
    finished: Callable[[Path], Iterator[Path]] = lambda out: iter(())
    copies: tuple[str, ...] = ()
    workers: bool = False
    refused: tuple[str, ...] = ()
    ends: str | None = None
    spare: str | None = None


def prepare(place: Path) -> None:
    """What the jobs read: a model, released files, data sets, motion files, predictions, an evaluator."""
    torch.set_num_threads(1)
    launch.subprocess = SimpleNamespace(Popen=ForkedWorker, STDOUT=subprocess.STDOUT)  # type: ignore[assignment]
    workers.get_context = lambda _: multiprocessing.get_context("fork")  # type: ignore[assignment]
    convert.MotionMillionConfig = _small  # type: ignore[assignment]
    make_tiny_bundle().save_pretrained(place / "model")
    (place / "prompts.txt").write_text("\n".join(SENTENCES[:3]) + "\n")
    data = _data(place / "data")
    noisy(data, place / "predictions", 0.002)
    make_judge(place / "judge")
    for number, action in enumerate(("walk", "wave", "squat", "stand")):
        (place / "bvh" / "deep").mkdir(parents=True, exist_ok=True)
        write_clip(place / "bvh" / ("deep" if number % 2 else "") / f"{action}.bvh", make_motion(action, 24, number))
    _released(place / "released")


def _small(**parts: object) -> MotionMillionConfig:
    """The released tokenizer's files have one size; a smaller one is converted by the same code."""
    return MotionMillionConfig(tokenizer=tiny_vqvae_config(), **parts)  # type: ignore[arg-type]


def _data(root: Path) -> DatasetFolder:
    data = write_dataset(root, clips=CLIPS, seed=0)
    for name in data.names():
        data.write_motion(name, data.motion(name)[:64])
        data.write_captions(name, [f"{caption} {name[-1]}" for caption in CAPTIONS[name.split("_")[1]]])
    data.write_split("test", data.names())
    data.write_split("val", data.names()[:2])
    return data


def _released(place: Path) -> None:
    place.mkdir()
    PRESETS["tiny-test"] = {"n_layer": 2, "n_head": 4, "n_embd": 32}
    torch.manual_seed(0)
    small = tiny_vqvae_config()
    ar = LLaMAHF(LLaMAHFConfig.from_name("tiny-test", clip_dim=32, vocab_size=small.codebook_size + 2))
    torch.save({"trans": ar.state_dict()}, place / "ar.zip")
    torch.save({"net": HumanVQVAE(nb_code=small.nb_code, width=32, code_dim=32, output_emb_width=32).state_dict()},
               place / "fsq.zip")  # fmt: skip
    np.save(place / "mean.npy", np.where(np.arange(272) == 9, 0.85, 0.0))
    np.save(place / "std.npy", np.full(272, 0.1))
    tiny_text_encoder().save_pretrained(place / "t5")


def copied(job: Job, given: Path, out: Path) -> None:
    """Put into `out` what the job works in."""
    out.mkdir()
    for name in job.copies:
        shutil.copytree(given / name, out / name)


# --- finished items ---------------------------------------------------------------------------------------------------


def _generated(out: Path) -> Iterator[Path]:
    path = out / "made" / "manifest.json"
    for item in json.loads(path.read_text())["items"] if path.is_file() else []:
        yield from _with_hash({out / "made" / name: digest for name, digest in item.get("sha256", {}).items()})


def _recorded(out: Path) -> Iterator[Path]:
    for path in (out / "made" / "_generation").glob("*.jsonl"):
        for _, record in read_jsonl(path, ignore_cut_end=True):
            if "sha256" in record:
                yield from _with_hash({out / "made" / f"{record['name']}.npy": record["sha256"]})


def _imported(out: Path) -> Iterator[Path]:
    path = out / "made" / "import.jsonl"
    for _, record in read_jsonl(path, ignore_cut_end=True) if path.is_file() else []:
        if "motion_sha256" in record:
            yield from _with_hash({out / "made/motion_data" / f"{record['clip']}.npy": record["motion_sha256"]})


def _with_hash(files: dict[Path, str]) -> Iterator[Path]:
    if all(path.is_file() and sha256(path) == digest.removeprefix("sha256:") for path, digest in files.items()):
        yield from files


# --- command lines ----------------------------------------------------------------------------------------------------


def _evaluate_generate(given: Path, out: Path, *more: str) -> list[list[str]]:
    return [["evaluate", "generate", "--model", str(given / "model"), "--data", str(given / "data"), "--pair-source",
             "official_split", "--split", "test", "--greedy", "--device", "cpu", "--batch-size", "2", "--out",
             str(out / "made"), *more]]  # fmt: skip


OVERWRITE = ("--overwrite",)


JOBS: dict[str, Job] = {
    "generate": Job(lambda given, out: [["generate", "--prompts", str(given / "prompts.txt"), "--model",
        str(given / "model"), "--seconds", "0.5", "--formats", "npy,npz,bvh", "--out", str(out / "made"),
        "--batch-size", "2", "-n", "2", "--temperature", "1"]], _generated),
    "evaluate-generate": Job(_evaluate_generate, _recorded, refused=OVERWRITE),
    "evaluate-generate-sharded": Job(lambda given, out: _evaluate_generate(
        given, out, "--workers", "3", "--logs", str(out / "_logs")), _recorded, workers=True,
        refused=OVERWRITE),
    "convert": Job(lambda given, out: [["convert", "checkpoint", "--ar", str(given / "released/ar.zip"), "--fsq",
        str(given / "released/fsq.zip"), "--mean", str(given / "released/mean.npy"), "--std",
        str(given / "released/std.npy"), "--text_model_source", str(given / "released/t5"), "--out_dir",
        str(out / "made")]]),
    "import": Job(lambda given, out: [["data", "import-motion", str(given / "bvh"), "--skeleton", "smpl22", "--out",
        str(out / "made")]], _imported),
    "tokenize": Job(lambda given, out: [["data", "tokenize", str(out / "data"), "--model", str(given / "model")]],
        copies=("data",)),
    "stats": Job(lambda given, out: [["data", "stats", str(out / "data"), "--split", "train"]], copies=("data",)),
    "pack-motions": Job(lambda given, out: [["data", "pack-motions", str(given / "data"), "--out", str(out / "made")]]),
    "pack-tokens": Job(lambda given, out: [
        ["data", "tokenize", str(out / "data"), "--model", str(given / "model")],
        ["data", "pack-tokens", str(out / "data"), "--out", str(out / "made")]], copies=("data",)),
    "train": Job(lambda given, out: [["train", "configs/gotozero/debug_tokenizer.yaml", f"data.root={given / 'data'}",
        "trainer.max_steps=6", "trainer.checkpoint_every_n_steps=2", f"output_dir={out / 'run'}", *SHORT]],
        ends="config.yaml, the configuration that the run was last started with, is missing",
        spare="run/checkpoints/"),
    "evaluate-run": Job(lambda given, out: [["evaluate", "run", "--data", str(given / "data"), "--evaluator",
        str(given / "judge"), "--predictions", str(given / "predictions"), "--out", str(out / "report"), "--cases", "1",
        "--cache", str(out / "cache"), "--set", "batches.size=4", "--set", "repeats=2"]]),
    "export": Job(lambda given, out: [["export", *map(str, sorted((given / "predictions").glob("*.npy"))[:3]),
        "--formats", "npz,bvh,glb", "--out", str(out / "made")]]),
    "serve-queue": Job(
        lambda given, out: [["tests.faults.served", str(given / "model"), str(out)]], served.finished),
}  # fmt: skip
if os.path.isdir("/dev/shm"):
    os.environ.setdefault("TMPDIR", "/dev/shm")
