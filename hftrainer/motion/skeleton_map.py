"""Joint maps: which joints of a family of motion files are which SMPL joints, and how they are oriented at rest.

The shipped ones are YAML files in skeletons/; docs/bvh.md explains how to write one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.rest_pose import TARGETS
from hftrainer.motion.skeleton import JOINTS, PARENTS
from hftrainer.readers import FileError, read_yaml

Float = NDArray[np.float64]
SHIPPED = Path(__file__).parent / "skeletons"
MADE_UP = ("left_foot", "right_foot")  # put before the ankle, as SMPL's are, where a file has none
_NAME = re.compile(r"[^@]+(@(end|0(\.\d+)?|1(\.0)?))?")
_AXES = {"+X": (1, 0, 0), "-X": (-1, 0, 0), "+Y": (0, 1, 0), "-Y": (0, -1, 0), "+Z": (0, 0, 1), "-Z": (0, 0, -1)}


Choices = list[str | None]


@dataclass
class SkeletonMap:
    """How the joints of a family of motion files correspond to SMPL's; `docs/bvh.md` explains how to write one.

    A joint of `joints` is a name, ``Name@end`` for its End Site, ``Name@0.5`` for a point that share of the way to the
    next mapped joint below, null if the files do not have it, or a list of these, of which the first one that a file
    has is taken. `metres_per_unit` may be a list too, of which the first one is taken that makes the body as large as
    people are. `rest_frame` is a frame of the file that is a T-pose, where the zero pose is none.
    """

    name: str
    joints: dict[str, str | Choices | None]
    metres_per_unit: float | list[float]
    rest: dict[str, dict[str, Any]] = field(default_factory=dict)
    up: str = "+Y"
    forward: str = "+Z"
    prefixes: list[str] = field(default_factory=lambda: [""])
    straighten: str = "smpl"  # the rest pose that arms and legs are turned onto: smpl, axes, or off
    rest_frame: int | None = None
    feet_follow_legs: bool = False  # in a zero pose with spread legs, feet are rolled with them and do not stand flat

    def __post_init__(self) -> None:
        if not isinstance(self.joints, dict) or not isinstance(self.rest, dict):
            raise ValueError(f"skeleton map {self.name!r}: joints and rest must be mappings of SMPL joints")
        wrong = [j for j in (*self.joints, *self.rest) if j not in JOINTS]
        missing = [j for j in JOINTS if j not in self.joints]
        if wrong or missing:
            near = [m for w in wrong for m in get_close_matches(str(w), JOINTS, n=1)]
            raise ValueError(
                f"skeleton map {self.name!r}: unknown SMPL joints {wrong} (near: {near}), missing {missing}; "
                "write null for a joint that the files do not have"
            )
        for joint, choices in self.choices.items():
            self._check_choices(joint, choices)
        if isinstance(self.straighten, bool):  # YAML reads a bare `off` as false
            self.straighten = "smpl" if self.straighten else "off"
        if self.straighten not in TARGETS:
            raise ValueError(
                f"skeleton map {self.name!r}: straighten is one of {', '.join(TARGETS)}, got {self.straighten!r}"
            )
        numbers = all(isinstance(u, (int, float)) and not isinstance(u, bool) and 0 < u < 1e6 for u in self.units)
        if not self.units or not numbers:
            raise self._wrong("metres_per_unit", "a positive number or a list of these")
        for key in ("up", "forward"):
            try:
                direction(getattr(self, key))
            except ValueError as error:
                raise self._wrong(key, f"one of {', '.join(_AXES)} or three numbers") from error
        if self.rest_frame is not None and (type(self.rest_frame) is not int or self.rest_frame < 0):
            raise self._wrong("rest_frame", "the number of a frame")
        if not isinstance(self.feet_follow_legs, bool):
            raise self._wrong("feet_follow_legs", "true or false")
        if not isinstance(self.prefixes, list) or not all(isinstance(prefix, str) for prefix in self.prefixes):
            raise self._wrong("prefixes", "a list of texts")
        for joint, axes in self.rest.items():
            try:
                frame_from(axes)
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(
                    f"skeleton map {self.name!r}: rest of {joint} is {axes!r}; expected two of x, y and z with their "
                    "directions, like {x: +Y, z: +X}"
                ) from error

    @property
    def choices(self) -> dict[str, Choices]:
        """For each SMPL joint, what it may be in a file, best first."""
        return {j: list(v) if isinstance(v, list) else [v] for j, v in self.joints.items()}

    @property
    def units(self) -> list[float]:
        """What a unit of length in a file may be in metres, most likely first."""
        return list(self.metres_per_unit) if isinstance(self.metres_per_unit, list) else [self.metres_per_unit]

    def fingerprint(self) -> str:
        """Hash of everything that the map says, so that an edited map is another one."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode()).hexdigest()

    def _wrong(self, key: str, expected: str) -> ValueError:
        return ValueError(f"skeleton map {self.name!r}: {key} is {getattr(self, key)!r}; expected {expected}")

    def _check_choices(self, joint: str, choices: Choices) -> None:
        good = choices and all(c is None or (isinstance(c, str) and _NAME.fullmatch(c)) for c in choices)
        if not good:
            raise ValueError(
                f"skeleton map {self.name!r}: {joint} is {self.joints[joint]!r}; expected a name, Name@end, Name@0.5, "
                "null, or a list of these"
            )
        if choices[0] is None and joint == "pelvis":
            raise ValueError(f"skeleton map {self.name!r}: the pelvis cannot be null")
        if choices[0] is None and joint not in MADE_UP and not self._reaches_mapped(JOINTS.index(joint)):
            raise ValueError(f"skeleton map {self.name!r}: {joint} is null and nothing below it is mapped")

    def _reaches_mapped(self, joint: int) -> bool:
        return self.choices[JOINTS[joint]][0] is not None or any(
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
            f"no skeleton map {str(name_or_path)!r}; included: {', '.join(shipped_maps())}; or give a YAML file's path"
        )
    fields = read_yaml(path)
    try:
        return SkeletonMap(**{"name": path.stem, **fields})
    except TypeError as error:
        raise FileError(f"{path}: {error}; see the shipped maps for the keys") from error
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error


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
