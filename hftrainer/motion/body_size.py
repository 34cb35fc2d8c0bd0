"""How large a body is, and the unit of length that would make it as large as people are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.skeleton import JOINTS

Float = NDArray[np.float64]

LIKELY = (1.0, 2.2)  # metres from the ankles over the spine to the head joint; an adult has 1.3 to 1.7
POSSIBLE = (0.6, 2.8)  # a toddler, and a figure of a game
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048, "dm": 0.1, "cmu": 0.0564444}
_CHAINS = (
    ("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
    ("pelvis", "left_hip", "left_knee", "left_ankle"),
)


def body_length(place: Mapping[str, Float]) -> float:
    """Length along the bones from the left ankle to the head, of the joints (3,) or (T, 3) that are there."""
    total = 0.0
    for chain in _CHAINS:
        there = [place[joint] for joint in chain if joint in place]
        bones = [np.linalg.norm(b - a, axis=-1).mean() for a, b in pairwise(there)]
        total += float(sum(bones))
    return total


def offsets_length(offsets: Float) -> float:
    """The same of bones (22, 3)."""
    chain = [joint for part in _CHAINS for joint in part[1:]]
    return float(sum(np.linalg.norm(offsets[JOINTS.index(joint)]) for joint in chain))


def parse_unit(text: str) -> float:
    """ "cm", "m", ... or metres as a number."""
    if text in UNITS:
        return UNITS[text]
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"a unit is one of {', '.join(UNITS)} or metres as a number, got {text!r}")
    return value
