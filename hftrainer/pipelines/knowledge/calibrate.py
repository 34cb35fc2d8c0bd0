"""Weights that tell prompts like the training captions from others: logistic regression, a line for false alarms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hftrainer.pipelines.knowledge.files import FEATURES, Judgement

_ROUNDS = 50


def fit_judgement(
    features: NDArray[np.float64], known: Sequence[bool] | NDArray[np.bool_], *, false_alarms: float, ridge: float = 1.0
) -> Judgement:
    """A judgement of features (n, len(FEATURES)) by which a share of `false_alarms` of the `known` rows is not known.

    Known and other rows count the same in all. Newton's method; `ridge` is the penalty on standardized weights.
    """
    features, wanted = np.asarray(features, dtype=np.float64), np.asarray(known, dtype=bool)
    if features.shape != (len(wanted), len(FEATURES)) or wanted.all() or not wanted.any():
        raise ValueError(f"features {features.shape} of known and other prompts are needed, {len(FEATURES)} for each")
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    rows = np.c_[(features - mean) / spread, np.ones(len(features))]
    share = np.where(wanted, 0.5 / wanted.mean(), 0.5 / (~wanted).mean())
    weights, penalty = np.zeros(rows.shape[1]), ridge * np.eye(rows.shape[1])
    penalty[-1, -1] = 1e-6
    for _ in range(_ROUNDS):
        chance = 1.0 / (1.0 + np.exp(-rows @ weights))
        slope = rows.T @ (share * (chance - wanted)) + penalty @ weights
        curve = (rows * (share * chance * (1 - chance))[:, None]).T @ rows + penalty
        weights = weights - np.linalg.solve(curve, slope)
    line = float(np.quantile((rows @ weights)[wanted], false_alarms))
    scaled = weights[:-1] / spread
    return Judgement(
        {name: round(float(value), 6) for name, value in zip(FEATURES, scaled, strict=True)},
        round(float(weights[-1] - scaled @ mean - line), 6),
    )
