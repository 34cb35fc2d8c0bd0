"""What a tokenizer does to real clips, in figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from hftrainer.evaluation.metrics import frechet_distance
from hftrainer.evaluation.physical import aggregate_physical_metrics, compute_physical_metrics
from hftrainer.evaluation.reconstruction import acceleration_error, foot_slide, mpjpe, pa_mpjpe
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionstreamer.evaluator import MotionStreamer272Evaluator
from hftrainer.motion.representation.base import Representation, get_representation


@torch.inference_mode()
def evaluate_tokenizer(
    bundle: MotionMillionBundle,
    motions: Iterable[np.ndarray],
    *,
    evaluator: MotionStreamer272Evaluator | None = None,
) -> dict[str, float]:
    """Reconstruct clips (T, width), one by one, and compare; frames past the last whole code are not counted.

    "MPJPE mm" is the mean over clips of each clip's mean over its frames; "over frames" the published protocol's mean
    over all frames; slide and jitter are ratios to the clips' own, by the published formulas; "standing feet" is how
    far feet slide a frame where the real ones stand. With an `evaluator`, FID between embeddings of the clips and of
    their reconstructions, both cut to the frames that it reads, rounded down to its unit.
    """
    seen = _Seen(get_representation(bundle.representation), clips=[] if evaluator is not None else None)
    for motion in motions:
        length = len(motion) // bundle.vqvae.frames_per_code * bundle.vqvae.frames_per_code
        if length == 0:
            raise ValueError(f"a clip of {len(motion)} frames is shorter than one code; leave it out")
        batch = torch.from_numpy(np.ascontiguousarray(motion[None], dtype=np.float32)).to(bundle.device)
        out = bundle.vqvae(bundle.normalize(batch))
        seen.add(bundle.denormalize(out.motion)[0].cpu().numpy(), motion[:length], out.codes.flatten().cpu())
    if not seen.errors:
        raise ValueError("there is no clip to reconstruct")
    perplexity, active = bundle.codebook_use(torch.cat(seen.codes))
    figures = {**seen.figures(), "codes used": active, "perplexity": perplexity}
    if evaluator is not None:
        figures |= _embedded(seen, evaluator)
    return figures


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
    codes: list[torch.Tensor] = field(default_factory=list)
    clips: list[tuple[np.ndarray, np.ndarray]] | None = None  # the motions themselves, where an evaluator wants them

    def add(self, made: np.ndarray, real: np.ndarray, codes: torch.Tensor) -> None:
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
            "Slide, reconstructed / real": made["Slide"] / real["Slide"],
            "Jitter, reconstructed / real": made["Jitter"] / real["Jitter"],
            "standing feet, mm a frame, reconstructed": 1000 * float(slides[0]),
            "standing feet, mm a frame, real": 1000 * float(slides[1]),
        }


def _embedded(seen: _Seen, evaluator: MotionStreamer272Evaluator) -> dict[str, float]:
    """FID of reconstruction, on embeddings as they are and on unit vectors."""
    assert seen.clips is not None
    unit, longest = evaluator.config.unit_length, evaluator.config.max_motion_length
    lengths = [min(len(real), longest) // unit * unit for _, real in seen.clips]
    kept = [place for place, length in enumerate(lengths) if length]
    counts = [lengths[place] for place in kept]
    made, real = (evaluator.encode_motions([seen.clips[i][which] for i in kept], counts) for which in (0, 1))
    return {
        "clips embedded": float(len(kept)),
        "FID of reconstruction": frechet_distance(real, made),
        "FID of reconstruction, unit vectors": frechet_distance(real, made, normalize=True),
    }
