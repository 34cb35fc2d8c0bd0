"""Evaluation while a model trains: figures of motions that are in memory, under the names that reports have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation.physical import (
    KEYS,
    aggregate_physical_metrics,
    compute_physical_metrics,
    table_scaled_physical_metrics,
)
from hftrainer.evaluation.protocols.schema import load_protocol
from hftrainer.evaluation.protocols.scoring import score_embeddings
from hftrainer.motion.representation.base import Representation

Floats = NDArray[np.floating[Any]]

PROTOCOL = "hftrainer-v1"
_OF_BOTH = ("FID", "R@1", "R@2", "R@3", "MM-Dist", "Diversity", *KEYS)
FIGURES = ("FID-unit", *_OF_BOTH, *(f"real/{name}" for name in _OF_BOTH))
_FRAMES = 4  # that second differences need


def retrieval_figures(
    text: Floats,
    real: Floats,
    generated: Floats,
    captions: Sequence[str],
    *,
    pool: int = 32,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Figures of embeddings (n, d), n at least 2, by the rules of hftrainer-v1 with pools for as few as there are.

    "FID", "R@1", ... of the generated motions; "real/R@1", ... of the real ones, of which "real/FID" is that of one
    random half against the other: what chance makes of so few clips.
    """
    n = len(captions)
    rules = [
        f"batches.size={max(2, min(pool, n))}", f"repeats={repeats}", f"seed={seed}",
        f"metrics.diversity_pairs={max(1, min(300, n // 2))}",
    ]  # fmt: skip
    rows = score_embeddings(load_protocol(PROTOCOL, rules), text, real, generated, captions)
    out = {name: figure["mean"] for name, figure in rows["predicted"].items() if name in FIGURES}
    out |= {f"real/{name}": figure["mean"] for name, figure in rows["real"].items() if f"real/{name}" in FIGURES}
    if n >= _FRAMES:  # halves of at least two
        out["real/FID"] = rows["split_half"]["FID"]["mean"]
    return out


def physical_figures(motions: Sequence[Floats], kind: Representation, prefix: str = "") -> dict[str, float]:
    """The published physical metrics of clips (T, width), in the units of their table; those too short are left out."""
    bodies = [compute_physical_metrics(kind.to_joints(clip)) for clip in motions if len(clip) >= _FRAMES]
    scaled = table_scaled_physical_metrics(aggregate_physical_metrics(bodies))
    return {f"{prefix}{name}": scaled[name] for name in KEYS}
