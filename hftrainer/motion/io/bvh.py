"""Reading BVH files (Biovision hierarchy): any channel order, any number of channels a joint, several roots refused.

Angles in the file are degrees; lengths are whatever the writer meant, a reader has to be told. A joint's channels are
applied in the order in which they are listed: a listing ``Zrotation Xrotation Yrotation`` means Rz @ Rx @ Ry.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.rotation import euler_to_matrix

Float = NDArray[np.float64]
_CHANNELS = ("Xposition", "Yposition", "Zposition", "Xrotation", "Yrotation", "Zrotation")
_MAX_JOINTS = 4096


class BVHError(ValueError):
    """A file that is not a usable BVH; the message names the file and what is wrong with it."""


@dataclass
class BVH:
    """A hierarchy of joints and its motion.

    `offsets` (J, 3) are as in the file; `channels` one tuple of names a joint; `values` (T, sum of channels).
    `end_offsets` maps a joint to the offset of its "End Site".
    """

    names: list[str]
    parents: list[int]
    offsets: Float
    channels: list[tuple[str, ...]]
    frame_time: float
    values: Float
    end_offsets: dict[int, Float]

    @property
    def fps(self) -> float:
        """Frames a second. Files round the frame time (0.033333); whole rates within 0.1 % of it are meant."""
        rate = 1.0 / self.frame_time
        return float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate else rate

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
        rotations, translations = self.local_transforms()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                translations[:, joint] = (
                    translations[:, parent] + (rotations[:, parent] @ translations[:, joint, :, None])[..., 0]
                )
                rotations[:, joint] = rotations[:, parent] @ rotations[:, joint]
        return rotations, translations


def read_bvh(path: str | os.PathLike[str]) -> BVH:
    """Read a file. Raises `BVHError` for text that is not BVH, truncated or surplus motion data, NaN and infinities."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        raise BVHError(f"{path}: not a BVH file: it is not text ({error.reason} at byte {error.start})") from error
    head, found, tail = text.partition("MOTION")
    if not head.lstrip().startswith("HIERARCHY") or not found:
        raise BVHError(f"{path}: not a BVH file: expected a HIERARCHY and a MOTION section, got {text[:40]!r}")
    names, parents, offsets, channels, ends = _parse_hierarchy(head.split(), path)
    frame_time, values = _parse_motion(tail, sum(map(len, channels)), path)
    return BVH(names, parents, np.array(offsets), channels, frame_time, values, ends)


def _parse_hierarchy(
    tokens: list[str], path: str | os.PathLike[str]
) -> tuple[list[str], list[int], list[list[float]], list[tuple[str, ...]], dict[int, Float]]:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[tuple[str, ...]] = []
    ends: dict[int, Float] = {}
    stack: list[int] = []  # joints whose brace is open; -1 - joint is the End Site of a joint
    at = 1
    try:
        while at < len(tokens):
            word = tokens[at]
            if word in ("ROOT", "JOINT"):
                if word == "ROOT" and names:
                    raise BVHError(f"{path}: has a second ROOT {tokens[at + 1]!r}; one body a file is supported")
                end = tokens.index("{", at)
                names.append(" ".join(tokens[at + 1 : end]))
                parents.append(stack[-1] if stack else -1)
                offsets.append([0.0, 0.0, 0.0])
                channels.append(())
                stack.append(len(names) - 1)
                at = end + 1
            elif word == "End":
                stack.append(-1 - stack[-1])
                at = tokens.index("{", at) + 1
            elif word == "OFFSET":
                values = [float(v) for v in tokens[at + 1 : at + 4]]
                if stack[-1] < 0:
                    ends[-1 - stack[-1]] = np.array(values)
                else:
                    offsets[stack[-1]] = values
                at += 4
            elif word == "CHANNELS":
                count = int(tokens[at + 1])
                listed = tuple(tokens[at + 2 : at + 2 + count])
                wrong = [name for name in listed if name not in _CHANNELS]
                if wrong or len(listed) != count:
                    raise BVHError(f"{path}: joint {names[stack[-1]]!r} lists channels {listed}, expected {_CHANNELS}")
                channels[stack[-1]] = listed
                at += 2 + count
            elif word == "}":
                stack.pop()
                at += 1
            else:
                raise BVHError(f"{path}: unexpected {word!r} in the HIERARCHY")
            if len(names) > _MAX_JOINTS:
                raise BVHError(f"{path}: more than {_MAX_JOINTS} joints")
    except (IndexError, ValueError) as error:
        if isinstance(error, BVHError):
            raise
        raise BVHError(f"{path}: the HIERARCHY is broken near word {at} ({' '.join(tokens[at : at + 4])!r})") from error
    if stack or not names:
        raise BVHError(f"{path}: the HIERARCHY ends with {len(stack)} open braces and {len(names)} joints")
    if not np.isfinite(offsets).all():
        raise BVHError(f"{path}: an OFFSET is not a finite number")
    return names, parents, offsets, channels, ends


def _parse_motion(tail: str, width: int, path: str | os.PathLike[str]) -> tuple[float, Float]:
    words = tail.split(None, 5)
    if len(words) < 5 or words[0] != "Frames:" or words[2:4] != ["Frame", "Time:"]:
        raise BVHError(f"{path}: MOTION must start with 'Frames: n' and 'Frame Time: s', got {' '.join(words[:5])!r}")
    try:
        frames, frame_time = int(words[1]), float(words[4])
        flat = np.array((words[5] if len(words) > 5 else "").split(), dtype=np.float64)
    except ValueError as error:
        raise BVHError(f"{path}: the MOTION section holds something that is not a number ({error})") from error
    if not 0 < frame_time < 10:
        raise BVHError(f"{path}: a frame time of {frame_time} s is not usable")
    if frames < 1 or flat.size != frames * width:
        raise BVHError(f"{path}: says {frames} frames of {width} channels, but holds {flat.size} values")
    if not np.isfinite(flat).all():
        bad = int(np.flatnonzero(~np.isfinite(flat))[0]) // width
        raise BVHError(f"{path}: frame {bad} holds a NaN or infinite value")
    return frame_time, flat.reshape(frames, width)
