"""``hftrainer bench stream``: whether motion is made faster than it plays, without stalls, jumps or growing memory.

Printed when they are known: what a frame depends on, the first frames, seams of timelines against real motion, whether
their parts are what was asked for, and a live session whose prompt keeps changing, with its memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftrainer.arrays import read_npy
from hftrainer.bench.following import following
from hftrainer.bench.measure import machine
from hftrainer.bench.processes import memory
from hftrainer.bench.seams import at_seams, elsewhere, real_limits
from hftrainer.files import write_json
from hftrainer.readers import FileError
from hftrainer.requests import SamplingParams
from hftrainer.zoo.load import load_pipeline, locate

Figures = dict[str, Any]
DRAWN = SamplingParams(do_sample=True, temperature=1.0, top_p=0.95)
_FLOAT_NOISE = 1e-6  # metres: below it, a frame does not depend on a code
_FOLLOWED = 0.7  # of what prompts give by themselves
_BOUND = 1.0  # MiB an hour by which the memory of a live session may grow


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench stream``; 1 if a bar is missed."""
    if args.seconds < 1.5 or len(args.prompt) < 2:
        raise ValueError(
            f"give two prompts or more, of at least 1.5 seconds, got {len(args.prompt)} of {args.seconds:g}"
        )
    pipe = load_pipeline(args.model, device=args.device)
    real = read_clips(args.real, args.clips) if args.real else None
    figures: Figures = {"bench": "stream", "model": args.model, "machine": machine(torch.device(args.device))}
    missed: list[str] = []
    parts: dict[str, Callable[[], Any]] = {
        "depends": lambda: depends(pipe, args.prompt[0], args.tries),
        "first": lambda: first_frames(pipe, args.prompt[0], args.tries),
        "seams": lambda: seams(pipe, args.prompt, args.seconds, args.timelines, real, missed),
        "follows": lambda: follows(pipe, args, missed),
        "live": lambda: live(pipe, args.prompt, args.minutes, args.seconds, missed),
    }
    for name, part in parts.items():
        figures[name] = part()
        print(json.dumps({name: figures[name]}), flush=True)
        if args.json:
            write_json(args.json, {**figures, "missed": missed})
    print("missed: " + "; ".join(missed) if missed else "no bar is missed")
    return int(bool(missed))


def read_clips(folder: Path, most: int) -> Iterator[np.ndarray]:
    """Up to `most` motions of a dataset folder, evenly spread over its sorted names."""
    files = sorted((folder / "motion_data").glob("*.npy"))
    if not files:
        raise FileError(f"{folder} has no motion_data/*.npy; give a dataset folder, see docs/data.md")
    return (read_npy(path) for path in files[:: max(1, len(files) // most)][:most])


def depends(pipe: Any, prompt: str, tries: int) -> Figures:
    """How far joints of a code's frames move, in mm, when the code so many places later is another one.

    `measured_radius`: for each frame of a code, the furthest code that changes it by more than rounding does.
    """
    radius, form, per_code = pipe.lookahead_codes, pipe.motion_format, pipe.frames_per_code
    generator, at = torch.Generator().manual_seed(0), pipe.lookahead_codes + 2
    codes = pipe(prompt, seconds=(2 * at + 8) * per_code / form.fps, sampling=DRAWN, progress=iter)[0].tokens.tolist()
    plain, part = _posed(pipe._decode_all(codes), form), slice(at * per_code, (at + 1) * per_code)
    ahead = np.zeros((radius + 2, tries, per_code))
    for offset, attempt in itertools.product(range(1, radius + 3), range(tries)):
        other = list(codes)
        other[at + offset] = int(torch.randint(pipe.bundle.vqvae.codebook_size, (1,), generator=generator))
        apart = _posed(pipe._decode_all(other), form)[part] - plain[part]
        ahead[offset - 1, attempt] = np.linalg.norm(apart, axis=-1).max(axis=1)
    table = [
        {"codes": offset, "median_mm": 1e3 * float(np.median(moved)), "largest_mm": 1e3 * float(moved.max())}
        for offset, moved in enumerate(ahead, start=1)
    ]
    reach = [int(np.flatnonzero(frame > _FLOAT_NOISE).max(initial=-1)) + 1 for frame in ahead.max(axis=1).T]
    return {"radius": radius, "measured_radius": reach, "ahead": table}


def first_frames(pipe: Any, prompt: str, tries: int) -> list[Figures]:
    """Seconds until a stream gives its first frames, and how far these are from those of the complete motion."""
    results, form = [], pipe.motion_format
    list(itertools.islice(pipe.stream(prompt), 1))  # layouts and kernels are set up once
    motions = [pipe(prompt, seed=seed, seconds=4.0, sampling=DRAWN, progress=iter)[0].motion for seed in range(tries)]
    for lookahead in sorted({pipe.lookahead_codes, 13, 10, 7}, reverse=True):
        waits, cpu, off = [], [], []
        for seed, whole in enumerate(motions):
            start, busy = time.perf_counter(), time.process_time()
            stream = pipe.stream(prompt, seed=seed, seconds=4.0, sampling=DRAWN, lookahead=lookahead)
            given = [next(stream)]
            waits.append(time.perf_counter() - start)
            cpu.append(time.process_time() - busy)
            frames = np.concatenate([*given, *stream])
            off.append(np.linalg.norm(_posed(frames, form) - _posed(whole, form), axis=-1).ravel())
        apart = 1e3 * np.concatenate(off)
        results.append(
            {
                "lookahead": lookahead,
                "codes": lookahead + 1,
                "seconds": float(np.median(waits)),
                "cpu_seconds": float(np.median(cpu)),
                "median_mm": float(np.median(apart)),
                "largest_mm": float(apart.max()),
            }
        )
    return results


def seams(
    pipe: Any, prompts: Sequence[str], seconds: float, count: int, real: Any, missed: list[str]
) -> Figures:  # fmt: skip
    """Timelines of all prompts with seeds 0, 1, ...: the fastest joint near each seam."""
    form = pipe.motion_format
    per_part = round(seconds * form.fps)
    places = [per_part * part for part in range(1, len(prompts))]
    found, away = [], []
    for seed in range(count):
        made = pipe.timeline([(prompt, seconds) for prompt in prompts], seed=seed, sampling=DRAWN).motion
        found += at_seams(made, places, form)
        away.append(elsewhere(made, places, form))
    figures: Figures = {"timelines": count, "seams": len(found), "prompts": list(prompts), "part_seconds": seconds}
    for name in ("speed", "acceleration"):
        values = [one[name] for one in found]
        figures[name] = {"median": float(np.median(values)), "largest": max(values), "all": values,
                         "median_elsewhere": float(np.median([one[name] for one in away]))}  # fmt: skip
    if real is not None:
        figures["real"] = limits = real_limits(real, form)
        for name in ("speed", "acceleration"):
            figures[name]["within"] = float(np.mean(np.array(figures[name]["all"]) <= limits[name]))
        if figures["speed"]["largest"] > limits["speed"]:
            missed.append(f"a joint at a seam at {figures['speed']['largest']:.1f} m/s, real {limits['speed']:.1f}")
    return figures


def follows(pipe: Any, args: argparse.Namespace, missed: list[str]) -> Figures | None:
    """Whether timelines do what their parts ask for; None for a model without an action classifier."""
    classifier = locate(args.model)[0] / "actions"
    if not classifier.is_dir():
        return None
    found = following(pipe, classifier, args.prompt, args.seconds, args.timelines, DRAWN)
    if found["in_timelines"] < _FOLLOWED * found["by_itself"]:
        missed.append(
            f"{found['in_timelines']:.0%} of parts follow their prompt, {found['by_itself']:.0%} by themselves"
        )
    return found


def live(pipe: Any, prompts: Sequence[str], minutes: float, seconds: float, missed: list[str]) -> Figures:
    """A session of `minutes` of motion, as fast as it goes; another prompt every `seconds` of motion."""
    fps, wanted = pipe.motion_format.fps, round(60 * minutes * pipe.motion_format.fps)
    session = pipe.live(sampling=DRAWN)
    session.say(prompts[0])
    # frames given, seconds waited for them, whether a prompt had changed, memory, seconds of this process: room that
    # does not grow meanwhile
    rows = np.full((wanted // pipe.frames_per_code + 2, 5), np.nan)
    pending, given, said, changed = 0, 0, 0, False
    begin, busy = time.perf_counter(), time.process_time()
    last, worked = begin, busy
    for row, frames in zip(rows, session, strict=False):
        given += len(frames)
        row[:] = given, time.perf_counter() - last, changed, memory()["resident"], time.process_time() - worked
        if given >= wanted:
            break
        if changed := given >= (said + 1) * seconds * fps:
            said += 1
            pending = max(pending, session.pending)
            session.say(prompts[said % len(prompts)])
        last, worked = time.perf_counter(), time.process_time()
    wall, cpu = time.perf_counter() - begin, time.process_time() - busy
    rows = rows[~np.isnan(rows[:, 0])][1:]  # the first frames wait for all codes that they depend on
    plays, waits, change = np.diff(rows[:, 0], prepend=rows[0, 0]) / fps, rows[:, 1], rows[:, 2] > 0
    plays[0] = plays[1]
    figures: Figures = {
        "frames": given,
        "frames_per_second": given / wall,
        "frames_per_cpu_second": given / cpu,
        "changes": said,
        "codes_until_a_prompt_shows": pending,
        "chunk_plays_ms": 1e3 * float(np.median(plays)),
        "median_wait_ms": 1e3 * float(np.median(waits[~change])),
        "longest_wait_ms": 1e3 * float(waits[~change].max()),
        "median_wait_at_change_ms": 1e3 * float(np.median(waits[change])) if said else None,
        "longest_wait_at_change_ms": 1e3 * float(waits[change].max()) if said else None,
        "longest_cpu_ms": 1e3 * float(rows[~change, 4].max()),
        "longest_cpu_at_change_ms": 1e3 * float(rows[change, 4].max()) if said else None,
        "stalls_at_change": int((waits > plays)[change].sum()),
        "memory_mib_per_hour": growth(rows[:, 0], rows[:, 3]) * fps * 3600 / 2**20,
        "resident_mib": float(rows[-1, 3]) / 2**20,
    }
    if figures["frames_per_second"] < fps:
        missed.append(f"{figures['frames_per_second']:.1f} frames a second, {fps:g} play")
    if figures["codes_until_a_prompt_shows"] > 16:
        missed.append(f"a new prompt shows after {figures['codes_until_a_prompt_shows']} codes")
    if figures["stalls_at_change"]:
        missed.append(f"{figures['stalls_at_change']} of {said} changes took longer than frames play")
    if minutes >= 5 and figures["memory_mib_per_hour"] > _BOUND:
        missed.append(f"memory grows by {figures['memory_mib_per_hour']:.1f} MiB an hour")
    return figures


def growth(frames: np.ndarray, memories: np.ndarray) -> float:
    """Bytes a frame by which memory grows, over the second half, when everything has been met once: least squares."""
    half = len(frames) // 2
    return float(np.polyfit(frames[half:], memories[half:], 1)[0]) if len(frames) > 4 else 0.0


def _posed(motion: np.ndarray, form: Any) -> np.ndarray:
    """Joints relative to the root, so that one early difference in heading does not count in all later frames."""
    joints = np.asarray(form.to_joints(motion), dtype=np.float64)
    return joints - joints[:, :1]  # type: ignore[no-any-return]
