"""What a tokenizer does to real clips, in figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from hftrainer.evaluation.physical import aggregate_physical_metrics, physical_metrics_from_motion
from hftrainer.evaluation.reconstruction import foot_slide, motion272_mpjpe
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.motion.representation import motion272


@torch.inference_mode()
def evaluate_tokenizer(bundle: MotionMillionBundle, motions: Iterable[np.ndarray]) -> dict[str, float]:
    """Reconstruct clips (T, 272), one by one, and compare; frames past the last whole code are not counted.

    "MPJPE mm" is the mean over clips of each clip's mean over its frames; slide and jitter are ratios to the clips'
    own, by the published formulas; "standing feet" is how far feet slide a frame where the real ones stand.
    """
    errors, frames, got, want, standing, codes = [], [], [], [], [], []
    for motion in motions:
        length = len(motion) // bundle.vqvae.frames_per_code * bundle.vqvae.frames_per_code
        batch = torch.from_numpy(motion[None]).to(bundle.device)
        out = bundle.vqvae(bundle.normalize(batch))
        made = bundle.denormalize(out.motion)[0].cpu().numpy()
        real = motion[:length]
        error = motion272_mpjpe(made, real)
        errors.append(error.mean())
        frames.append(error)
        codes.append(out.codes.flatten().cpu())
        if length >= 8:
            got.append(physical_metrics_from_motion(made, "ms272"))
            want.append(physical_metrics_from_motion(real, "ms272"))
            joints = [motion272.to_joints(m.astype(np.float64)) for m in (made, real)]
            standing.append((foot_slide(*joints), foot_slide(joints[1])))
    made_physics, real_physics = aggregate_physical_metrics(got), aggregate_physical_metrics(want)
    perplexity, active = bundle.codebook_use(torch.cat(codes))
    slides = np.nanmean(np.array(standing), axis=0)
    return {
        "clips": float(len(errors)),
        "MPJPE mm": _mm(errors),
        "MPJPE mm, median clip": 1000 * float(np.median(errors)),
        "MPJPE mm, 95th percentile of clips": 1000 * float(np.percentile(errors, 95)),
        "MPJPE mm, largest of a frame": 1000 * float(np.concatenate(frames).max()),
        "Slide, reconstructed / real": made_physics["Slide"] / real_physics["Slide"],
        "Jitter, reconstructed / real": made_physics["Jitter"] / real_physics["Jitter"],
        "standing feet, mm a frame, reconstructed": 1000 * float(slides[0]),
        "standing feet, mm a frame, real": 1000 * float(slides[1]),
        "codes used": active,
        "perplexity": perplexity,
    }


def _mm(errors: Sequence[float]) -> float:
    return 1000 * float(np.mean(errors))
