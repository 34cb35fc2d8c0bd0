"""Physical metrics of many clips: the published five and those in units, clip by clip and averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.evaluation import physical, physical_units
from hftrainer.evaluation.predictions import LAYOUT
from hftrainer.motion.representation.base import get_representation

Floats = NDArray[np.floating[Any]]
_FRAMES = 4  # second differences and contacts need them


@dataclass
class PhysicalTable:
    """`published` (n, 5) and `in_units` (n, 9): a row a clip, in the order of `physical.KEYS` and
    `physical_units.KEYS`; NaN for clips that could not be measured."""

    published: Floats
    in_units: Floats

    def summary(self) -> dict[str, dict[str, float]]:
        """Means over the measured clips: "published", scaled as the leaderboard's table is, and "in_units"."""
        measured = ~np.isnan(self.published[:, 0])
        if not measured.any():
            return {}
        published = [dict(zip(physical.KEYS, row, strict=True)) for row in self.published[measured].tolist()]
        units = [dict(zip(physical_units.KEYS, row, strict=True)) for row in self.in_units[measured].tolist()]
        return {
            "published": physical.table_scaled_physical_metrics(physical.aggregate_physical_metrics(published)),
            "in_units": physical_units.aggregate_physical_metrics_in_units(units),
        }


def physical_table(
    names: Sequence[str],
    load: Callable[[str], Any],
    representation: str,
    *,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> PhysicalTable:
    """Measure the clips that `load` gives by name, each once; None, and clips of less than four frames, are not
    measured."""
    published = np.full((len(names), len(physical.KEYS)), np.nan)
    units = np.full((len(names), len(physical_units.KEYS)), np.nan)
    fps = get_representation(representation).fps
    rows: dict[str, int] = {}
    for row, name in enumerate(progress(names)):
        if name in rows:
            published[row], units[row] = published[rows[name]], units[rows[name]]
            continue
        rows[name] = row
        motion = load(name)
        if motion is None or len(motion) < _FRAMES:
            continue
        joints = joints_of_clip(motion, representation)
        published[row] = list(physical.compute_physical_metrics(joints).values())
        units[row] = list(physical_units.physical_metrics_in_units(joints, fps=fps).values())
    return PhysicalTable(published, units)


def joints_of_clip(motion: Any, representation: str) -> Floats:
    """Joints (t, 22, 3) of a clip, as its representation decodes them; see `skeleton_note`."""
    kind = get_representation(representation)
    return np.asarray(kind.to_joints(np.asarray(motion, dtype=np.float64), layout=LAYOUT))


def skeleton_note(representation: str) -> str | None:
    """What physical metrics of a representation assume: rotations without positions are posed on a mean body, so that
    they compare only with clips on the same one. None where positions are stored."""
    kind = get_representation(representation)
    if kind.positions is not None or not kind.holds_rotations:
        return None
    return f"physical metrics of {kind.name} pose its rotations on the mean skeleton of HumanML3D-272"
