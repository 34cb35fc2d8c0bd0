"""The body that motions are shown and exported on: one symmetric skeleton of 22 joints with fixed bones.

A generated clip's positions imply a slightly different skeleton in every frame, so every clip would get bones of its
own. A model has one body instead: bone lengths measured once over its motions, left and right equal, stored beside its
weights as skeleton.json. Models without that file, the released ones among them, use SMPL's proportions.

The rest pose is a T-pose that faces +Z with the toes on the floor. Knees are a little in front of the line from hip to
ankle, so that programs which derive a bone's roll from its direction always find the same one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.files import write_json
from hftrainer.motion.rotation import rotate, transpose
from hftrainer.motion.skeleton import JOINTS, MIRROR, N_JOINTS, PARENTS, forward_kinematics, global_rotations
from hftrainer.readers import FileError, read_json

Float = NDArray[np.float64]
BODY_FILE = "skeleton.json"
FORMAT = "hftrainer-body-v1"
KNEE_FORWARD = 0.015  # metres in front of the line from hip to ankle
_SIDE = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Body:
    """`offsets` (22, 3): vectors from a joint's parent to the joint in the rest pose, metres; the pelvis's is 0."""

    name: str
    offsets: Float

    def __post_init__(self) -> None:
        offsets = np.asarray(self.offsets, dtype=np.float64)
        if offsets.shape != (N_JOINTS, 3) or not np.isfinite(offsets).all():
            raise ValueError(
                f"body {self.name!r}: offsets must be ({N_JOINTS}, 3) finite metres, got shape {offsets.shape}"
            )
        lengths = np.linalg.norm(offsets[1:], axis=-1)
        if not (0.005 < lengths.min() and lengths.max() < 2.0):
            raise ValueError(
                f"body {self.name!r}: bones must be between 5 mm and 2 m long, got {lengths.min():.4g} to "
                f"{lengths.max():.4g} m; are the offsets in metres?"
            )
        if np.abs(offsets - _mirrored(offsets)).max() > 1e-6:
            raise ValueError(f"body {self.name!r}: left and right differ; make them equal with symmetric(offsets)")
        object.__setattr__(self, "offsets", offsets)

    @cached_property
    def rest_joints(self) -> Float:
        """Joints (22, 3) in the rest pose: pelvis above the origin, the lowest joint at height 0."""
        joints = np.zeros((N_JOINTS, 3))
        for joint in range(1, N_JOINTS):
            joints[joint] = joints[PARENTS[joint]] + self.offsets[joint]
        joints[:, 1] -= joints[:, 1].min()
        return joints

    @property
    def lengths(self) -> Float:
        """Bone lengths (22,), metres; the pelvis's is 0."""
        return np.asarray(np.linalg.norm(self.offsets, axis=-1))

    @property
    def leg(self) -> float:
        """Length of thigh and shin together, metres: what a root path is scaled by between bodies."""
        lengths = self.lengths
        return float(lengths[4] + lengths[7])


@dataclass(frozen=True)
class BodyMotion:
    """A motion of one body: local `rotations` (T, 22, 3, 3), joint 0 in the world, and `root` (T, 3), the pelvis.

    Metres, Y up, the floor at height 0; all rotations are the identity in the body's rest pose.
    """

    rotations: Float
    root: Float
    body: Body
    fps: float = 30.0

    def __post_init__(self) -> None:
        rotations, root = np.asarray(self.rotations, np.float64), np.asarray(self.root, np.float64)
        if root.ndim != 2 or root.shape[1] != 3 or rotations.shape != (len(root), N_JOINTS, 3, 3) or not len(root):
            raise ValueError(
                f"a motion needs rotations (T, {N_JOINTS}, 3, 3) and a root path (T, 3) of at least one frame, got "
                f"{rotations.shape} and {root.shape}"
            )
        for what, values in (("rotations", rotations), ("root positions", root)):
            if not np.isfinite(values).all():
                raise ValueError(f"a motion needs finite {what}, got NaN or infinite values")
        if not 0 < self.fps < 1e4:
            raise ValueError(f"a motion needs a frame rate above 0 and below 10000, got {self.fps}")
        object.__setattr__(self, "rotations", rotations)
        object.__setattr__(self, "root", root)

    @cached_property
    def joints(self) -> Float:
        """World joint positions (T, 22, 3), metres, by forward kinematics."""
        return np.asarray(forward_kinematics(self.rotations, self.root, self.body.offsets))

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.root) / self.fps

    def __len__(self) -> int:
        return len(self.root)


def same_bones(one: Body, other: Body) -> bool:
    """Whether two bodies differ by no more than files round, 0.1 mm."""
    return bool(np.abs(one.offsets - other.offsets).max() <= 1e-4)


def symmetric(offsets: Float) -> Float:
    """`offsets` (22, 3) averaged with their mirror image: left and right equal, the spine in the middle."""
    offsets = np.asarray(offsets, dtype=np.float64)
    return (offsets + _mirrored(offsets)) / 2


def measure(clips: Iterable[tuple[Float, Float]], name: str) -> Body:
    """The body of clips of joints (T, 22, 3) and local rotations (T, 22, 3, 3).

    A bone's length is the median over all frames; its direction in the rest pose is its mean direction seen from its
    parent. Both are made symmetric. Raises ``ValueError`` if there is no frame.
    """
    seen = [_bones_in_parents(joints, local) for joints, local in clips if len(joints)]
    if not seen:
        raise ValueError("a body cannot be measured from no frames")
    bones = np.concatenate(seen)
    mean = symmetric(np.concatenate([np.zeros((1, 3)), bones.mean(axis=0)]))
    median = np.concatenate([[0.0], np.median(np.linalg.norm(bones, axis=-1), axis=0)])
    lengths = (median + median[list(MIRROR)]) / 2
    offsets = np.zeros((N_JOINTS, 3))
    offsets[1:] = mean[1:] / np.linalg.norm(mean[1:], axis=-1, keepdims=True) * lengths[1:, None]
    return Body(name, bend_knees(offsets))


def bend_knees(offsets: Float, forward: float = KNEE_FORWARD) -> Float:
    """`offsets` with the knees at least `forward` metres in front of the line from hip to ankle; lengths stay."""
    offsets = np.array(offsets, dtype=np.float64)
    for knee, ankle in ((4, 7), (5, 8)):
        thigh, shin = offsets[knee].copy(), offsets[ankle].copy()
        leg = thigh + shin
        along = leg / np.linalg.norm(leg)
        ahead = np.array([0.0, 0.0, 1.0]) - along[2] * along
        ahead /= np.linalg.norm(ahead)
        if thigh @ ahead >= forward:
            continue
        for bone, sign in ((knee, 1.0), (ankle, -1.0)):
            length = np.linalg.norm(offsets[bone])
            offsets[bone] = sign * forward * ahead + np.sqrt(length**2 - forward**2) * along
    return offsets


def read_body(path: str | os.PathLike[str]) -> Body:
    """A body from a file as `write_body` makes them; ``ValueError`` says what is wrong with it."""
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, expected {FORMAT!r}")
        offsets = np.array([content["offsets"][joint] for joint in JOINTS], dtype=np.float64)
        return Body(str(content["name"]), offsets)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is not a body's skeleton file: {error}") from error


def write_body(path: str | os.PathLike[str], body: Body) -> None:
    """Write a body as JSON, atomically."""
    offsets = {joint: [round(float(v), 6) for v in body.offsets[i]] for i, joint in enumerate(JOINTS)}
    write_json(path, {"format": FORMAT, "name": body.name, "unit": "metre", "offsets": offsets})


def body_of(folder: str | os.PathLike[str]) -> Body:
    """The body of a model's folder: its skeleton.json, or SMPL's proportions where there is none.

    Raises ``ValueError`` for a folder that does not exist.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"there is no folder {os.fspath(folder)!r} to read a body from; give a model's folder")
    path = Path(folder) / BODY_FILE
    return read_body(path) if path.is_file() else smpl_body()


def smpl_body() -> Body:
    """SMPL's proportions: the mean body of HumanML3D-272's clips, left and right averaged."""
    from hftrainer.motion.representation.motion135 import CANON272_OFFSETS

    return Body("smpl", bend_knees(symmetric(np.array(CANON272_OFFSETS))))


def _bones_in_parents(joints: Float, local: Float) -> Float:
    """Bones (T, 21, 3) seen from their parents' frames."""
    world = np.asarray(global_rotations(np.asarray(local, dtype=np.float64)))
    above = list(PARENTS[1:])
    bones = np.asarray(joints, dtype=np.float64)
    return np.asarray(rotate(transpose(world[:, above]), bones[:, 1:] - bones[:, above]))


def _mirrored(offsets: Float) -> Float:
    return np.asarray(offsets[list(MIRROR)] * _SIDE)
