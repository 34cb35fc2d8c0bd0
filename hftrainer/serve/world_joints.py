"""Joint positions of a motion that comes in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.representation.base import Representation


class WorldJoints:
    """Frames (t, width) in, joints (t, 22, 3) out: those of the whole motion, which is read again for every piece.

    Some representations say where the body is by the sum of all steps before, so a piece by itself would begin at the
    origin.
    """

    def __init__(self, representation: Representation):
        self.representation = representation
        self._frames = np.zeros((0, representation.width), np.float32)

    def push(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Joints of the next frames, metres, Y up."""
        self._frames = np.concatenate([self._frames, frames])
        return np.asarray(self.representation.to_joints(self._frames)[-len(frames) :], np.float32)


class EndlessJoints:
    """The same for a motion without an end. A piece is read together with the frame before it, turned about the
    vertical axis and moved over the floor until that frame is where it was; so the figure never starts to lean."""

    def __init__(self, representation: Representation):
        self.representation = representation
        self._frame: NDArray[np.float32] | None = None
        self._pose: NDArray[np.float64] | None = None

    def push(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Joints of the next frames, metres, Y up."""
        if self._frame is None or self._pose is None:
            joints = np.asarray(self.representation.to_joints(frames), np.float64)
        else:
            both = self.representation.to_joints(np.concatenate([self._frame, frames]))
            joints = _moved_onto(np.asarray(both, np.float64), self._pose)[1:]
        self._frame, self._pose = frames[-1:], joints[-1]
        return joints.astype(np.float32)


def _moved_onto(joints: NDArray[Any], pose: NDArray[Any]) -> NDArray[Any]:
    """`joints` (t, 22, 3), turned about the vertical axis and moved so that the first frame's pelvis is over that of
    `pose` (22, 3), facing as it does."""
    a, b = joints[0] - joints[0, 0], pose - pose[0]
    sine = float((b[:, 0] * a[:, 2] - b[:, 2] * a[:, 0]).sum())
    cosine = float((b[:, 0] * a[:, 0] + b[:, 2] * a[:, 2]).sum())
    angle = np.arctan2(sine, cosine)
    s, c = np.sin(angle), np.cos(angle)
    x, z = joints[..., 0] - joints[0, 0, 0], joints[..., 2] - joints[0, 0, 2]
    return np.stack([c * x + s * z + pose[0, 0], joints[..., 1], c * z - s * x + pose[0, 2]], axis=-1)
