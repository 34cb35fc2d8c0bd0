"""What loading and converting keep in memory, in processes of their own: files at a small part of their real size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hftrainer.models.motion.motionmillion.network.llama import PRESETS
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is asked of Linux's /proc")

LAYERS, WIDTH = 48, 256
PRESET = {"n_layer": LAYERS, "n_head": 8, "n_embd": WIDTH}
MB = 1 << 20

MEASURE = """
import json, sys
from pathlib import Path

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

import torch
torch.set_num_threads(1)
from hftrainer.cli import main
from hftrainer.commands import convert as command
from hftrainer.models.motion.motionmillion import convert
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.network.llama import PRESETS
PRESETS["memory-test"] = json.loads(sys.argv[1])
torch.ones(8, 8) @ torch.ones(8, 8)
MotionMillionBundle.from_pretrained(sys.argv[2])  # torch imports 70 MB of its own code at the first meta tensor
before, own = memory("VmRSS"), memory("RssAnon")
Path("/proc/self/clear_refs").write_text("5")
work()
print(json.dumps({"peak": memory("VmHWM") - before, "anonymous": memory("RssAnon") - own}))
"""


def measured(work: str, warm: Path, *arguments: str) -> dict[str, int]:
    """Bytes that `work` adds, in a process that has loaded the small model `warm` before."""
    code = f"def work():\n    {work}\n{MEASURE}"
    command = [sys.executable, "-c", code, json.dumps(PRESET), str(warm), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def make(out: Path, *arguments: str) -> Path:
    tool = REPOSITORY / "tools" / "make_random_artifact.py"
    sizes = ["--size", "44M", "--layers", str(LAYERS), "--width", str(WIDTH), "--out", str(out), *arguments]
    done = subprocess.run([sys.executable, str(tool), *sizes], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return make(tmp_path_factory.mktemp("memory") / "released", "--released")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("memory") / "model")


def test_converting_keeps_a_few_tensors_in_memory(released, tiny_model, tmp_path):
    """A transformer of 150 MB beside an optimizer of 600 MB; its largest tensor has 33 MB."""
    source = released / "t2m_random_all.zip"
    assert source.stat().st_size > 700 * MB
    flags = ["--ar", source, "--fsq", released / "fsq.zip", "--mean", released / "mean.npy", "--std"]
    flags += [released / "std.npy", "--out_dir", tmp_path / "made", "--no_text_encoder"]
    used = measured('assert main(["convert", "checkpoint", *sys.argv[3:]]) == 0', tiny_model, *map(str, flags))
    weights = (tmp_path / "made" / "ar.safetensors").stat().st_size
    assert weights > 140 * MB
    assert used["peak"] < 80 * MB, f"{used['peak'] / MB:.0f} MB for {weights / MB:.0f} MB of weights"


def test_loading_maps_the_weights(model, tiny_model):
    """Nothing of them becomes the process's own, and little of them is even read."""
    weights = (model / "ar.safetensors").stat().st_size
    code = "from hftrainer.models.checkpoint import modules; modules._CHECK_BELOW = 0"  # as for files of gigabytes
    code += "; globals()['kept'] = MotionMillionBundle.from_pretrained(sys.argv[3])"
    used = measured(code, tiny_model, str(model))
    assert used["anonymous"] < 10 * MB, f"{used['anonymous'] / MB:.0f} MB of {weights / MB:.0f} MB"
    assert used["peak"] < weights / 2


def test_the_random_model_is_a_whole_one(released, model):
    """What speed is measured on generates, from the features in its folder, and is the same each time."""
    from hftrainer.models.checkpoint import open_checkpoint
    from hftrainer.models.text_features import StoredTextFeatures
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline

    features = model / "text_features.safetensors"
    pipe = MotionMillionPipeline.from_pretrained(model, text_features=features, verify=True)
    assert pipe.bundle.ar.lm_head.weight.dtype == torch.bfloat16
    motions = pipe.infer_t2m(StoredTextFeatures(features).texts, max_sample_steps=2)
    assert len(motions) == 3
    state, file = open_checkpoint(model / "ar.safetensors"), open_checkpoint(released / "t2m_random_all.zip")
    assert "memory-test" not in PRESETS
    for name in ("llama_proj.weight", "transformer.h.3.attn.c_attn.weight", "transformer.ln_f.scale"):
        assert torch.equal(state[name], file[name])
