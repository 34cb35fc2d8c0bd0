"""``hftrainer bench evalset``: many prompts of unequal length, rows refilled against batches that wait."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from hftrainer.bench.measure import Result, Way, interleave, machine, machine_line, read_bandwidth, save, table
from hftrainer.bench.sample import EndingLLaMA, SampleBench, load, our_decoding_bytes, random_texts, read_by_ours
from hftrainer.models.motion.motionmillion.engine.scheduler import DecodeRequests, Scheduler


@dataclass(frozen=True)
class EvalsetBench:
    """`prompts` of 20 to 150 codes, `codes` on average (HumanML3D's test set: 4042 prompts, about 100)."""

    size: str = "44M"
    prompts: int = 512
    batch: int = 32
    codes: int = 100
    rounds: int = 3
    dtype: str = "float32"
    device: str = "cpu"


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench evalset``."""
    run(EvalsetBench(args.size, args.prompts, args.batch, args.codes, args.rounds, args.dtype, args.device), args.json)
    return 0


def run(bench: EvalsetBench, json_path: str | None = None) -> list[Result]:
    """Measure, print the table, write the figures."""
    model = load(SampleBench(size=bench.size, dtype=bench.dtype, device=bench.device))
    generator = torch.Generator().manual_seed(0)
    lengths = (bench.codes + 35 * torch.randn(bench.prompts, generator=generator)).clamp(20, 150).int().tolist()
    words, longest, ending = 20, 151, EndingLLaMA(model)
    features, mask = random_texts(model, bench.prompts, words)
    occupancy: dict[str, float] = {}
    steps: dict[str, int] = {}

    def decode(name: str, groups: Sequence[Sequence[int]], refill: bool) -> None:
        decoder = Scheduler(ending, bench.batch, shrink=refill)
        work = DecodeRequests(
            lambda p: (features[p], mask[p]), [longest] * bench.prompts, words + longest, min_new_tokens=lengths
        )
        for group in groups:
            for _ in decoder.run(work, group):
                pass
        occupancy[name] = decoder.occupancy.share
        steps[name] = decoder.occupancy.steps + decoder.occupancy.prefills

    everything = range(bench.prompts)
    static = [list(everything)[i : i + bench.batch] for i in range(0, bench.prompts, bench.batch)]

    def way(name: str, groups: Sequence[Sequence[int]], refill: bool) -> Way:
        return Way(
            name, lambda: decode(name, groups, refill), sum(lengths),
            read=lambda: read_by_ours(model, lengths, words, steps[name]),
        )  # fmt: skip

    ways = [way("batches that wait", static, refill=False), way("rows refilled", [everything], refill=True)]
    device = torch.device(bench.device)
    bandwidth = read_bandwidth(device)
    results = interleave(ways, bench.rounds, bandwidth=bandwidth)
    bound = sum(lengths) / bench.batch * our_decoding_bytes(model) / bandwidth
    print(f"{bench.prompts} prompts, {sum(lengths)} codes, batch {bench.batch}, {bench.size}")
    print(machine_line(machine(device)))
    print(f"read bandwidth {bandwidth / 1e9:.1f} GB/s; reading the weights alone would take {bound:.2f} s\n")
    print(table(results, "codes"))
    print("\noccupancy: " + ", ".join(f"{name} {share:.1%}" for name, share in occupancy.items()))
    save(
        json_path, "evalset", asdict(bench), results, machine=machine(device), limits={"bandwidth": bandwidth},
        occupancy=occupancy, bound=bound,
    )  # fmt: skip
    return results
