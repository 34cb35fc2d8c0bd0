"""``hftrainer bench convert``: what turning released files into an artifact costs, in fresh processes.

The files are a random release of a size (see `random_files`), or those of a folder. The other way is that of other
packages: the complete file in memory, a float32 model filled from it, and its state dict written.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hftrainer.bench.load import OTHERS, OURS, plain_state
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
from hftrainer.bench.random_files import TRANSFORMER, make_released, model_config
from hftrainer.models.motion.motionmillion.convert import Conversion, convert


@dataclass(frozen=True)
class ConvertBench:
    """`files`: a folder with t2m_random_all.zip, fsq.zip, mean.npy and std.npy; `work`: for what is made and removed.

    Layers, width and heads are those of the transformer.
    """

    files: str
    work: str
    plain: bool = False
    layers: int = 0
    width: int = 0
    heads: int = 0


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench convert``; 1 if a limit is exceeded."""
    config = model_config(args.size, n_layer=args.layers, n_embd=args.width)
    if args.folder is not None:
        Path(args.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-convert-") as temporary:
        files = Path(args.released or Path(temporary) / "released")
        if args.released is None:
            make_released(files, config, getattr(torch, args.dtype), args.optimizer_bytes)
        elif not (files / TRANSFORMER).is_file():
            raise ValueError(f"{files} does not hold {TRANSFORMER}; tools/make_random_artifact.py --released makes it")
        ar = config.ar.config
        sizes = ar.n_layer, ar.n_embd, ar.n_head
        middle = run(ConvertBench(str(files), temporary, False, *sizes), args.rounds, args.compare, args.json)
    return int(missed(middle, {"peak_resident_gib": args.bar_resident, "convert_seconds": args.bar_seconds}))


def run(bench: ConvertBench, rounds: int = 3, compare: bool = False, json_path: str | None = None) -> dict[str, float]:
    """Measure, print the table, write the figures; medians of our way.

    `mb_a_second` counts the weights that come out; `read` and `written` are bytes of files, and the share is that of
    both in the bandwidth that was measured in the same process.
    """
    ways = {OURS: bench} | ({OTHERS: replace(bench, plain=True)} if compare else {})
    found = interleave_processes("hftrainer.bench.convert", {name: asdict(way) for name, way in ways.items()}, rounds)
    source = sum(path.stat().st_size for path in Path(bench.files).iterdir())
    for figures in (figures for way in found.values() for figures in way):
        figures["files_gib"] = source / GIB
        figures["mb_a_second"] = figures["written"] / figures["convert_seconds"] / 1e6
        moved = (figures["convert_read"] + figures["written"]) / figures["convert_seconds"]
        figures["bandwidth_share"] = moved / figures["bandwidth"]
    return report("convert", asdict(bench), found, json_path)


def work(bench: ConvertBench) -> None:
    """In a child: convert, say what it took, and remove what was made."""
    from hftrainer.models.motion.motionmillion.network import HumanVQVAE
    from hftrainer.models.motion.motionmillion.network.llama import PRESETS

    sizes = {"n_layer": bench.layers, "n_embd": bench.width, "n_head": bench.heads}
    if sizes not in PRESETS.values():
        PRESETS["cut down"] = sizes  # no tensor shows the number of heads; of presets it is known
    with torch.device("meta"):
        HumanVQVAE()  # torch imports some of its own code at the first meta tensor
    files = Path(bench.files)
    with tempfile.TemporaryDirectory(dir=bench.work) as temporary:
        out = Path(temporary) / "made"
        job = Conversion(
            files / TRANSFORMER, out, files / "fsq.zip", files / "mean.npy", files / "std.npy", trained_on="unknown"
        )
        figures: Figures = {"anonymous_after_imports_gib": memory()["anonymous"] / GIB}
        phase("convert")
        before, started = bytes_read(), time.perf_counter()
        plain_convert(job) if bench.plain else convert(job)
        figures["convert_seconds"] = time.perf_counter() - started
        figures["convert_read"] = bytes_read() - before
        figures["written"] = sum(path.stat().st_size for path in out.iterdir())
    tell(figures, "cpu")


def plain_convert(job: Conversion) -> None:
    """The way of other packages; the artifact has no configuration."""
    from safetensors.torch import save_file

    from hftrainer.models.checkpoint import open_checkpoint
    from hftrainer.models.motion.motionmillion.network import HumanVQVAE, LLaMAHF
    from hftrainer.models.motion.motionmillion.upstream import sizes_of

    model, vqvae = LLaMAHF(sizes_of(open_checkpoint(job.ar, keys=("trans",)))), HumanVQVAE()
    model.load_state_dict(plain_state(job.ar))
    vqvae.load_state_dict(torch.load(job.fsq, map_location="cpu", weights_only=True)["net"])
    job.out.mkdir()
    for name, module in (("ar", model), ("fsq", vqvae)):
        save_file(
            {key: value.contiguous() for key, value in module.state_dict().items()}, job.out / f"{name}.safetensors"
        )
    for source in (job.mean, job.std):
        np.save(job.out / source.name, np.load(source))


if __name__ == "__main__":
    work(ConvertBench(**json.loads(sys.argv[1])))
