"""``hftrainer bench data``: opening a packed set, its rows and batches a second, and one file a clip beside it."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from hftrainer.bench.measure import Result, Way, interleave, machine, machine_line, save, table
from hftrainer.data.order import PlanSampler
from hftrainer.data.synthetic.rows import write_synthetic_rows
from hftrainer.data.tokens.packed import PackedTextTokens, PackedTextTokensConfig
from hftrainer.data.tokens.table import TokenRows


@dataclass(frozen=True)
class DataBench:
    """`rows` made-up clips, or the packed set `root`; `reads` random rows and `batches` batches are read a round.

    `files`: clips that are also written one file each, as they lie in a dataset folder, and read in that way.
    """

    rows: int = 2_000_000
    root: str | None = None
    batch: int = 16
    reads: int = 20_000
    batches: int = 500
    files: int = 2_000
    workers: tuple[int, ...] = (0, 2)
    rounds: int = 5


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench data``."""
    workers = tuple(int(count) for count in args.workers.split(",") if count)
    bench = DataBench(args.rows, args.root, args.batch, args.reads, args.batches, args.files, workers, args.rounds)
    run(bench, args.json)
    return 0


def run(bench: DataBench, json_path: str | None = None) -> list[Result]:
    """Measure, print the table, write the figures."""
    torch.set_num_threads(1)  # the figures are those of a core
    with tempfile.TemporaryDirectory(prefix="hftrainer-bench-") as temporary:
        root, built = Path(bench.root or Path(temporary) / "packed"), None
        if bench.root is None:
            start = time.perf_counter()
            write_synthetic_rows(root, bench.rows)
            built = time.perf_counter() - start
        opened = [_seconds(lambda: open_set(root, bench.batch)) for _ in range(bench.rounds)]
        source, train, plan = open_set(root, bench.batch)
        rng = np.random.default_rng(0)
        ways = _reading(bench, train, rng, Path(temporary))
        ways += [_feeding(bench, source, train, plan, workers) for workers in bench.workers]
        results = interleave(ways, bench.rounds)
        facts = {
            "rows": len(train), "entries": len(source.tokens), "codes": len(source.tokens.table.codes),
            "bytes": source.tokens.bytes, "build_seconds": built, "open_seconds": opened,
        }  # fmt: skip
        _print(bench, facts, results)
    save(json_path, "data", asdict(bench), results, machine=machine(torch.device("cpu")), **facts)
    return results


def open_set(root: Path, batch: int) -> tuple[PackedTextTokens, TokenRows, Any]:
    """What has to happen before the first step: open, and plan the first epoch."""
    source = PackedTextTokens(PackedTextTokensConfig(root=str(root), batch_size=batch))
    train = source.train()
    plan = source.plan(train, seed=0)
    plan.batch(0)
    return source, train, plan


def _reading(bench: DataBench, train: TokenRows, rng: np.random.Generator, folder: Path) -> list[Way]:
    """Random rows: a file each, one at a time, and in batches of 16 and of 256."""
    items = np.stack(
        [rng.integers(len(train), size=bench.reads), rng.integers(1 << 62, size=bench.reads)], axis=1
    ).tolist()

    def in_batches(size: int) -> Callable[[], None]:
        def read() -> None:
            for start in range(0, len(items), size):
                train.__getitems__(items[start : start + size])

        return read

    few = max(1, bench.reads // 10)
    ways = [
        Way("packed, one row at a time", lambda: [train[item] for item in items[:few]], few),
        Way(f"packed, batches of {bench.batch}", in_batches(bench.batch), bench.reads),
        Way("packed, batches of 256", in_batches(256), bench.reads),
    ]
    if bench.files:
        clips = _write_files(folder / "files", train, min(bench.files, len(train)))
        order = rng.integers(len(clips), size=few).tolist()
        ways.insert(0, Way("one file a clip", lambda: [_read_files(clips[i]) for i in order], len(order)))
    return ways


def _write_files(folder: Path, train: TokenRows, count: int) -> list[Path]:
    folder.mkdir()
    stems = [folder / f"{i:07d}" for i in range(count)]
    for i, stem in enumerate(stems):
        batch = train.plain([i])
        np.save(stem.with_suffix(".npy"), batch.codes.numpy().astype(np.int32))
        stem.with_suffix(".txt").write_text(batch.captions[0] + "\n")
    return stems


def _read_files(stem: Path) -> tuple[str, Any]:
    return stem.with_suffix(".txt").read_text(), np.load(stem.with_suffix(".npy"), allow_pickle=False)


def _feeding(bench: DataBench, source: PackedTextTokens, train: TokenRows, plan: Any, workers: int) -> Way:
    """Planned batches through the data loader, as training gets them; workers are started once."""
    collate: Any = source.collate  # rows come as a batch (`__getitems__`), which torch's types do not know
    loader = DataLoader(
        train, batch_sampler=PlanSampler(plan), collate_fn=collate, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    feed = iter(loader)

    def read() -> None:
        for _ in islice(feed, bench.batches):
            pass

    return Way(f"data loader, {workers} workers", read, bench.batches * bench.batch)


def _print(bench: DataBench, facts: dict[str, Any], results: list[Result]) -> None:
    opened, built = facts["open_seconds"], facts["build_seconds"]
    middle = statistics.median(opened)
    spread = (max(opened) - min(opened)) / middle
    print(f"{facts['rows']:,} rows of {facts['entries']:,} entries, {facts['codes']:,} codes, batch {bench.batch}")
    print(f"{machine_line(machine(torch.device('cpu')))}\n")
    if built is not None:
        print(f"built in          {built:.1f} s")
    print(f"on disk           {facts['bytes'] / 1e6:,.1f} MB ({facts['bytes'] / facts['entries']:.0f} bytes an entry)")
    print(f"opened, planned   {middle:.3f} s (median of {len(opened)}, spread {spread:.0%})\n")
    print(table(results, "rows"))


def _seconds(what: Callable[[], object]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start
