"""``hftrainer bench load``: what loading a model costs, in fresh processes.

Seconds, memory of its own (anonymous) and memory in all (resident). "File" memory is the mapped weights: the kernel
drops such pages when memory is short and reads them again. The first round may read from the disk; the median of
several is that of files in the kernel's cache.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hftrainer.bench.processes import (
    GIB,
    Figures,
    bytes_read,
    interleave_processes,
    memory,
    missed,
    phase,
    report,
    tell,
)

OURS, OTHERS = "ours", "as other packages load"


@dataclass(frozen=True)
class LoadBench:
    """`model`: an artifact folder, or a weight file or folder of the transformer.

    `tokens`: generate so many codes of one prompt as well. `plain`: as other packages load, a float32 model with random
    weights and then `torch.load` or `load_file` beside it.
    """

    model: str
    tokens: int = 0
    dtype: str | None = None
    quantize: str | None = None
    device: str = "cpu"
    plain: bool = False
    text_features: str | None = None


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench load``; 1 if a limit is exceeded."""
    if not Path(args.model).exists():
        raise ValueError(f"there is no {args.model!r}; give an artifact folder or a weight file")
    bench = LoadBench(
        args.model, args.tokens, args.dtype, args.quantize, args.device, args.plain, args.text_features
    )  # fmt: skip
    if args.child:
        work(bench)
        return 0
    middle = run(bench, args.rounds, args.compare, args.json)
    bars = {
        "load_peak_anonymous_gib": args.bar_anonymous, "peak_resident_gib": args.bar_resident,
        "ratio": args.bar_ratio, "load_seconds": args.bar_seconds, "seconds_a_token": args.bar_token,
    }  # fmt: skip
    return int(missed(middle, bars))


def run(bench: LoadBench, rounds: int = 3, compare: bool = False, json_path: str | None = None) -> dict[str, float]:
    """Measure, print the table, write the figures; medians of the first way.

    `ratio` is the peak of resident memory while loading over the size of the files; the shares are of the bandwidth
    that was measured in the same process.
    """
    ways = {OTHERS if bench.plain else OURS: bench}
    if compare:
        ways[OTHERS] = replace(bench, plain=True)
    found = interleave_processes("hftrainer.bench.load", {name: asdict(way) for name, way in ways.items()}, rounds)
    files = weight_bytes(Path(bench.model))
    for figures in (figures for way in found.values() for figures in way):
        figures["files_gib"] = files / GIB
        figures["ratio"] = figures["load_peak_resident_gib"] / figures["files_gib"]
        figures["load_bandwidth_share"] = figures["load_read"] / figures["load_seconds"] / figures["bandwidth"]
        if "token_read" in figures:
            read = figures["token_read"] / figures["seconds_a_token"]
            figures["token_bandwidth_share"] = read / figures["bandwidth"]
    return report("load", asdict(bench), found, json_path)


def weight_bytes(model: Path) -> int:
    """Bytes of the weights on disk."""
    if model.is_file():
        return model.stat().st_size
    files = [path for path in model.rglob("*") if path.suffix in (".safetensors", ".pt", ".bin")]
    return sum(path.stat().st_size for path in files if path.name != "text_features.safetensors")


# --- the child ----------------------------------------------------------------------------------------------------


def work(bench: LoadBench) -> None:
    """Import, load, generate; say when each begins."""
    from hftrainer.bench.sample import decoding_bytes
    from hftrainer.models.text_features import StoredTextFeatures
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline  # noqa: F401

    beside = Path(bench.text_features or Path(bench.model) / "text_features.safetensors")
    features = beside if beside.is_file() else None
    if bench.text_features and features is None:
        raise ValueError(f"there is no file of text features {bench.text_features!r}")
    if bench.quantize:
        import torchao.quantization  # noqa: F401  # a matter of imports, not of loading
    figures: Figures = {"anonymous_after_imports_gib": memory()["anonymous"] / GIB}
    phase("load")
    before, started = bytes_read(), time.perf_counter()
    ar = load(bench, features)
    figures["load_seconds"] = time.perf_counter() - started
    figures["load_read"] = bytes_read() - before
    phase("generate")
    if bench.tokens:
        text = torch.randn(1, 20, ar.config.clip_dim) * 0.2
        if features is not None:
            held = StoredTextFeatures(features)
            text = held(held.texts[:1]).features
        figures |= generate(ar, text.to(ar.lm_head.weight.device), bench.tokens)
        figures["token_read"] = decoding_bytes(ar)
    del ar
    gc.collect()
    tell(figures, bench.device)


def load(bench: LoadBench, features: Path | None) -> Any:
    """The transformer, by way of what is measured."""
    from hftrainer.models.checkpoint import assign, open_checkpoint
    from hftrainer.models.motion.motionmillion.network import LLaMAHF
    from hftrainer.models.motion.motionmillion.upstream import sizes_of
    from hftrainer.pipelines.motionmillion import MotionMillionPipeline

    path, dtype = Path(bench.model), getattr(torch, bench.dtype) if bench.dtype else None
    if (path / "mm_config.json").is_file() and not bench.plain:
        pipe = MotionMillionPipeline.from_pretrained(
            path, device=bench.device, dtype=dtype, quantize=bench.quantize, text_encoder=None, text_features=features
        )
        return pipe.bundle.ar
    if not bench.plain:
        state = open_checkpoint(path, keys=("trans", "state_dict"))
        with torch.device("meta"):
            model = LLaMAHF(sizes_of(state))
        assign(model, state, source=str(path), dtype=dtype)
        return model.eval().to(bench.device)
    source = path / "ar.safetensors" if path.is_dir() else path
    model = LLaMAHF(sizes_of(open_checkpoint(source, keys=("trans", "state_dict"))))
    model.load_state_dict(plain_state(source))
    return model.eval().to(bench.device, dtype)


def plain_state(source: Path) -> dict[str, torch.Tensor]:
    """A transformer's tensors, read with everything else in the file."""
    if source.suffix == ".safetensors":
        from safetensors.torch import load_file

        whole: Any = load_file(source)
    else:
        whole = torch.load(source, map_location="cpu", weights_only=True)
    whole = whole.get("trans", whole)
    return {name.removeprefix("module."): tensor for name, tensor in whole.items()}


def generate(ar: Any, text: torch.Tensor, tokens: int) -> Figures:
    """Seconds a token of one prompt, END forbidden; the first run touches every weight once."""
    mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    figures: Figures = {}
    for name, count in (("first_seconds", 1), ("generate_seconds", tokens)):
        started = time.perf_counter()
        ar.generate(text, mask, count, min_new_tokens=count)
        if text.is_cuda:
            torch.cuda.synchronize()
        figures[name] = time.perf_counter() - started
    figures["tokens"] = tokens
    figures["seconds_a_token"] = figures["generate_seconds"] / tokens
    if text.is_cuda:
        figures["gpu_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    return figures


if __name__ == "__main__":
    work(LoadBench(**json.loads(sys.argv[1])))
