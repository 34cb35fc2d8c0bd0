"""135 numbers a frame: the pelvis's position and 22 local rotations; 30 fps, metres, Y up. Positions need a skeleton.

    channel          dims   content
    root_position    0:3    the pelvis joint in the world
    joint_rotations  3:135  rotations of 22 SMPL joints, local but for the pelvis's, six numbers each

Two layouts of the six numbers exist (hftrainer.motion.rotation), and files do not say which they have:
"columns_interleaved" in motion_135 files, "columns" in what MotionCLIP-135 was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.array import Array, expect_shape, like, namespace, widen
from hftrainer.motion.plausible import Problem, frozen_problem, unit_length_problem
from hftrainer.motion.representation.base import Body, Representation
from hftrainer.motion.representation.spec import MOTION135
from hftrainer.motion.resample import resample_body
from hftrainer.motion.rotation import (
    from_columns_6d,
    from_columns_interleaved_6d,
    to_columns_6d,
    to_columns_interleaved_6d,
)
from hftrainer.motion.skeleton import MIRROR, N_JOINTS, PARENTS, forward_kinematics, local_rotations
from hftrainer.registry import REPRESENTATIONS

LAYOUTS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "columns_interleaved": (to_columns_interleaved_6d, from_columns_interleaved_6d),
    "columns": (to_columns_6d, from_columns_6d),
}
SPACES = ("local", "global")
_HIGHEST = 10.0  # metres; a clip may be on a tower, most of a set are not

# The mean body of HumanML3D-272's clips (SMPL-X neutral with their subjects' shapes): metres from parent to joint.
CANON272_OFFSETS = (
    (0.0, 0.0, 0.0),
    (0.060343709, -0.094630333, -0.026169156),
    (-0.065455158, -0.105867008, -0.021031798),
    (-0.003003687, 0.111733554, -0.028527729),
    (0.055984761, -0.378296124, -0.009124911),
    (-0.045344303, -0.361899116, -0.017014844),
    (0.010199403, 0.133737562, -0.005811196),
    (-0.044157286, -0.402041386, -0.033814517),
    (0.015324597, -0.409558908, -0.021925149),
    (-0.011682806, 0.053384825, 0.029953425),
    (0.048033708, -0.057317385, 0.118647646),
    (-0.039262768, -0.057729928, 0.119411866),
    (-0.012790529, 0.16772425, -0.032331968),
    (0.047338549, 0.086390759, -0.006783706),
    (-0.049351129, 0.085738056, -0.012964841),
    (0.025222568, 0.162659421, 0.020381256),
    (0.12320449, 0.058023791, -0.015129798),
    (-0.105945388, 0.053864754, -0.013081811),
    (0.254389795, -0.072484087, -0.044357245),
    (-0.271773351, -0.035810858, -0.027332921),
    (0.2510425, 0.023911982, -0.001773581),
    (-0.248424025, -0.004861045, -0.014765846),
)


def from_rotations(rotations: Array, root: Array, *, layout: str = "columns_interleaved") -> Array:
    """Local rotations (..., T, 22, 3, 3), joint 0 global, and pelvis positions (..., T, 3), as (..., T, 135)."""
    expect_shape(rotations, ("T", N_JOINTS, 3, 3), "rotations")
    expect_shape(root, ("T", 3), "root")
    encode, _ = _layout(layout)
    flat = encode(rotations).reshape(*rotations.shape[:-3], 6 * N_JOINTS)
    return namespace(root).concatenate([root, flat], axis=-1)


def to_rotations(
    motion: Array, *, layout: str = "columns_interleaved", rotation_space: str = "local"
) -> tuple[Array, Array]:
    """Local rotations (..., T, 22, 3, 3) and pelvis positions (..., T, 3) of (..., T, 135).

    `rotation_space` says what the vector holds: "local" rotations, or "global" ones of every joint in the world.
    """
    expect_shape(motion, ("T", MOTION135.width), "motion135")
    _, decode = _layout(layout)
    if rotation_space not in SPACES:
        raise ValueError(f"rotation_space must be one of {SPACES}, got {rotation_space!r}")
    rotations = decode(motion[..., MOTION135["joint_rotations"]].reshape(*motion.shape[:-1], N_JOINTS, 6))
    if rotation_space == "global":
        rotations = local_rotations(rotations)
    return rotations, motion[..., MOTION135["root_position"]]


def to_joints(
    motion: Array,
    *,
    offsets: Array | None = None,
    layout: str = "columns_interleaved",
    rotation_space: str = "local",
) -> Array:
    """Joint positions (..., T, 22, 3) on a skeleton; `offsets` (22, 3) as `skeleton_offsets` takes them."""
    rotations, root = to_rotations(motion, layout=layout, rotation_space=rotation_space)
    return forward_kinematics(rotations, root, skeleton_offsets(offsets, motion))


def skeleton_offsets(offsets: Array | None, other: Array) -> Array:
    """Vectors (22, 3) from parent to joint, as the kind of `other`; None is `CANON272_OFFSETS`.

    The first row has to be 0: a motion's root position is the pelvis joint, not a body model's translation.
    """
    if offsets is None:
        return like(CANON272_OFFSETS, other)
    expect_shape(offsets, (N_JOINTS, 3), "offsets")
    if abs(float(abs(offsets[0]).max())) > 1e-6:
        raise ValueError(
            f"offsets[0] must be 0, got {[float(v) for v in offsets[0]]}: offsets are vectors from a joint's parent, "
            "and the pelvis has none; for rest joint positions use rest_offsets(joints)"
        )
    return like(offsets, other)


def rest_offsets(joints: Array) -> Array:
    """Vectors (22, 3) from parent to joint of a rest pose's joint positions (22, 3); the first is 0."""
    expect_shape(joints, (N_JOINTS, 3), "rest joints")
    bones = joints[1:] - joints[list(PARENTS[1:])]
    return namespace(joints).concatenate([namespace(joints).zeros_like(joints[:1]), bones], axis=0)


def _layout(name: str) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    if name not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {name!r}")
    return LAYOUTS[name]


@REPRESENTATIONS.register("motion135")
class Motion135(Representation):
    """This module's functions as a `Representation`.

    Options: `layout` of the six numbers, and bones `offsets` (22, 3) that rotations are posed on (None: the mean body).
    """

    spec = MOTION135
    root = ("root_position",)
    needs_rotations = holds_rotations = True

    def to_joints(
        self,
        motion: Array,
        *,
        offsets: Array | None = None,
        layout: str = "columns_interleaved",
        rotation_space: str = "local",
        **options: Any,
    ) -> Array:
        """Forward kinematics on `offsets`."""
        return to_joints(widen(motion), offsets=offsets, layout=layout, rotation_space=rotation_space)

    def to_rotations(
        self,
        motion: Array,
        *,
        layout: str = "columns_interleaved",
        rotation_space: str = "local",
        **options: Any,
    ) -> tuple[Array, Array]:
        """The stored rotations and path."""
        return to_rotations(widen(motion), layout=layout, rotation_space=rotation_space)

    def from_body(self, body: Body, *, layout: str = "columns_interleaved", **options: Any) -> Array:
        """Rotations and path at 30 fps; a body at another frame rate is interpolated first."""
        body = resample_body(body, self.fps)
        if body.rotations is None or body.root is None:
            raise ValueError(f"{self.name} needs joint rotations, a body would have to be fitted to these joints")
        return from_rotations(body.rotations, body.root, layout=layout)

    def mirror(self, motion: Array, *, layout: str = "columns_interleaved") -> Array:
        """Left and right exchanged; on the same bones, since none are stored."""
        rotations, root = to_rotations(motion, layout=layout)
        # R becomes M R M with M = diag(-1, 1, 1)
        flip = like([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]], motion)
        mirrored = rotations[..., list(MIRROR), :, :] * flip
        return from_rotations(mirrored, root * like([-1.0, 1.0, 1.0], motion), layout=layout)

    def rest(self, last: Array) -> Array:
        """The same frame: it holds no velocities."""
        return last

    def feature_problems(self, motion: NDArray[np.float64]) -> list[Problem]:
        """Rotations have unit columns in one of the two layouts."""
        six = motion[:, MOTION135["joint_rotations"]].reshape(len(motion), N_JOINTS, 6)
        columns = np.stack([six[..., :3], six[..., 3:]], axis=-2)
        interleaved = np.stack([six[..., ::2], six[..., 1::2]], axis=-2)
        found = unit_length_problem(columns) and unit_length_problem(interleaved)
        height = float(np.median(motion[:, 1]))
        if not found and abs(height) > _HIGHEST:
            found = [Problem("units", f"its pelvis is at a height of {height:.3g} m; is it in centimetres?", False)]
        if not found and height < 0:
            # a floor somewhere above the pelvis is possible, but not for most clips of a set
            found = [Problem("upside down", "its pelvis is below height 0; is the sign wrong?", False)]
        return found or frozen_problem(motion)
