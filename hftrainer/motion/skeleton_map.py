"""Joint maps: which joints of a family of motion files are which SMPL joints, and how they are oriented at rest.

The shipped ones are YAML files in skeletons/; docs/bvh.md explains how to write one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hftrainer.motion.rest_pose import TARGETS
from hftrainer.motion.skeleton import JOINTS, PARENTS

Float = NDArray[np.float64]
SHIPPED = Path(__file__).parent / "skeletons"
_AXES = {"+X": (1, 0, 0), "-X": (-1, 0, 0), "+Y": (0, 1, 0), "-Y": (0, -1, 0), "+Z": (0, 0, 1), "-Z": (0, 0, -1)}


@dataclass
class SkeletonMap:
    """How the joints of a family of BVH files correspond to SMPL's; `docs/bvh.md` explains how to write one."""

    name: str
    joints: dict[str, str | None]
    metres_per_unit: float
    rest: dict[str, dict[str, Any]] = field(default_factory=dict)
    up: str = "+Y"
    forward: str = "+Z"
    prefixes: list[str] = field(default_factory=lambda: [""])
    straighten: str = "smpl"  # the rest pose that arms and legs are turned onto: smpl, axes, or off

    def __post_init__(self) -> None:
        wrong = [j for j in (*self.joints, *self.rest) if j not in JOINTS]
        missing = [j for j in JOINTS if j not in self.joints]
        if wrong or missing:
            near = [m for w in wrong for m in get_close_matches(w, JOINTS, n=1)]
            raise ValueError(
                f"skeleton map {self.name!r}: unknown SMPL joints {wrong} (near: {near}), missing {missing}; "
                "write null for a joint that the files do not have"
            )
        if self.joints["pelvis"] is None:
            raise ValueError(f"skeleton map {self.name!r}: the pelvis cannot be null")
        for child in JOINTS:
            if self.joints[child] is None and not any(
                PARENTS[j] == JOINTS.index(child) and self._reaches_mapped(j) for j in range(len(JOINTS))
            ):
                raise ValueError(f"skeleton map {self.name!r}: {child} is null and nothing below it is mapped")
        if not self.metres_per_unit > 0:
            raise ValueError(f"skeleton map {self.name!r}: metres_per_unit must be positive")
        if isinstance(self.straighten, bool):  # YAML reads a bare `off` as false
            self.straighten = "smpl" if self.straighten else "off"
        if self.straighten not in TARGETS:
            raise ValueError(
                f"skeleton map {self.name!r}: straighten is one of {', '.join(TARGETS)}, got {self.straighten!r}"
            )
        for axis in (self.up, self.forward):
            direction(axis)

    def _reaches_mapped(self, joint: int) -> bool:
        return self.joints[JOINTS[joint]] is not None or any(
            PARENTS[child] == joint and self._reaches_mapped(child) for child in range(len(JOINTS))
        )


def shipped_maps() -> list[str]:
    """Names that `load_map` knows."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_map(name_or_path: str | os.PathLike[str]) -> SkeletonMap:
    """A shipped map by name, or a map of one's own by the path of its YAML file."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ValueError(
            f"no skeleton map {str(name_or_path)!r}; shipped: {', '.join(shipped_maps())}; or give a YAML file's path"
        )
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return SkeletonMap(**{"name": path.stem, **fields})
    except TypeError as error:
        raise ValueError(f"{path}: {error}; see the shipped maps for the keys") from error


def frame_from(axes: dict[str, Any]) -> Float:
    """Two of x, y, z, each a direction, to the rotation whose columns they are; the third follows."""
    given = {key: direction(value) for key, value in axes.items()}
    if len(given) != 2 or not set(given) <= set("xyz"):
        raise ValueError(f"a rest orientation needs two of x, y and z, got {sorted(axes)}")
    (first, a), (second, b) = given.items()
    b = b - (a @ b) * a
    if np.linalg.norm(b) < 1e-3:
        raise ValueError(f"a rest orientation needs two different directions, got {axes}")
    columns = {first: a, second: b / np.linalg.norm(b)}
    third = ({"x", "y", "z"} - set(given)).pop()
    left, right = {"x": ("y", "z"), "y": ("z", "x"), "z": ("x", "y")}[third]
    columns[third] = np.cross(columns[left], columns[right])
    return np.stack([columns[key] for key in "xyz"], axis=1)


def direction(value: Any) -> Float:
    """Unit vector (3,) of an axis like "-Y" or of three numbers."""
    vector = np.asarray(_AXES[value] if isinstance(value, str) and value in _AXES else value)
    if vector.dtype.kind not in "if" or vector.shape != (3,) or not np.linalg.norm(vector) > 0:
        raise ValueError(f"a direction is one of {', '.join(_AXES)} or three numbers, got {value!r}")
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)
