"""Stages of ``hftrainer bench gpu`` beside the transformer: tests, text encoder, tokenizer, evaluator, int4."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hftrainer.bench.gpu_common import Figures, Settings, timed
from hftrainer.models.motion.motionmillion.network.vqvae import HumanVQVAE
from hftrainer.models.motion.motionstreamer.network import MotionEncoder
from hftrainer.models.network.t5 import T5Encoder, T5Sizes
from hftrainer.models.quantize import quantize_linears
from hftrainer.models.text_sizes import t5_sizes

XL = "google/flan-t5-xl"
_SMALL_T5 = T5Sizes(
    vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
)


def tests_stage(settings: Settings) -> Iterator[Figures]:
    """The repository's own tests that need a GPU; with `pretend` one file of them is only collected."""
    tests = Path(__file__).parents[2] / "tests"
    files = [path for path in sorted(tests.rglob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]
    if not files:
        yield {"what": "pytest -m gpu", "skipped": "no tests here: hftrainer was installed without its repository"}
        return
    less = ["--collect-only", str(min(files, key=lambda path: path.stat().st_size))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    command += less if settings.pretend else [str(path) for path in files]
    ran = subprocess.run(command, cwd=tests.parent, capture_output=True, text=True)
    said = (ran.stdout + ran.stderr).strip().splitlines()
    yield {"what": "pytest -m gpu", "files": len(files), "said": said[-1] if said else ""}
    if ran.returncode:
        yield {"failed": "\n".join(said[-40:])}


def text_stage(settings: Settings) -> Iterator[Figures]:
    """Flan-T5-XL with random weights: milliseconds of 32 captions of 24 tokens, and of one."""
    sizes = _SMALL_T5 if settings.pretend else t5_sizes(XL)
    assert sizes is not None
    for dtype in (torch.bfloat16, torch.float32):
        encoder: Any = settings.make(partial(T5Encoder, sizes), dtype)
        for captions in (1, 32):
            ids = torch.ones(captions, 24, dtype=torch.long, device="cuda:0")
            work: Any = partial(encoder, ids, torch.ones_like(ids))
            first, later = timed(work, 1 if settings.pretend else 10)
            peak = torch.cuda.max_memory_allocated() / 2**30
            yield {"what": XL, "dtype": str(dtype).removeprefix("torch."), "captions": captions, "first_ms": first,
                   "ms": later, "peak_gib": peak}  # fmt: skip
        encoder = work = None
        torch.cuda.empty_cache()


def precision_stage(settings: Settings) -> Iterator[Figures]:
    """Tokenizer and evaluator in float32 against the CPU, products and convolutions in TF32 or not."""
    torch.manual_seed(0)
    width, clips, frames = (32, 2, 16) if settings.pretend else (512, 16, 200)
    tokenizer = HumanVQVAE(width=width, code_dim=width, output_emb_width=width).eval().requires_grad_(False)
    evaluator = MotionEncoder(272, 256, 4, 4, 1024, 0.0, 400).eval().requires_grad_(False)
    motion, lengths = torch.randn(clips, frames, 272), torch.full((clips,), frames)
    codes = tokenizer.encode(motion)
    want = tokenizer.forward_decoder(codes), evaluator(motion, lengths).mean
    there = tokenizer.to("cuda:0"), evaluator.to("cuda:0")
    before = torch.get_float32_matmul_precision()
    for tf32 in (False, True):
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        with torch.backends.cudnn.flags(allow_tf32=tf32):  # type: ignore[no-untyped-call]
            got = there[0].encode(motion.to("cuda:0")).cpu()
            yield {"what": "tokenizer, encoding", "tf32": tf32, "codes that differ": int((got != codes).sum()),
                   "of": codes.numel()}  # fmt: skip
            decoded = there[0].forward_decoder(codes.to("cuda:0")).cpu()
            yield {"what": "tokenizer, decoding", "tf32": tf32, "relative difference": _apart(decoded, want[0])}
            embedded = there[1](motion.to("cuda:0"), lengths.to("cuda:0")).mean.cpu()
            yield {"what": "evaluator", "tf32": tf32, "relative difference": _apart(embedded, want[1])}
    torch.set_float32_matmul_precision(before)


def int4_figures(settings: Settings) -> Iterator[Figures]:
    """A matrix in int4 times some rows, against bfloat16; or why this device refuses it."""
    out, width = (256, 256) if settings.pretend else (22016, 4096)
    layer = nn.Sequential(nn.Linear(width, out, bias=False)).bfloat16()
    # the pretend device has no kernels of its own; a CPU refuses int4
    device = torch.device("cpu" if settings.pretend else "cuda:0")
    try:
        quantize_linears(layer, "int4", device=device)
    except (ValueError, RuntimeError, ImportError) as error:
        yield {"what": "int4", "refused": str(error).splitlines()[0]}
        return
    plain = nn.Linear(width, out, bias=False).bfloat16().to(device)
    for rows in (1, 4, 16, 64):
        x = torch.ones(rows, width, device=device, dtype=torch.bfloat16)
        first, ours = timed(lambda: layer(x), 20)  # noqa: B023
        _, theirs = timed(lambda: plain(x), 20)  # noqa: B023
        yield {"what": "int4", "rows": rows, "first_ms": first, "ms": ours, "bfloat16_ms": theirs}


def _apart(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())
