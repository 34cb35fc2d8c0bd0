"""``hftrainer bench fit``: how near fitted motions are to the positions they come from, and how still feet stand.

Three ways a clip: its raw positions, the fit, and the fit with locked feet. Distances are those of all joints in all
frames; other figures are taken clip by clip, and the table has their median and worst.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.defaults import DEFAULT_MODEL
from hftrainer.files import write_json
from hftrainer.motion.body import Body, BodyMotion, body_of, measure, read_body, write_body
from hftrainer.motion.contacts import TOES, contacts
from hftrainer.motion.fit import fit
from hftrainer.motion.lock import lock_feet
from hftrainer.motion.representation import motion272
from hftrainer.motion.rotation import matrix_to_axis_angle
from hftrainer.motion.skeleton import MIRROR, PARENTS

Float = NDArray[np.float64]
Figures = dict[str, float]
LOW = 0.05  # metres: toes below may stand
BARS = {
    ("fit", "mean_mm"): 6.0, ("fit", "p95_mm"): 20.0, ("locked", "mean_mm"): 12.0, ("locked", "p95_mm"): 40.0,
    ("locked", "penetration_mm"): 5.0, ("locked", "bones_mm"): 0.1, ("locked", "ms_a_frame"): 3.0,
}  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Measure, print, write; 1 if a limit is exceeded."""
    motions = [*_read(args.motions), *(_generated(args) if args.model else [])]
    if args.measure:
        clips = [(motion272.to_joints(m), motion272.to_rotations(m)[0]) for m in motions]
        write_body(args.measure, measure(clips, args.name or Path(args.measure).parent.name))
        print(f"the body of {len(clips)} motions: {args.measure}")
        return 0
    figures = run(motions, _body(args))
    _print(figures, len(motions))
    lines = missed(figures)
    for line in lines:
        print(f"limit exceeded: {line}")
    if args.json:
        write_json(args.json, {"clips": len(motions), "ways": figures, "bars_missed": lines})
    return 1 if lines else 0


def run(motions: list[Float], body: Body) -> dict[str, Figures]:
    """Figures of the three ways over 272 motions."""
    distances: dict[str, list[Float]] = {"raw": [], "fit": [], "locked": []}
    clips: dict[str, list[Figures]] = {"raw": [], "fit": [], "locked": []}
    for motion in motions:
        joints, rotations = motion272.to_joints(motion), motion272.to_rotations(motion)[0]
        start = time.perf_counter()
        fitted = fit(joints, rotations, body)
        middle = time.perf_counter()
        locked = lock_feet(fitted)
        end = time.perf_counter()
        standing = contacts(fitted.joints, body, fps=30.0)[1:, 2:] > 0.5
        low = joints[1:, list(TOES), 1] < LOW  # the same frames for all ways
        for way, place, seconds in (
            ("raw", joints, 0.0), ("fit", fitted.joints, middle - start), ("locked", locked.joints, end - start)
        ):  # fmt: skip
            distances[way].append(np.linalg.norm(place - joints, axis=-1).ravel())
            clips[way].append(_clip_figures(place, standing, low, 1000 * seconds / len(joints)))
        clips["fit"][-1]["knee_deg"], clips["locked"][-1]["knee_deg"] = _knees(fitted), _knees(locked)
    return {way: _summed(distances[way], clips[way]) for way in clips}


def _clip_figures(joints: Float, standing: NDArray[np.bool_], low: NDArray[np.bool_], ms_a_frame: float) -> Figures:
    steps = np.linalg.norm(np.diff(joints[:, list(TOES)][..., [0, 2]], axis=0), axis=-1) * 30
    bones = np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1) * 1000
    pairs = [MIRROR[j] - 1 for j in range(1, len(MIRROR))]
    speed_up = np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).max(axis=1)
    return {
        "jerk": float(np.median(np.linalg.norm(np.diff(joints, n=3, axis=0), axis=-1)) * 30**3),
        "slide": float(steps[standing].mean()) if standing.any() else float("nan"),
        "low_slide": float(steps[low].mean()) if low.any() else float("nan"),
        "penetration_mm": max(0.0, float(-1000 * joints[..., 1].min())),
        "bones_mm": float(np.abs(bones - bones[:, pairs]).max()),
        "first_frames": float(speed_up[:3].max() >= speed_up.max()),
        "ms_a_frame": ms_a_frame,
    }


def _knees(motion: BodyMotion) -> float:
    """The largest second difference of a knee's rotation, degrees a frame a frame."""
    turns = matrix_to_axis_angle(motion.rotations[:, [4, 5]])
    return float(np.degrees(np.linalg.norm(np.diff(turns, n=2, axis=0), axis=-1)).max())


def _summed(distances: list[Float], clips: list[Figures]) -> Figures:
    millimetres = 1000 * np.concatenate(distances)
    table = {key: np.array([clip[key] for clip in clips]) for key in clips[0]}
    out = {"mean_mm": float(millimetres.mean()), "p95_mm": float(np.percentile(millimetres, 95))}
    for key, values in table.items():
        worst = key in ("penetration_mm", "bones_mm")
        mean = key in ("first_frames", "ms_a_frame")
        out[key] = float(np.nanmax(values) if worst else np.nanmean(values) if mean else np.nanmedian(values))
    return out


def missed(figures: dict[str, Figures]) -> list[str]:
    """A line for each bar that figures of `run` do not meet."""
    raw, locked = figures["raw"], figures["locked"]
    lines = [
        f"{way} {key} {figures[way][key]:.3g}, at most {bar:g}"
        for (way, key), bar in BARS.items()
        if not figures[way][key] <= bar
    ]
    return lines + [
        f"locked {key} {locked[key]:.3g}, raw {raw[key]:.3g}"
        for key in ("jerk", "slide", "low_slide")
        if not locked[key] <= raw[key]
    ]


def _print(figures: dict[str, Figures], clips: int) -> None:
    print(f"{clips} clips\n| | {' | '.join(figures)} |\n|---|{'--:|' * len(figures)}")
    names = {
        "mean_mm": "mean distance to raw positions, mm", "p95_mm": "95th percentile, mm",
        "jerk": "median jerk, m/s^3 (median of clips)", "slide": "toe speed in contact, m/s (median of clips)",
        "low_slide": "toe speed where the raw toe is below 5 cm, m/s",
        "penetration_mm": "deepest joint, mm (worst clip)",
        "bones_mm": "left against right bones, mm (worst)", "knee_deg": "sharpest knee, deg/frame^2 (median of clips)",
        "first_frames": "share of clips whose sharpest move is in the first frames",
        "ms_a_frame": "milliseconds a frame",
    }  # fmt: skip
    for key, name in names.items():
        print(f"| {name} | {' | '.join(f'{way[key]:.3g}' if key in way else '' for way in figures.values())} |")


def _body(args: argparse.Namespace) -> Body:
    if args.body:
        return read_body(args.body)
    from hftrainer.zoo.load import locate

    return body_of(locate(args.model or DEFAULT_MODEL)[0])


def _read(sources: list[Path]) -> list[Float]:
    from hftrainer.data.folder import load_motion

    files = [file for path in sources for file in (sorted(path.rglob("*.npy")) if path.is_dir() else [path])]
    return [np.asarray(load_motion(file), np.float64) for file in files]


def _generated(args: argparse.Namespace) -> list[Float]:
    from hftrainer.plain_text import read_lines
    from hftrainer.zoo.load import load_pipeline

    prompts = [line.strip() for line in read_lines(args.prompts) if line.strip()]
    times = -(-args.count // len(prompts))
    pipeline = load_pipeline(args.model)
    made = pipeline([text for _ in range(times) for text in prompts][: args.count], truncate=True)
    return [np.asarray(one.motion, np.float64) for one in made if len(one.motion) >= 4]
