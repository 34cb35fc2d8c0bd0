"""Joint positions of a motion that comes in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.representation.base import Representation


class WorldJoints:
    """Frames (t, width) in, joints (t, 22, 3) out, as those of the whole motion are.

    A representation whose path is a sum of steps starts at the origin with every piece. So each piece is read together
    with the frame before it, then turned and moved until that frame is where it was.
    """

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
    """`joints` (t, 22, 3), turned and moved so that the first frame is `pose` (22, 3); Kabsch 1976."""
    here, there = joints[0].mean(axis=0), pose.mean(axis=0)
    u, _, vt = np.linalg.svd((joints[0] - here).T @ (pose - there))
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return (joints - here) @ ((u * flip) @ vt) + there
