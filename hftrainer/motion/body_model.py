"""The rest skeleton of a SMPL body model that the user has; the models themselves are licensed and not here."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import Wanted, read_npz
from hftrainer.motion.representation.motion135 import rest_offsets
from hftrainer.motion.skeleton import N_JOINTS
from hftrainer.readers import FileError


def body_model_offsets(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Vectors (22, 3) from parent to joint in the rest pose with zero betas, from the .npz of SMPL, SMPL-H or SMPL-X.

    Reads only v_template (v, 3) and J_regressor (joints, v): joints are the regressor applied to the template.
    """
    wanted = Wanted(shape=(None, None), finite=True)
    try:
        arrays = read_npz(path, {name: wanted for name in ("v_template", "J_regressor")})
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path} is not a body model with plain arrays v_template and J_regressor: {error}; the .pkl releases "
            "have to be converted to .npz first"
        ) from error
    template, regressor = (array.astype(np.float64) for array in arrays.values())
    if template.shape[1] != 3 or regressor.shape[1] != len(template) or len(regressor) < N_JOINTS:
        raise FileError(f"{path}: v_template is {template.shape} and J_regressor {regressor.shape}; they do not fit")
    offsets: NDArray[np.float64] = rest_offsets((regressor @ template)[:N_JOINTS])
    return offsets
