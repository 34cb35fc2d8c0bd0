"""``hftrainer bench equality``: how often batched, refilled sampling parts from the un-cached loop, and by how little.

Two ways that compute the same function round differently; where the two best ids lie within that rounding, they choose
differently, and from there on the rows are two different motions. So besides the fraction of such rows, what counts is
how close the best two ids were there (the margin), and how much worse than the best any choice was after the same past
(the regret, by one un-cached pass over what was chosen).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hftrainer.bench import baselines
from hftrainer.bench.measure import machine, machine_line
from hftrainer.bench.sample import SampleBench, load, random_texts
from hftrainer.dtypes import dtype_name
from hftrainer.files import write_json
from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.engine.scheduler import DecodeRequests, Scheduler
from hftrainer.models.motion.motionmillion.network import LLaMAHF

# what docs/performance.md promises: equal rows, and regret in float32 or in steps of bfloat16
EQUAL_ROWS, REGRET, REGRET_ULPS = 0.995, 1e-4, 4.0


@dataclass(frozen=True)
class EqualityBench:
    """`rows` texts of 1 to `words` positions, up to `codes` codes each, `batch` at a time; END is not allowed."""

    size: str = "44M"
    rows: int = 64
    codes: int = 50
    batch: int = 32
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    device: str = "cpu"
    words: int = 20


@dataclass(frozen=True)
class Parting:
    """Where a row differs first: its best logit minus the second best there, absolute and in steps of bfloat16 at the
    best one. `tied`: the loop's own logits, rounded to the model's dtype, could not tell the two apart."""

    row: int
    step: int
    margin: float
    ulps: float
    tied: bool


@dataclass(frozen=True)
class Equality:
    """Of one arithmetic: where rows part, of `steps` choices those that are not the best, and the largest regret."""

    dtype: str
    rows: int
    partings: list[Parting]
    steps: int
    not_best: int
    regret: float
    regret_ulps: float

    @property
    def kept(self) -> bool:
        """Whether it is what the documentation promises."""
        if self.dtype == "bfloat16":
            return self.regret_ulps <= REGRET_ULPS
        return len(self.partings) <= (1 - EQUAL_ROWS) * self.rows and self.regret <= REGRET


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench equality``; 1 if a promise is not kept."""
    bench = EqualityBench(
        args.size, args.rows, args.codes, args.batch, tuple(map(dtype_name, args.dtype.split(","))), args.device
    )
    broken = [found for found in run(bench, args.json) if not found.kept]
    for found in broken:
        print(f"missed: {found.dtype}: {len(found.partings)} of {found.rows} rows differ, regret {found.regret:.2g} "
              f"({found.regret_ulps:.2g} steps of bfloat16)", file=sys.stderr)  # fmt: skip
    return int(bool(broken))


def run(bench: EqualityBench, json_path: str | None = None) -> list[Equality]:
    """Sample both ways in every arithmetic, from the same weights; print the table, write the figures."""
    unknown = [name for name in bench.dtypes if name not in ("float32", "bfloat16")]
    if unknown:
        raise ValueError(f"arithmetics are float32 and bfloat16, got {unknown[0]!r}")
    model = load(SampleBench(size=bench.size, device=bench.device))
    results = [compare(model.to(getattr(torch, name)), bench, name) for name in sorted(bench.dtypes, reverse=True)]
    about = machine(torch.device(bench.device))
    print(f"{bench.size}: {bench.rows} rows of up to {bench.codes} codes, batch {bench.batch}\n{machine_line(about)}\n")
    print(table(results))
    if json_path is not None:
        figures = [asdict(found) | {"kept": found.kept} for found in results]
        write_json(json_path, {"bench": "equality", **asdict(bench), "machine": about, "results": figures})
    return results


@torch.inference_mode()
def compare(model: LLaMAHF, bench: EqualityBench, dtype: str) -> Equality:
    """All rows by both ways."""
    generator = torch.Generator().manual_seed(0)
    features, _ = random_texts(model, bench.rows, bench.words)
    words = torch.randint(1, bench.words + 1, (bench.rows,), generator=generator)
    mask = (torch.arange(bench.words)[None] < words[:, None]).to(features.device)
    # of unequal length, so that rows are refilled while others are under way
    limits = torch.randint((bench.codes + 1) // 2, bench.codes + 1, (bench.rows,), generator=generator).tolist()
    work = DecodeRequests(lambda p: (features[p], mask[p]), limits, bench.words + bench.codes, min_new_tokens=limits)
    made = {done.prompt: done.codes for done in Scheduler(inference_model(model), bench.batch).run(work)}
    partings, regrets, steps_of_bfloat16 = [], [], []
    for row in range(bench.rows):
        text = features[row : row + 1, : words[row]], mask[row : row + 1, : words[row]]
        codes = made[row].to(features.device)
        parting = part(model, text, row, codes, baselines.uncached(model, *text, limits[row])[0])
        partings += [parting] if parting else []
        logits = _logits(model, text, codes)[0]
        best = logits.max(dim=-1).values
        regrets.append(best - logits.gather(1, codes[:, None])[:, 0])
        steps_of_bfloat16.append(regrets[-1] / ulp(best))
    regret = torch.cat(regrets)
    return Equality(
        dtype, bench.rows, partings, steps=len(regret), not_best=int((regret > 0).sum()), regret=float(regret.max()),
        regret_ulps=float(torch.cat(steps_of_bfloat16).max()),
    )  # fmt: skip


def part(model: LLaMAHF, text: tuple[Tensor, Tensor], row: int, ours: Tensor, loop: Tensor) -> Parting | None:
    """Where codes (l,) of the two ways differ first, or None."""
    differ = (ours != loop).nonzero()
    if not len(differ):
        return None
    step = int(differ[0])
    exact, rounded = (logits[-1] for logits in _logits(model, text, loop[: step + 1]))
    best, second = exact.topk(2).values
    coarse = rounded.topk(2).values
    margin = best - second
    return Parting(row, step, float(margin), float(margin / ulp(best)), bool(coarse[0] == coarse[1]))


def ulp(x: Tensor) -> Tensor:
    """The step between neighbouring bfloat16 numbers (8 significant bits) at x."""
    return torch.exp2(torch.frexp(x).exponent - 8.0)


def table(results: Sequence[Equality]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| arithmetic | rows that differ | first at step, median | margin there in bf16 steps, median and largest "
        "| margin, largest | tied for the loop | choices not the best | largest regret | in bf16 steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for found in results:
        parts: Any = found.partings
        ulps = [p.ulps for p in parts]
        there = ["", "", "", ""]
        if parts:
            there = [f"{statistics.median(p.step for p in parts):g}", f"{statistics.median(ulps):.2g}, {max(ulps):.2g}",
                     f"{max(p.margin for p in parts):.2g}",
                     f"{sum(p.tied for p in parts)} of {len(parts)}"]  # fmt: skip
        share = f"{len(parts)} of {found.rows} ({len(parts) / found.rows:.1%})"
        last = [f"{found.not_best} of {found.steps}", f"{found.regret:.2g}", f"{found.regret_ulps:.2g}"]
        lines.append("| " + " | ".join([found.dtype, share, *there, *last]) + " |")
    return "\n".join(lines)


def _logits(model: LLaMAHF, text: tuple[Tensor, Tensor], codes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (l, v - 1) of each of `codes` (l,) after those before it, by one un-cached pass; END is not allowed.

    First with the head in float32, then in the model's dtype as the loop has them.
    """
    features, mask = text
    n, config = features.shape[1], model.config
    row = torch.cat([torch.full((n,), config.pad_id, device=codes.device), codes[:-1]])[None]
    hidden = model.hidden(row, features, mask)[0, n - 1 :]
    exact = hidden.float() @ model.lm_head.weight[: config.vocab_size - 1].float().T
    rounded = model.head(hidden).float()
    for logits in (exact, rounded):
        logits[:, config.end_id] = -torch.inf
    return exact, rounded
