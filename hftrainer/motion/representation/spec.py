"""Representations as data: names, widths and units of their blocks, so that no slice is written as a bare number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Block(NamedTuple):
    """Features of one kind that lie side by side: how many there are, and their unit ("1" for pure numbers)."""

    name: str
    size: int
    unit: str


@dataclass(frozen=True)
class RepresentationSpec:
    """``spec["joint_positions"]`` is the slice of that block; `width` the number of features of a frame."""

    name: str
    fps: float
    blocks: tuple[Block, ...]

    @property
    def width(self) -> int:
        """Features of one frame."""
        return sum(block.size for block in self.blocks)

    @property
    def channels(self) -> dict[str, int]:
        """The size of each block, by name."""
        return {block.name: block.size for block in self.blocks}

    def __getitem__(self, channel: str) -> slice:
        start = 0
        for block in self.blocks:
            if block.name == channel:
                return slice(start, start + block.size)
            start += block.size
        raise KeyError(f"{self.name} has no channel {channel!r}; it has {', '.join(self.channels)}")


MOTION272 = RepresentationSpec(
    "motion272",
    30.0,
    (
        Block("root_velocity", 2, "m/frame"),
        Block("heading_change", 6, "1"),
        Block("joint_positions", 66, "m"),
        Block("joint_velocities", 66, "m/frame"),
        Block("joint_rotations", 132, "1"),
    ),
)

MOTION135 = RepresentationSpec("motion135", 30.0, (Block("root_position", 3, "m"), Block("joint_rotations", 132, "1")))

HML263 = RepresentationSpec(
    "hml263",
    20.0,
    (
        Block("root_turn", 1, "rad/frame"),
        Block("root_velocity", 2, "m/frame"),
        Block("root_height", 1, "m"),
        Block("joint_positions", 63, "m"),
        Block("joint_rotations", 126, "1"),
        Block("joint_velocities", 66, "m/frame"),
        Block("contacts", 4, "1"),
    ),
)

JOINTS66 = RepresentationSpec("joints66", 30.0, (Block("joint_positions", 66, "m"),))
JOINTS = RepresentationSpec("joints", 30.0, JOINTS66.blocks)
