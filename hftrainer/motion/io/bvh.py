"""Reading BVH files (Biovision hierarchy): any channel order, any number of channels a joint, several roots refused.

Angles in the file are degrees; lengths are whatever the writer meant, a reader has to be told. A joint's channels are
applied in the order in which they are listed: a listing ``Zrotation Xrotation Yrotation`` means Rz @ Rx @ Ry.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.io.bvh_hierarchy import BVHError, parse_hierarchy
from hftrainer.motion.io.source import chain, check_size
from hftrainer.motion.rotation import euler_to_matrix
from hftrainer.plain_text import decode
from hftrainer.readers import read_bytes

__all__ = ["BVH", "BVHError", "read_bvh"]

Float = NDArray[np.float64]
MAX_BYTES = 2 << 30
_RATES = (0.1, 10_000.0)  # frames a second that a file may claim
_PADDING = b"\x00\x1a\r\n\t "  # after the last number; old programs end text with Ctrl-Z or fill it up with NUL
_MOTION = re.compile(r"^[ \t]*MOTION[ \t]*$", re.MULTILINE | re.IGNORECASE)
_TIMING = re.compile(
    r"\s*Frames\s*(?::\s*)?(\S+)\s+Frame\s*Time\s*(?::\s*)?(\S+)[^\S\n]*(?:\n|$)", re.IGNORECASE
)  # glued, spaced and in any case; no stretch of blanks can be divided in two ways, which would take quadratic time


@dataclass
class BVH:
    """A hierarchy of joints and its motion.

    `offsets` (J, 3) are as in the file; `channels` one tuple of names a joint; `values` (T, sum of channels).
    `end_offsets` maps a joint to the offset of its "End Site"; `notes` say what a lenient reading put right.
    """

    names: list[str]
    parents: list[int]
    offsets: Float
    channels: list[tuple[str, ...]]
    frame_time: float
    values: Float
    end_offsets: dict[int, Float]
    notes: list[str] = field(default_factory=list)
    metres_per_unit: float | None = None

    @property
    def fps(self) -> float:
        """Frames a second; 0 if the file gives no usable one.

        Files round the frame time (0.033333); integer rates within 0.1 % of it are assumed.
        """
        if not 1 / _RATES[1] <= self.frame_time <= 1 / _RATES[0]:
            return 0.0
        rate = 1.0 / self.frame_time
        return float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate else rate

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.values)

    def local_transforms(self) -> tuple[Float, Float]:
        """Rotation (T, J, 3, 3) and translation (T, J, 3) of every joint relative to its parent.

        A joint's position channels replace its OFFSET, as programs that write them on every joint mean it.
        """
        frames, column = len(self.values), 0
        rotations = np.broadcast_to(np.eye(3), (frames, len(self.names), 3, 3)).copy()
        translations = np.broadcast_to(self.offsets, (frames, len(self.names), 3)).copy()
        for joint, channels in enumerate(self.channels):
            values = self.values[:, column : column + len(channels)]
            column += len(channels)
            turning = [i for i, name in enumerate(channels) if name.endswith("rotation")]
            for i, name in enumerate(channels):
                if name.endswith("position"):
                    translations[:, joint, "XYZ".index(name[0])] = values[:, i]
            if len(turning) == 3:
                order = "".join(channels[i][0] for i in turning)
                rotations[:, joint] = euler_to_matrix(np.radians(values[:, turning]), order)
            else:  # one or two axes: a product of what is there
                for i in turning:
                    angles = np.zeros((frames, 3))
                    angles[:, 0] = np.radians(values[:, i])
                    rotations[:, joint] = rotations[:, joint] @ euler_to_matrix(angles, channels[i][0] * 3)
        return rotations, translations

    def global_transforms(self) -> tuple[Float, Float]:
        """Rotation (T, J, 3, 3) and position (T, J, 3) of every joint in the world, in the file's units and axes."""
        return chain(self.parents, *self.local_transforms())

    def rest_transforms(self) -> tuple[Float, Float]:
        """Rotation (J, 3, 3) and position (J, 3) with all angles zero.

        A bone that has position channels is their mean.
        """
        bones, column = self.offsets.copy(), 0
        for joint, channels in enumerate(self.channels):
            for i, name in enumerate(channels):
                if name.endswith("position") and self.parents[joint] >= 0:
                    bones[joint, "XYZ".index(name[0])] = self.values[:, column + i].mean()
            column += len(channels)
        unturned = np.broadcast_to(np.eye(3), (1, len(self.names), 3, 3))
        rotations, positions = chain(self.parents, unturned, bones[None])
        return rotations[0], positions[0]


def read_bvh(path: str | os.PathLike[str]) -> BVH:
    """Read a file. Raises `BVHError` for text that is not BVH, truncated motion data, NaN and infinities.

    What other readers accept is accepted: keywords and channels in any case, glued braces and colons, comments,
    Windows text, and surplus rows, which are ignored with a note.
    """
    try:
        text = decode(read_bytes(path, MAX_BYTES, error=BVHError).rstrip(_PADDING), path)
    except ValueError as error:
        raise error if isinstance(error, BVHError) else BVHError(f"not a BVH file: {error}") from error
    if "#" in text or "//" in text:
        text = re.sub(r"(^|(?<=\s))(#|//).*$", "", text, flags=re.MULTILINE)
    found = _MOTION.search(text)
    head = text[: found.start()] if found else text
    if found is None or not head.lstrip().upper().startswith("HIERARCHY"):
        raise BVHError(f"{path}: not a BVH file: expected a HIERARCHY and a MOTION section, got {text[:40]!r}")
    notes: list[str] = []
    joints = parse_hierarchy(head, path)
    frame_time, values = _parse_motion(text[found.end() :], sum(map(len, joints.channels)), path, notes)
    check_size(len(values), len(joints.names), path, BVHError)
    return BVH(
        joints.names, joints.parents, np.array(joints.offsets), joints.channels, frame_time, values, joints.ends, notes
    )


def _parse_motion(text: str, width: int, path: str | os.PathLike[str], notes: list[str]) -> tuple[float, Float]:
    timing = _TIMING.match(text)
    if timing is None:
        raise BVHError(f"{path}: MOTION must start with 'Frames: n' and 'Frame Time: s', got {text.split(None, 5)[:5]}")
    if width == 0:
        raise BVHError(f"{path}: no joint has CHANNELS, so nothing moves")
    try:
        frames, frame_time = int(timing[1]), float(timing[2].replace(",", "."))
    except ValueError as error:
        raise BVHError(f"{path}: 'Frames' or 'Frame Time' is not a number ({error})") from error
    if not 1 / _RATES[1] <= frame_time <= 1 / _RATES[0]:
        notes.append(f"a frame time of {frame_time} s is not usable")
    flat = _numbers(text[timing.end() :], path)
    surplus, rest = divmod(flat.size - frames * width, width)
    if frames < 1 or surplus < 0 or rest:
        raise BVHError(f"{path}: says {frames} frames of {width} channels, but holds {flat.size} values")
    if surplus:
        notes.append(f"holds {surplus} more rows than its {frames} frames; they are ignored")
    values = flat[: frames * width].reshape(frames, width)
    good = np.isfinite(values).all(axis=1)
    if not good.all():
        raise BVHError(f"{path}: frame {int(np.flatnonzero(~good)[0])} holds a NaN or infinite value")
    return frame_time, values


def _numbers(text: str, path: str | os.PathLike[str]) -> Float:
    try:
        return np.array(text.split(), dtype=np.float64)
    except ValueError as error:
        raise BVHError(f"{path}: the MOTION section holds something that is not a number ({error})") from error
