"""Memory and handles of long runs: what a job that goes on for hours would take.

    python -m tests.faults.long_runs generate --count 10000
    python -m tests.faults.long_runs evaluate --count 1000
    python -m tests.faults.long_runs train --count 600

The first fifth of a run warms up; from then on memory that a line through its samples says is gained an item, times
the items of a long run, must stay below `MOST`; handles, threads and Python's objects must not grow.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MOST = 50 << 20  # bytes that a whole long run may gain
GROWN_OBJECTS = 2000  # of a few hundred thousand
SAMPLES = 50
Step = Callable[[int], None]


def sample() -> dict[str, int]:
    """Resident bytes, open handles, threads and objects of this process."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    handles = len(os.listdir("/proc/self/fd"))
    return {"rss": resident, "handles": handles, "threads": threading.active_count(), "objects": len(gc.get_objects())}


def watch(step: Step, count: int) -> list[dict[str, int]]:
    """Samples over `count` items; `step(n)` makes the items from n on that belong to one call."""
    samples = []
    for number in range(SAMPLES):
        first, last = number * count // SAMPLES, (number + 1) * count // SAMPLES
        for item in range(first, last):
            step(item)
        samples.append({"item": last, **sample()})
    return samples


def growth(samples: list[dict[str, int]]) -> dict[str, float]:
    """Bytes an item by a line through the samples after the first fifth, and what else is more than it was."""
    later = samples[len(samples) // 5 :]
    items, rss = ([row[key] for row in later] for key in ("item", "rss"))
    slope = float(np.polyfit(items, rss, 1)[0])
    more = {key: later[-1][key] - later[0][key] for key in ("handles", "threads", "objects")}
    return {"bytes_an_item": round(slope, 1), "rss_mb": round(rss[-1] / 1e6, 1), **more}


def check(samples: list[dict[str, int]], long_run: int) -> dict[str, float]:
    """Raise ``AssertionError`` for what would not stay within its bounds over `long_run` items."""
    found = growth(samples)
    assert found["bytes_an_item"] * long_run < MOST, found
    assert found["handles"] <= 0, found
    assert found["threads"] <= 0, found
    assert found["objects"] < GROWN_OBJECTS, found
    return {**found, "items": samples[-1]["item"], "long_run": long_run}


def generating(place: Path) -> Step:
    """Ten motions of the tiny model a call, new prompts and seeds each time, with their .npy files."""
    from hftrainer.pipelines.base import pipeline_of
    from hftrainer.pipelines.outputs import write_files
    from hftrainer.requests import SamplingParams
    from tests.tiny import SENTENCES, make_tiny_bundle

    pipeline = pipeline_of(make_tiny_bundle())
    sampling = SamplingParams(do_sample=True, temperature=1.0)

    def step(item: int) -> None:
        if item % 10:
            return
        rows = [(f"{SENTENCES[n % 7]}, {item + n}", item + n) for n in range(10)]
        for number, made in enumerate(pipeline.generate_rows(rows, seconds=0.5, sampling=sampling, truncate=True)):
            write_files(place / f"{item % 100 + number}", made, ("npy",), raw=True)

    return step


def evaluating(place: Path) -> Step:
    """A batch of eight motions and texts through the evaluator a call; its cache is smaller than what comes by."""
    from tests.tiny import SENTENCES, tiny_evaluator

    evaluator, rng = tiny_evaluator(), np.random.default_rng(0)
    motion = rng.normal(size=(24, 272)).astype(np.float32)

    def step(item: int) -> None:
        evaluator.encode_motions([motion + np.float32(item * 8 + n) for n in range(8)])
        evaluator.encode_texts([f"{SENTENCES[n % 7]} {item * 8 + n}" for n in range(8)])
        for cache in evaluator._caches.values():
            cache.budget = 50_000

    return step


def training(place: Path, count: int) -> list[dict[str, int]]:
    """Samples from a thread while the tiny tokenizer trains; items are optimizer steps."""
    from hftrainer.cli import main
    from hftrainer.data.synthetic.motions import write_dataset
    from hftrainer.training.task import Task

    write_dataset(place / "data", clips=24, seed=0)
    samples: list[dict[str, int]] = []
    every, seen = max(1, count // SAMPLES), [0]
    original = Task.on_train_batch_end

    def on_train_batch_end(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        seen[0] += 1
        if seen[0] % every == 0:
            samples.append({"item": seen[0], **sample()})

    Task.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    line = ["train", "configs/gotozero/debug_tokenizer.yaml", f"data.root={place / 'data'}", f"output_dir={place}/run"]
    more = [f"trainer.max_steps={count}", f"trainer.checkpoint_every_n_steps={count // 5}", "trainer.accelerator=cpu"]
    assert main([*line, *more, f"trainer.val_every_n_steps={count // 5}", "trainer.progress_bar=false"]) == 0
    return samples


def main() -> int:
    """One line of JSON with what was measured; an ``AssertionError`` for what grows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["generate", "evaluate", "train"])
    parser.add_argument("--count", type=int, required=True)
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place, long_run = Path(folder), args.count
        if args.job == "train":
            samples = training(place, args.count)
            seconds = time.monotonic() - begun
            long_run = int(args.count * max(1.0, 3600 / seconds))  # as many as an hour takes
        else:
            samples = watch((generating if args.job == "generate" else evaluating)(place), args.count)
        print(json.dumps({"job": args.job, **check(samples, long_run)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
