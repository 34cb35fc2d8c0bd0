"""What the readers of motion files give: a hierarchy of joints that moves, in the file's own units and axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hftrainer.readers import FileError

Float = NDArray[np.float64]

MAX_JOINTS = 4096
MAX_ARRAYS = 512 << 20  # bytes of the arrays of a .npz
MAX_VALUES = 80_000_000  # joints times frames times the numbers of a transform; below 2 GB at the peak


class MotionFileError(FileError):
    """A motion file that cannot be used; the message names the file and what is wrong with it."""


class MotionSource(Protocol):
    """A motion as retargeting wants it.

    `end_offsets` maps a joint to where its tip is, seen from the joint; `notes` are sentences about what a reader put
    right; `metres_per_unit` is None where a format leaves the unit to its writer.
    """

    names: list[str]
    parents: list[int]
    end_offsets: dict[int, Float]
    notes: list[str]
    metres_per_unit: float | None

    @property
    def fps(self) -> float:
        """Frames a second."""

    @property
    def frames(self) -> int:
        """How many frames there are."""

    def global_transforms(self) -> tuple[Float, Float]:
        """Rotation (T, J, 3, 3) and position (T, J, 3) of every joint in the world."""

    def rest_transforms(self) -> tuple[Float, Float]:
        """Rotation (J, 3, 3) and position (J, 3) of every joint in the pose that the file calls its rest."""


@dataclass
class SkeletalMotion:
    """A motion as matrices: `rotations` (T, J, 3, 3) and `translations` (T, J, 3) of each joint seen from its parent.

    `rest_rotations` (J, 3, 3) and `rest_translations` (J, 3) are the same for the rest pose. Parents come first.
    """

    names: list[str]
    parents: list[int]
    rotations: Float
    translations: Float
    rest_rotations: Float
    rest_translations: Float
    fps: float
    metres_per_unit: float | None = None
    end_offsets: dict[int, Float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.rotations)

    def global_transforms(self) -> tuple[Float, Float]:
        """Rotation (T, J, 3, 3) and position (T, J, 3) of every joint in the world."""
        return chain(self.parents, self.rotations, self.translations)

    def rest_transforms(self) -> tuple[Float, Float]:
        """Rotation (J, 3, 3) and position (J, 3) of every joint in the rest pose."""
        rotations, positions = chain(self.parents, self.rest_rotations[None], self.rest_translations[None])
        return rotations[0], positions[0]


def chain(parents: Sequence[int], rotations: Float, translations: Float) -> tuple[Float, Float]:
    """World transforms from those of each joint (T, J, ...) seen from its parent; parents come before children."""
    world, positions = np.array(rotations, dtype=np.float64), np.array(translations, dtype=np.float64)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            positions[:, joint] = positions[:, parent] + (world[:, parent] @ positions[:, joint, :, None])[..., 0]
            world[:, joint] = world[:, parent] @ world[:, joint]
    return world, positions


def check_size(frames: int, joints: int, path: object, error: type[MotionFileError] = MotionFileError) -> None:
    """Refuse more than memory is for, before it is asked for."""
    if joints > MAX_JOINTS:
        raise error(f"{path}: more than {MAX_JOINTS} joints")
    if frames < 1 or joints < 1:
        raise error(f"{path}: has {frames} frames of {joints} joints; there is no motion in it")
    if frames * joints * 12 > MAX_VALUES:
        raise error(f"{path}: {frames} frames of {joints} joints are more than is read at once; cut it into clips")
