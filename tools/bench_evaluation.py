"""What evaluation costs on this machine: made clips of 40 to 300 frames, as many as HumanML3D-272's test set has.

    python tools/bench_evaluation.py --clips 4042 --rounds 3

Each part runs `rounds` times; printed are the shortest times. FID is timed beside scipy's matrix square root, and both
values are printed. The evaluator has random weights: what it costs does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hftrainer.data.synthetic import CAPTIONS, make_motion
from hftrainer.evaluation.metrics import evaluate_embeddings, frechet_distance
from hftrainer.evaluation.physical import compute_physical_metrics
from hftrainer.evaluation.physical_units import physical_metrics_in_units
from hftrainer.models.motion.motionstreamer import MotionStreamer272Config, MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer.config import TextModelConfig
from hftrainer.motion.representation import motion272


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4042)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the figures here too")
    args = parser.parse_args()

    motions, joints = clips(args.clips)
    config = MotionStreamer272Config(text=TextModelConfig(source=None))
    evaluator = MotionStreamer272Evaluator.from_config(config)  # the released sizes, but for the language model
    rng = np.random.default_rng(0)
    text, real = (rng.normal(size=(args.clips, config.latent_dim)) for _ in range(2))
    made = real + rng.normal(size=real.shape)
    pairs = min(300, args.clips)
    parts: dict[str, Callable[[], Any]] = {
        "evaluator, motions": lambda: evaluator.encode_motions(motions),
        "metrics, 20 repeats": lambda: evaluate_embeddings(text, real, made, repeats=20, pairs=pairs),
        "FID": lambda: frechet_distance(real, made),
        "FID by scipy's sqrtm": lambda: scipy_fid(real, made),
        "physical metrics": lambda: [compute_physical_metrics(clip) for clip in joints],
        "physical metrics in units": lambda: [physical_metrics_in_units(clip, fps=30) for clip in joints],
    }
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{args.clips} clips, {sum(map(len, motions))} frames")
    seconds = {name: min(timed(part) for _ in range(args.rounds)) for name, part in parts.items()}
    for name, value in seconds.items():
        print(f"{name:28} {value:9.3f} s   {1000 * value / args.clips:8.3f} ms a clip")
    ours, theirs = frechet_distance(real, made), scipy_fid(real, made)
    print(f"FID {ours:.9g}, by sqrtm {theirs:.9g}: {ours / theirs - 1:.1e} apart")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as stream:
            json.dump({"clips": args.clips, "seconds": seconds, "fid": [ours, theirs]}, stream, indent=2)


def clips(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Motions (t, 272) cut out of a few made ones, and their joints."""
    rng = np.random.default_rng(0)
    whole = [make_motion(content, 400, seed) for seed, content in enumerate(sorted(CAPTIONS))]
    motions = []
    for number in range(count):
        frames = int(rng.integers(40, 301))
        start = int(rng.integers(0, 400 - frames + 1))
        motions.append(whole[number % len(whole)][start : start + frames].astype(np.float32))
    return motions, [motion272.to_joints(motion) for motion in motions]


def scipy_fid(a: np.ndarray, b: np.ndarray) -> float:
    """By the matrix square root, as published."""
    from scipy.linalg import sqrtm

    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    apart = a.mean(axis=0) - b.mean(axis=0)
    return float(apart @ apart + np.trace(s1) + np.trace(s2) - 2 * np.trace(sqrtm(s1 @ s2)).real)


def timed(part: Callable[[], Any]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    part()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
