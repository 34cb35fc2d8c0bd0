"""The rest skeleton of a SMPL body model that the user has; the models themselves are licensed and not here."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.representation.motion135 import rest_offsets
from hftrainer.motion.skeleton import N_JOINTS


def body_model_offsets(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Vectors (22, 3) from parent to joint in the rest pose with zero betas, from the .npz of SMPL, SMPL-H or SMPL-X.

    Reads v_template (v, 3) and J_regressor (joints, v) alone: joints are the regressor applied to the template.
    """
    arrays: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            for name in ("v_template", "J_regressor"):
                arrays[name] = np.asarray(content[name], dtype=np.float64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a body model with plain arrays v_template and J_regressor: {error}; the .pkl releases "
            "have to be converted to .npz first"
        ) from error
    template, regressor = arrays["v_template"], arrays["J_regressor"]
    if template.ndim != 2 or regressor.ndim != 2 or regressor.shape[1] != len(template) or len(regressor) < N_JOINTS:
        raise ValueError(f"{path}: v_template is {template.shape} and J_regressor {regressor.shape}; they do not fit")
    offsets: NDArray[np.float64] = rest_offsets((regressor @ template)[:N_JOINTS])
    return offsets
