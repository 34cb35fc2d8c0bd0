"""The stages of ``hftrainer bench gpu``, each a generator of figures: what was measured is kept when it is cut off.

``python -m hftrainer.bench.gpu_stages STAGE SETTINGS`` prints one JSON object a line. Sizes are those of a large GPU,
or with `pretend` so small that all stages run on a CPU in seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hftrainer.bench.gpu_common import TINY, Figures, Settings, timed, wait
from hftrainer.bench.gpu_models import int4_figures, precision_stage, tests_stage, text_stage
from hftrainer.bench.measure import machine as about_machine
from hftrainer.bench.measure import matmul_rate, read_bandwidth
from hftrainer.bench.pretend import MACHINE, machine
from hftrainer.models.motion.motionmillion.engine.decode_batch import DecodeBatch, reserve
from hftrainer.models.motion.motionmillion.engine.inference import InferenceLLaMA, inference_model
from hftrainer.models.motion.motionmillion.engine.scheduler import DecodeRequests, Scheduler
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.models.quantize import FEW, few_rows
from hftrainer.processes import die_with_parent
from hftrainer.requests import SamplingParams


def device_stage(settings: Settings) -> Iterator[Figures]:
    """What the device is and does at best."""
    device = torch.device("cuda:0")
    yield {"what": "machine", **about_machine(device), "cuda": torch.version.cuda}
    if not settings.pretend:
        query = "name,clocks.sm,clocks.mem,clocks.max.sm,power.limit,driver_version,memory.total"
        found = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv"], capture_output=True, text=True)
        yield {"what": "nvidia-smi", "text": found.stdout.strip() or found.stderr.strip()}
    size, n = (2**20, 64) if settings.pretend else (2**32, 8192)
    yield {"what": "read bandwidth", "gb_per_s": read_bandwidth(device, size) / 1e9}
    yield {"what": "matrix product", "tflop_per_s": matmul_rate(device, torch.bfloat16, n) / 1e12}


def correctness_stage(settings: Settings) -> Iterator[Figures]:
    """Codes of the CPU, of eager steps and of graphs; heads of 100 channels; packed or not; a second call."""
    shapes: dict[str, dict[str, Any]] = {
        "44M": {"n_layer": 8, "n_head": 8, "n_embd": 512},
        "3B": {"n_layer": 2, "n_head": 32, "n_embd": 3200},
    }
    for name, sizes in shapes.items():
        config = LLaMAHFConfig(**(TINY if settings.pretend else {**sizes, "clip_dim": 256}))
        torch.manual_seed(0)
        model = LLaMAHF(config).eval().requires_grad_(False)
        features, mask = torch.randn(24, 12, config.clip_dim), torch.arange(12)[None] < torch.arange(1, 25)[:, None]
        limits = [8 + i % 16 for i in range(24)]
        want = model.generate(features, mask, limits, min_new_tokens=limits).tokens
        model.to("cuda:0")
        there = features.to("cuda:0"), mask.to("cuda:0")
        for prepack in (False, True):
            inference = inference_model(model, prepack)
            for graphs in (False, True, True):
                scheduler = Scheduler(inference, 8)
                scheduler.graphs = graphs
                work = DecodeRequests(lambda p: (there[0][p], there[1][p]), limits, 36, min_new_tokens=limits)  # noqa: B023
                got = {done.prompt: done.codes for done in scheduler.run(work)}
                same = sum(bool((got[i] == want[i, : limits[i]]).all()) for i in range(24))
                yield {"what": name, "prepack": prepack, "graphs": graphs, "rows equal to the CPU": same, "of": 24}


def attention_stage(settings: Settings) -> Iterator[Figures]:
    """Milliseconds of attention with a mask, one query a row; the first call by itself."""
    heads, rows, slots = (2, 2, 64) if settings.pretend else (32, 64, 192)
    for size in (100, 104, 128):
        q = torch.randn(rows, heads, 1, size, device="cuda:0", dtype=torch.bfloat16)
        k = torch.randn(rows, heads, slots, size, device="cuda:0", dtype=torch.bfloat16)
        mask = torch.zeros(rows, 1, 1, slots, device="cuda:0", dtype=torch.bfloat16)
        for name in ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
            backend = getattr(torch.nn.attention.SDPBackend, name)
            try:
                with nullcontext() if settings.pretend else torch.nn.attention.sdpa_kernel(backend):
                    first, later = timed(lambda: F.scaled_dot_product_attention(q, k, k, attn_mask=mask), 20)  # noqa: B023
            except RuntimeError as error:
                yield {"what": f"head {size}", "backend": name, "refused": str(error).splitlines()[0]}
                continue
            yield {"what": f"head {size}", "backend": name, "first_ms": first, "ms": later}


def decode_stage(settings: Settings) -> Iterator[Figures]:
    """Milliseconds of a step by rows and live slots, seconds of captures, peak memory."""
    for size in (settings.size, "3B"):
        inference = inference_model(settings.model(size))
        yield {"what": size, "prepacked": inference.prepacked}
        for rows in (1, 2) if settings.pretend else (1, 32, 64, 128, 256):
            for kv_len in (64, 128, 192):
                batch = _busy(inference, rows, kv_len)
                start = time.perf_counter()
                batch.replay(kv_len)
                wait()
                capture = time.perf_counter() - start
                _, step = timed(lambda: batch.replay(kv_len), 4 if settings.pretend else 16)  # noqa: B023
                peak = torch.cuda.max_memory_allocated() / 2**30
                yield {"what": size, "rows": rows, "kv_len": kv_len, "step_ms": step, "capture_s": capture,
                       "peak_gib": peak}  # fmt: skip
        yield from _uneven_rows(size, inference, *((4, 2) if settings.pretend else (256, 32)))
        if not settings.pretend:  # the pretend device has no compiler
            yield from _compiled_steps(size, inference)
        del inference
        torch.cuda.empty_cache()


def _uneven_rows(size: str, inference: InferenceLLaMA, most: int, least: int) -> Iterator[Figures]:
    """Rows of 24 to 168 slots: each read as far as it goes, where there is a kernel for that, or as the longest."""
    rows, usual = most, inference.lengths_from
    while rows >= least:
        for way, begins_at in (("row lengths", 1), ("masks", rows + 1)):
            inference.lengths_from, inference.workspace = begins_at, None
            if inference.reads_lengths(rows) != (way == "row lengths"):
                yield {"what": f"{size}, rows of 24 to 168 slots", "reads": way, "refused": "no kernel for this device"}
                continue
            batch = _busy(inference, rows, 168)
            batch.text.copy_(torch.linspace(24, 144, rows, device="cuda:0").long())
            _, step = timed(lambda: batch.replay(168), 4 if rows < 8 else 16)  # noqa: B023
            yield {"what": f"{size}, rows of 24 to 168 slots", "reads": way, "rows": rows, "step_ms": step}
        rows //= 2
    inference.lengths_from, inference.workspace = usual, None


def _compiled_steps(size: str, inference: InferenceLLaMA) -> Iterator[Figures]:
    inference.compile_steps, inference.workspace = True, None
    for rows in (1, 32):
        batch = _busy(inference, rows, 64)
        start = time.perf_counter()
        batch.replay(64)
        wait()
        seconds = time.perf_counter() - start
        _, step = timed(lambda: batch.replay(64), 16)  # noqa: B023
        yield {"what": f"{size} compiled", "rows": rows, "kv_len": 64, "step_ms": step, "capture_s": seconds}


def kernels_stage(settings: Settings) -> Iterator[Figures]:
    """Kernels of a step, by name."""
    inference = inference_model(settings.model(settings.size))
    batch = _busy(inference, 1, 64)
    batch.step(64)
    if settings.pretend:
        MACHINE[-1].kernels.clear()
        batch.step(64)
        table = dict(MACHINE[-1].kernels.most_common(20))
        yield {"what": "operations of a step", "count": sum(MACHINE[-1].kernels.values()), "table": table}
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        batch.step(64)
        wait()
    rows = [(event.key, event.count, event.device_time_total) for event in profile.key_averages()]
    rows.sort(key=lambda row: -row[2])
    yield {"what": "kernels of a step", "count": sum(row[1] for row in rows), "table": rows[:40]}


def integers_stage(settings: Settings) -> Iterator[Figures]:
    """A matrix of 8-bit or 4-bit integers times a few rows, against bfloat16."""
    out, width = (64, 32) if settings.pretend else (22016, 4096)
    integers = torch.ones(out, width, device="cuda:0", dtype=torch.int8)
    scale, weight = torch.ones(out, device="cuda:0", dtype=torch.bfloat16), integers.to(torch.bfloat16)
    product: Callable[[Tensor, Tensor, Tensor], Tensor] = few_rows
    if not settings.pretend:
        product = torch.compile(few_rows, dynamic=False, fullgraph=True)
    for rows in (1, 2, FEW):
        x = torch.ones(rows, width, device="cuda:0", dtype=torch.bfloat16)
        first, ours = timed(lambda: product(x, integers, scale), 20)  # noqa: B023
        _, plain = timed(lambda: F.linear(x, weight), 20)  # noqa: B023
        yield {"what": "int8", "rows": rows, "first_ms": first, "ms": ours, "bfloat16_ms": plain}
    yield from int4_figures(settings)


def ragged_stage(settings: Settings) -> Iterator[Figures]:
    """Prompts of unequal length through the scheduler."""
    model = settings.model(settings.size)
    count, rows, longest = (12, 4, 12) if settings.pretend else (512, 256, 150)
    limits = torch.randint(longest // 4, longest, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    config = model.config
    features = torch.randn(rows, 20, config.clip_dim, device="cuda:0").to(torch.bfloat16)
    mask = torch.ones(rows, 20, device="cuda:0", dtype=torch.bool)
    work = DecodeRequests(
        lambda p: (features[: len(p)], mask[: len(p)]), limits, 20 + longest, min_new_tokens=limits
    )  # fmt: skip
    for call in ("first", "second"):
        scheduler = Scheduler(inference_model(model), rows)
        start = time.perf_counter()
        made = sum(len(done.codes) for done in scheduler.run(work))
        seconds = time.perf_counter() - start
        yield {"what": f"{count} prompts, {call} call", "rows": rows, "codes": made, "seconds": seconds,
               "codes_per_s": made / seconds, "occupancy": scheduler.occupancy.share}  # fmt: skip


def train_stage(settings: Settings) -> Iterator[Figures]:
    """An optimizer step of 3B in bfloat16: share of the measured matrix product."""
    model = settings.model("3B").train().requires_grad_(True)
    config, rows, codes = model.config, *((2, 8) if settings.pretend else (16, 150))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=not settings.pretend)
    idx = torch.cat([torch.full((rows, 20), config.pad_id), torch.zeros(rows, codes, dtype=torch.long)], 1).to("cuda:0")
    features = torch.randn(rows, 20, config.clip_dim, device="cuda:0").to(torch.bfloat16)
    mask = torch.ones(rows, 20, dtype=torch.bool, device="cuda:0")
    losses: list[Tensor] = []

    @torch.enable_grad()
    def step() -> None:
        loss, _ = model.next_token_loss(idx, features, mask)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())

    _, ms = timed(step, 2 if settings.pretend else 5)
    weights = sum(p.numel() for p in model.parameters()) - model.transformer.wte.weight.numel()
    flops = 6 * weights * rows * (20 + codes)
    best = matmul_rate(torch.device("cuda:0"), torch.bfloat16, 64 if settings.pretend else 8192)
    yield {"what": "3B step", "rows": rows, "ms": ms, "tflop_per_s": flops / ms / 1e9, "mfu": flops / ms * 1e3 / best,
           "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
           "loss before": float(losses[0]), "loss after": float(losses[-1])}  # fmt: skip


STAGES: dict[str, tuple[float, Callable[[Settings], Iterator[Figures]]]] = {
    "device": (20, device_stage),
    "tests": (60, tests_stage),
    "correctness": (60, correctness_stage),
    "attention": (40, attention_stage),
    "decode": (150, decode_stage),
    "kernels": (40, kernels_stage),
    "integers": (40, integers_stage),
    "ragged": (90, ragged_stage),
    "train": (70, train_stage),
    "text": (30, text_stage),
    "precision": (20, precision_stage),
}


def run_stage(name: str, settings: Settings) -> Iterator[Figures]:
    """The figures of a stage, in this process."""
    with machine() if settings.pretend else nullcontext(), torch.no_grad():
        yield from STAGES[name][1](settings)


def _busy(inference: InferenceLLaMA, rows: int, kv_len: int) -> DecodeBatch:
    """Rows that are all under way, with `kv_len` slots to read for some 20 steps to come."""
    batch = reserve(inference, rows, 150, 192, SamplingParams())
    batch.text.fill_(kv_len - 24)
    batch.counts.zero_()
    batch.limits.fill_(10_000)
    batch.floors.fill_(10_000)
    batch.done.zero_()
    return batch


if __name__ == "__main__":
    die_with_parent()
    for figures in run_stage(sys.argv[1], Settings(**json.loads(sys.argv[2]))):
        print("figures " + json.dumps(figures), flush=True)
