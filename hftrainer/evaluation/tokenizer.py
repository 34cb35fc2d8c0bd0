"""What a tokenizer does to real clips, in figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.metrics import frechet_distance
from hftrainer.evaluation.physical import aggregate_physical_metrics, compute_physical_metrics
from hftrainer.evaluation.reconstruction import acceleration_error, foot_slide, mpjpe, pa_mpjpe
from hftrainer.interfaces import Evaluator, MotionTokenizer
from hftrainer.motion.representation.base import Representation, get_representation

_UNIT = 4  # frames that lengths are rounded down to before embedding, as every protocol does


def evaluate_tokenizer(
    tokenizer: MotionTokenizer, motions: Iterable[np.ndarray], *, evaluator: Evaluator | None = None
) -> dict[str, float]:
    """Reconstruct clips (T, width), one by one, and compare; frames past the last complete code are not counted.

    "MPJPE mm" is the mean over clips of each clip's mean over its frames; "over frames" the published protocol's mean
    over all frames; slide and jitter are ratios to the clips' own, by the published formulas; "standing feet" is how
    far feet slide a frame where the real ones stand. With an `evaluator`, FID between embeddings of the clips and of
    their reconstructions, both cut to the frames that it reads, rounded down to four.
    """
    seen = _Seen(get_representation(tokenizer.representation), clips=[] if evaluator is not None else None)
    for motion in motions:
        length = len(motion) // tokenizer.frames_per_code * tokenizer.frames_per_code
        if length == 0:
            raise ValueError(f"a clip of {len(motion)} frames is shorter than one code; remove it")
        (codes,) = tokenizer.encode([np.asarray(motion, dtype=np.float32)])
        (made,) = tokenizer.decode([codes])
        seen.add(made[:length], motion[:length], codes)
    if not seen.errors:
        raise ValueError("no clip to reconstruct")
    perplexity, active = codebook_use(np.concatenate(seen.codes), tokenizer.codebook_size)
    figures = {**seen.figures(), "codes used": active, "perplexity": perplexity}
    if evaluator is not None:
        figures |= _embedded(seen, evaluator)
    return figures


def codebook_use(codes: NDArray[np.integer], size: int) -> tuple[float, float]:
    """Perplexity exp(-sum p log p) of codes (n,), and the share of the `size` codes that occur."""
    counts = np.unique(codes, return_counts=True)[1]
    p = counts / counts.sum()
    return float(np.exp(-(p * np.log(p)).sum())), len(counts) / size


@dataclass
class _Seen:
    """What is kept of each clip."""

    motion_format: Representation
    errors: list[np.ndarray] = field(default_factory=list)
    aligned: list[np.ndarray] = field(default_factory=list)
    accelerations: list[np.ndarray] = field(default_factory=list)
    made: list[dict[str, float]] = field(default_factory=list)
    real: list[dict[str, float]] = field(default_factory=list)
    standing: list[tuple[float, float]] = field(default_factory=list)
    codes: list[NDArray[np.integer]] = field(default_factory=list)
    clips: list[tuple[np.ndarray, np.ndarray]] | None = None  # the motions themselves, where an evaluator wants them

    def add(self, made: np.ndarray, real: np.ndarray, codes: NDArray[np.integer]) -> None:
        fps = self.motion_format.fps
        got, want = (self.motion_format.to_joints(m.astype(np.float64)) for m in (made, real))
        self.errors.append(mpjpe(got, want))
        self.aligned.append(pa_mpjpe(got, want))
        self.accelerations.append(acceleration_error(got, want))
        self.codes.append(codes)
        if len(real) >= 8:
            self.made.append(compute_physical_metrics(got))
            self.real.append(compute_physical_metrics(want))
            self.standing.append((foot_slide(got, want, fps=fps), foot_slide(want, fps=fps)))
        if self.clips is not None:
            self.clips.append((made, real))

    def figures(self) -> dict[str, float]:
        clips = np.array([error.mean() for error in self.errors])
        frames = np.concatenate(self.errors)
        made, real = aggregate_physical_metrics(self.made), aggregate_physical_metrics(self.real)
        slides = np.nanmean(np.array(self.standing), axis=0)
        return {
            "clips": float(len(clips)),
            "MPJPE mm": 1000 * float(clips.mean()),
            "MPJPE mm, median clip": 1000 * float(np.median(clips)),
            "MPJPE mm, 95th percentile of clips": 1000 * float(np.percentile(clips, 95)),
            "MPJPE mm, largest of a frame": 1000 * float(frames.max()),
            "MPJPE mm, over frames": 1000 * float(frames.mean()),
            "PA-MPJPE mm, over frames": 1000 * float(np.concatenate(self.aligned).mean()),
            "acceleration error mm a frame², over frames": 1000 * float(np.concatenate(self.accelerations).mean()),
            "Slide, reconstructed / real": _ratio(made["Slide"], real["Slide"]),
            "Jitter, reconstructed / real": _ratio(made["Jitter"], real["Jitter"]),
            "standing feet, mm a frame, reconstructed": 1000 * float(slides[0]),
            "standing feet, mm a frame, real": 1000 * float(slides[1]),
        }


def _ratio(made: float, real: float) -> float:
    """NaN for clips whose feet never slide."""
    return made / real if real else float("nan")


def _embedded(seen: _Seen, evaluator: Evaluator) -> dict[str, float]:
    """FID of reconstruction, on embeddings as they are and on unit vectors."""
    assert seen.clips is not None
    lengths = [min(len(real), evaluator.max_frames or len(real)) // _UNIT * _UNIT for _, real in seen.clips]
    kept = [place for place, length in enumerate(lengths) if length]
    counts = [lengths[place] for place in kept]
    made, real = (evaluator.encode_motions([seen.clips[i][which] for i in kept], counts) for which in (0, 1))
    return {
        "clips embedded": float(len(kept)),
        "FID of reconstruction": frechet_distance(real, made),
        "FID-unit of reconstruction": frechet_distance(real, made, normalize=True),
    }
