"""Joint positions as they are: 22 joints in metres, Y up; "joints66" as one row of 66 numbers, "joints" as (22, 3).

Files of joints say nothing of their frame rate; 30 fps is taken unless something else is said.
"""

from __future__ import annotations

from typing import Any

from hftrainer.motion.array import Array, like, namespace
from hftrainer.motion.representation.base import Body, Representation
from hftrainer.motion.representation.spec import JOINTS, JOINTS66
from hftrainer.motion.skeleton import MIRROR, N_JOINTS
from hftrainer.registry import REPRESENTATIONS


@REPRESENTATIONS.register("joints66")
class Joints66(Representation):
    """(..., T, 66). What is read may be (..., T, 22, 3) too."""

    spec = JOINTS66
    positions = "joint_positions"
    any_rate = True

    def to_joints(self, motion: Array, **options: Any) -> Array:
        """The same numbers as (..., T, 22, 3)."""
        if motion.shape[-1] == self.width:
            motion = motion.reshape(*motion.shape[:-1], N_JOINTS, 3)
        if motion.shape[-2:] != (N_JOINTS, 3) or motion.ndim < 3:
            raise ValueError(f"{self.name} must have shape (..., T, 22, 3) or (..., T, 66), got {tuple(motion.shape)}")
        return motion

    def to_body(self, motion: Array, *, rotations: bool = True, fps: float | None = None, **options: Any) -> Body:
        """Joints at `fps`, 30 unless it is said."""
        return Body(self.to_joints(motion), self.fps if fps is None else fps)

    def from_body(self, body: Body, **options: Any) -> Array:
        """The joints at the body's own frame rate."""
        return body.joints.reshape(*body.joints.shape[:-2], self.width)

    def check(self, motion: Array) -> None:
        """Raise ``ValueError`` unless it has one of the two shapes and at least one frame."""
        if self.to_joints(motion).shape[-3] < 1:
            raise ValueError("a motion needs at least one frame, got none")

    def mirror(self, motion: Array) -> Array:
        """X to -X, left joints to right ones."""
        mirrored = self.to_joints(motion)[..., list(MIRROR), :] * like([-1.0, 1.0, 1.0], motion)
        return mirrored.reshape(*motion.shape)

    def pad_at_rest(self, motion: Array, frames: int) -> Array:
        """The last frame again until there are `frames` frames."""
        self.check(motion)
        axis = -2 if motion.shape[-1] == self.width else -3
        last = motion[..., -1:, :] if axis == -2 else motion[..., -1:, :, :]
        missing = max(0, frames - motion.shape[axis])
        return namespace(motion).concatenate([motion, *[last] * missing], axis=axis)


@REPRESENTATIONS.register("joints")
class Joints(Joints66):
    """(..., T, 22, 3). What is read may be (..., T, 66) too."""

    spec = JOINTS

    def from_body(self, body: Body, **options: Any) -> Array:
        """The joints at the body's own frame rate."""
        return body.joints
