"""What a representation of motion is: the one interface by which data, models, metrics and viewers read features.

Nothing outside a model's own folder knows a width or a frame rate; it asks the `Representation` of its data set, model
or folder. The built-in ones are ``motion272``, ``hml263``, ``motion135``, ``joints`` and ``joints66``; a plug-in adds
its own with ``@REPRESENTATIONS.register("name")`` on a subclass.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.array import Array, expect_shape, namespace
from hftrainer.motion.plausible import Problem, joint_problems
from hftrainer.motion.representation.spec import Block, RepresentationSpec
from hftrainer.registry import REPRESENTATIONS

DEFAULT = "motion272"  # of folders and models that do not say what they hold
RULES = ("blocks", "features")


class Body(NamedTuple):
    """A clip as joints (..., T, 22, 3), Y up, in metres, at `fps`.

    Where the source holds them, also local `rotations` (..., T, 22, 3, 3), joint 0 global, and the pelvis positions
    `root` (..., T, 3) that belong to those.
    """

    joints: Array
    fps: float
    rotations: Array | None = None
    root: Array | None = None


class Representation:
    """One way to write a motion as (..., T, width) features; subclasses say what their `spec` holds.

    `statistics_rule`: "blocks", HumanML3D's and MotionStreamer's: the standard deviation of a feature is the mean over
    its block, so that the features of a block are scaled alike and constant ones do not divide by zero; "features":
    each feature has its own. `root`: the blocks that carry the path and heading of the body; empty if none do so apart
    from the joints. `positions`: the block with joint positions, if there is one; `velocities`: their differences.
    """

    spec: ClassVar[RepresentationSpec]
    statistics_rule: ClassVar[str] = "blocks"
    root: ClassVar[tuple[str, ...]] = ()
    positions: ClassVar[str | None] = None
    velocities: ClassVar[str | None] = None
    needs_rotations: ClassVar[bool] = False  # to be made: joint positions do not determine it
    holds_rotations: ClassVar[bool] = False
    any_rate: ClassVar[bool] = False  # it keeps the rate of what it is made from; `fps` is what files are taken for

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name in `REPRESENTATIONS`, and in files."""
        return self.spec.name

    @property
    def width(self) -> int:
        """Features of a frame."""
        return self.spec.width

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.spec.fps

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Names, sizes and units, in order."""
        return self.spec.blocks

    def __getitem__(self, block: str) -> slice:
        return self.spec[block]

    def __repr__(self) -> str:
        return f"<representation {self.name}: {self.width} features, {self.fps:g} fps>"

    @property
    def can_be_made(self) -> bool:
        """There is a `from_body`."""
        return type(self).from_body is not Representation.from_body

    def positions_block(self) -> slice:
        """The features that are joint positions; an error if there are none."""
        if self.positions is None:
            raise ValueError(f"{self.name} stores no joint positions")
        return self[self.positions]

    def root_features(self) -> list[int]:
        """Indices of the features of the `root` blocks."""
        return [i for block in self.root for i in range(self[block].start, self[block].stop)]

    # --- to and from bodies -------------------------------------------------------------------------------------------

    def to_joints(self, motion: Array, **options: Any) -> Array:
        """Joint positions (..., T, 22, 3) in metres, Y up, at `fps`."""
        raise NotImplementedError

    def to_rotations(self, motion: Array, **options: Any) -> tuple[Array, Array]:
        """Local rotations (..., T, 22, 3, 3), joint 0 global, and pelvis positions (..., T, 3)."""
        raise ValueError(f"{self.name} holds no joint rotations, a body would have to be fitted to it")

    def to_body(self, motion: Array, *, rotations: bool = True, **options: Any) -> Body:
        """Joints, and `rotations` where there are some; what `from_body` of another representation starts from."""
        joints = self.to_joints(motion, **options)
        if not (self.holds_rotations and rotations):
            return Body(joints, self.fps)
        return Body(joints, self.fps, *self.to_rotations(motion, **options))

    def from_body(self, body: Body, **options: Any) -> Array:
        """Features (..., T', width) at `fps` of a body at its own frame rate; an error says what is not there."""
        raise ValueError(f"{self.name} can be read, but there is no way to make it from joints and rotations")

    # --- operations on features ---------------------------------------------------------------------------------------

    def check(self, motion: Array) -> None:
        """Raise ``ValueError`` unless `motion` is (..., T, width) with at least one frame."""
        expect_shape(motion, ("T", self.width), self.name)
        if motion.shape[-2] < 1:
            raise ValueError("a motion needs at least one frame, got none")

    def mirror(self, motion: Array) -> Array:
        """Left and right exchanged; the body is mirrored too, so that an uneven one changes sides."""
        raise ValueError(f"{self.name} cannot be mirrored")

    def rest(self, last: Array) -> Array:
        """The frame (..., 1, width) that holds the pose of `last` (..., 1, width), at rest."""
        raise ValueError(f"{self.name} cannot be padded at rest")

    def pad_at_rest(self, motion: Array, frames: int) -> Array:
        """Hold the last pose of (..., T, width) until there are `frames` frames, with velocities of 0."""
        self.check(motion)
        missing = frames - motion.shape[-2]
        if missing <= 0:
            return motion
        return namespace(motion).concatenate([motion, *[self.rest(motion[..., -1:, :])] * missing], axis=-2)

    # --- statistics ---------------------------------------------------------------------------------------------------

    def scale(self, std: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviations (width,) of single features, by the `statistics_rule`."""
        if self.statistics_rule not in RULES:
            raise ValueError(f"statistics_rule must be one of {RULES}, {self.name} has {self.statistics_rule!r}")
        out = np.array(std, dtype=np.float64)
        if self.statistics_rule == "blocks":
            for block in self.blocks:
                out[self[block.name]] = out[self[block.name]].mean()
        return out

    def statistics_problem(self, mean: NDArray[Any], std: NDArray[Any]) -> str | None:
        """What shows that these (width,) arrays are not the mean and std of such motions; None if nothing does."""
        return None

    # --- what motions of it look like ---------------------------------------------------------------------------------

    def problems(self, motion: NDArray[Any]) -> list[Problem]:
        """What shows that a clip (T, width) is z-scored, in other units, upside down, frozen, or something else.

        Real motion has none of these. Generated motion may have a bad frame; ask for what most clips of a set have.
        """
        self.check(motion)
        found = self.feature_problems(np.asarray(motion, dtype=np.float64))
        return found or joint_problems(np.asarray(self.to_joints(motion), dtype=np.float64), self.fps)

    def feature_problems(self, motion: NDArray[np.float64]) -> list[Problem]:
        """What features (T, width) show before they are decoded: identities that every clip of this kind fulfils."""
        return []


@cache
def get_representation(name: str) -> Representation:
    """The representation called `name`, or at ``package.module:Class``; an unknown name lists the near ones."""
    made: Representation = REPRESENTATIONS.get(name)()
    return made
