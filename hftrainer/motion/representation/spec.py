"""Representations as data: names and widths of their channels, so that no slice is written as a bare number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RepresentationSpec:
    """``spec["joint_positions"]`` is the slice of that channel; `width` the number of features of a frame."""

    name: str
    fps: float
    channels: dict[str, int]

    @property
    def width(self) -> int:
        """Features of one frame."""
        return sum(self.channels.values())

    def __getitem__(self, channel: str) -> slice:
        start = 0
        for name, size in self.channels.items():
            if name == channel:
                return slice(start, start + size)
            start += size
        raise KeyError(f"{self.name} has no channel {channel!r}; it has {', '.join(self.channels)}")


MOTION272 = RepresentationSpec(
    "motion272",
    30.0,
    {
        "root_velocity": 2,
        "heading_change": 6,
        "joint_positions": 66,
        "joint_velocities": 66,
        "joint_rotations": 132,
    },
)

MOTION135 = RepresentationSpec("motion135", 30.0, {"root_position": 3, "joint_rotations": 132})

HML263 = RepresentationSpec(
    "hml263",
    20.0,
    {
        "root_turn": 1,
        "root_velocity": 2,
        "root_height": 1,
        "joint_positions": 63,
        "joint_rotations": 126,
        "joint_velocities": 66,
        "contacts": 4,
    },
)
