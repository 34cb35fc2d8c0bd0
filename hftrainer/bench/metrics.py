"""``hftrainer bench metrics``: what evaluation costs, on made clips of 40 to 300 frames, as many as in HumanML3D-272.

The evaluator has the released sizes and random weights, on which its cost does not depend. FID is taken beside scipy's
matrix square root, the published way, and the two values are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hftrainer.bench.measure import Result, Way, interleave, machine, machine_line, save, table
from hftrainer.data.synthetic.motions import CAPTIONS, make_motion
from hftrainer.evaluation.metrics import frechet_distance
from hftrainer.evaluation.physical import compute_physical_metrics
from hftrainer.evaluation.physical_units import physical_metrics_in_units
from hftrainer.evaluation.protocols import load_protocol
from hftrainer.evaluation.protocols.scoring import score_embeddings
from hftrainer.extras import need
from hftrainer.models.motion.motionstreamer import MotionStreamer272Config, MotionStreamer272Evaluator
from hftrainer.models.motion.motionstreamer.config import TextModelConfig
from hftrainer.motion.representation.base import DEFAULT, get_representation
from hftrainer.motion.representation.convert import motion272_to_hml263

Floats = NDArray[np.floating[Any]]
_LONGEST = 400
_COMPARED = 316  # frames of the clip that the published loop's 41 ms were taken on
_AGREE = 1e-6


@dataclass(frozen=True)
class MetricsBench:
    """`clips` clips, an evaluator `latent` wide, every part `rounds` times; FID of sets of each of `fid_widths`."""

    clips: int = 4042
    rounds: int = 3
    latent: int = 256
    layers: int = 4
    fid_widths: tuple[int, ...] = (256, 512)
    device: str = "cpu"


def main(args: argparse.Namespace) -> int:
    """``hftrainer bench metrics``."""
    run(MetricsBench(args.clips, args.rounds, device=args.device), args.json)
    return 0


def run(bench: MetricsBench, json_path: str | None = None) -> list[Result]:
    """Measure, print the table, write the figures; ``ValueError`` if the two ways to FID do not agree."""
    device = torch.device(bench.device)
    motions = clips(bench.clips)
    about = machine(device)
    frames = sum(map(len, motions))
    print(f"{bench.clips} clips, {frames} frames\n{machine_line(about)}")
    apart = {width: fid_agreement(bench.clips, width) for width in bench.fid_widths}
    results = interleave(ways(bench, motions), bench.rounds, warm_up=False)
    print(table(results, "clips"))
    for width, (ours, theirs) in apart.items():
        print(f"FID of {width} dimensions: {ours:.10g}, by scipy's sqrtm {theirs:.10g}: {ours / theirs - 1:+.1e}")
    save(json_path, "metrics", {**asdict(bench), "frames": frames}, results, machine=about, fid=apart)
    return results


def ways(bench: MetricsBench, motions: Sequence[Floats]) -> list[Way]:
    """The parts of an evaluation, each over all clips."""
    heads = 4 if bench.latent % 4 == 0 else 1
    config = MotionStreamer272Config(
        latent_dim=bench.latent, num_layers=bench.layers, num_heads=heads, ff_size=4 * bench.latent,
        text=TextModelConfig(source=None, vocab_size=200, layers=1),
    )  # fmt: skip
    evaluator = MotionStreamer272Evaluator.from_config(config).to(bench.device)
    motion_format = get_representation(DEFAULT)
    joints = [motion_format.to_joints(motion) for motion in motions]
    long = [motion_format.to_joints(make_motion(content, _COMPARED, 0)) for content in sorted(CAPTIONS)][:8]
    text, real, made = embeddings(bench.clips, bench.latent)
    n, captions = bench.clips, [f"caption {number}" for number in range(bench.clips)]
    protocol = load_protocol("hftrainer-v1", [] if n >= 32 else [f"batches.size={n}"])
    out = [
        Way("evaluator, motions", lambda: evaluator.encode_motions(motions), n),
        Way("metrics, 20 repeats", lambda: score_embeddings(protocol, text, real, made, captions), n),
        Way("physical metrics", lambda: [compute_physical_metrics(clip) for clip in joints], n),
        Way(
            "physical metrics in units",
            lambda: [physical_metrics_in_units(clip, fps=motion_format.fps) for clip in joints],
            n,
        ),
        Way(f"physical metrics, {_COMPARED} frames", lambda: [compute_physical_metrics(c) for c in long], len(long)),
        Way("272 to 263", lambda: [motion272_to_hml263(motion) for motion in motions], n),
    ]
    for width in bench.fid_widths:
        _, a, b = embeddings(bench.clips, width)
        out.append(Way(f"FID, {width} dimensions", _call(frechet_distance, a, b), n))
        out.append(Way(f"FID by scipy's sqrtm, {width} dimensions", _call(scipy_fid, a, b), n))
    return out


def clips(count: int) -> list[Floats]:
    """Motions (t, width) of 40 to 300 frames, cut out of a few made ones."""
    rng = np.random.default_rng(0)
    whole = [make_motion(content, _LONGEST, seed) for seed, content in enumerate(sorted(CAPTIONS))]
    motions: list[Floats] = []
    for number in range(count):
        frames = int(rng.integers(40, 301))
        start = int(rng.integers(0, _LONGEST - frames + 1))
        motions.append(whole[number % len(whole)][start : start + frames].astype(np.float32))
    return motions


def embeddings(count: int, width: int) -> tuple[Floats, Floats, Floats]:
    """Made embeddings (n, width) of texts, real and generated motions."""
    rng = np.random.default_rng(0)
    text, real = (rng.normal(size=(count, width)) for _ in range(2))
    return text, real, real + rng.normal(size=real.shape)


def fid_agreement(count: int, width: int) -> tuple[float, float]:
    """FID by both ways, which must agree to 1e-6."""
    count = max(count, 2 * width)  # of fewer clips the covariance is singular, and sqrtm is the one that is off
    _, a, b = embeddings(count, width)
    ours, theirs = frechet_distance(a, b), scipy_fid(a, b)
    if abs(ours - theirs) > _AGREE * abs(theirs):
        raise ValueError(f"FID of {width} dimensions is {ours} by eigenvalues and {theirs} by the matrix square root")
    return ours, theirs


def scipy_fid(a: Floats, b: Floats) -> float:
    """By the matrix square root, as published."""
    linalg: Any = need("scipy.linalg", "the published way to FID")
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    apart = a.mean(axis=0) - b.mean(axis=0)
    return float(apart @ apart + np.trace(s1) + np.trace(s2) - 2 * np.trace(linalg.sqrtm(s1 @ s2)).real)


def _call(function: Callable[..., float], *arguments: Floats) -> Callable[[], float]:
    return lambda: function(*arguments)
