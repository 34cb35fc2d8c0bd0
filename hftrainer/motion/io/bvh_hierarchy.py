"""The HIERARCHY section of a BVH file: joints, their offsets and channels."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.io.source import MAX_JOINTS, MotionFileError

Float = NDArray[np.float64]
_CHANNELS = {
    f"{axis}{kind}".lower(): f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")
}  # any case to the usual one
_MAX_DEPTH = 512


class BVHError(MotionFileError):
    """A file that is not a usable BVH; the message names the file and what is wrong with it."""


@dataclass
class Hierarchy:
    """Joints in the order of the file; `ends` maps a joint to the offset of its End Site."""

    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[tuple[str, ...]] = field(default_factory=list)
    ends: dict[int, Float] = field(default_factory=dict)


def parse_hierarchy(text: str, path: str | os.PathLike[str]) -> Hierarchy:
    """Joints of the text before MOTION."""
    tokens = re.sub(r"([{}])", r" \1 ", text).split()  # braces may be glued to names
    out = Hierarchy()
    stack: list[int] = []  # joints whose brace is open; -1 - joint is the End Site of a joint
    at = 1
    try:
        while at < len(tokens):
            at = _one_word(tokens, at, out, stack, path)
            if len(out.names) > MAX_JOINTS or len(stack) > _MAX_DEPTH:
                raise BVHError(f"{path}: more than {MAX_JOINTS} joints, or {_MAX_DEPTH} below one another")
    except (IndexError, ValueError) as error:
        if isinstance(error, BVHError):
            raise
        raise BVHError(f"{path}: the HIERARCHY is broken near word {at} ({' '.join(tokens[at : at + 4])!r})") from error
    if stack or not out.names:
        raise BVHError(f"{path}: the HIERARCHY ends with {len(stack)} open braces and {len(out.names)} joints")
    if not np.isfinite(np.array([*out.offsets, *out.ends.values()], dtype=np.float64)).all():
        raise BVHError(f"{path}: an OFFSET is not a finite number")
    return out


def _one_word(tokens: list[str], at: int, out: Hierarchy, stack: list[int], path: str | os.PathLike[str]) -> int:
    """Read the statement that starts at `at`; where the next one starts."""
    word = tokens[at].upper()
    if word in ("ROOT", "JOINT"):
        if word == "ROOT" and out.names:
            raise BVHError(f"{path}: has a second ROOT {tokens[at + 1]!r}; only one body per file is supported")
        end = tokens.index("{", at)
        out.names.append(" ".join(tokens[at + 1 : end]))
        out.parents.append(stack[-1] if stack else -1)
        out.offsets.append([0.0, 0.0, 0.0])
        out.channels.append(())
        stack.append(len(out.names) - 1)
        return end + 1
    if word in ("END", "ENDSITE"):
        stack.append(-1 - stack[-1])
        return tokens.index("{", at) + 1
    if word == "OFFSET":
        values = [float(v) for v in tokens[at + 1 : at + 4]]
        if len(values) != 3:
            raise ValueError("an OFFSET has three numbers")
        if stack[-1] < 0:
            out.ends[-1 - stack[-1]] = np.array(values)
        else:
            out.offsets[stack[-1]] = values
        return at + 4
    if word == "CHANNELS":
        count = int(tokens[at + 1])
        listed = tokens[at + 2 : at + 2 + count]
        if len(listed) != count or any(name.lower() not in _CHANNELS for name in listed) or stack[-1] < 0:
            raise BVHError(
                f"{path}: joint {out.names[stack[-1]]!r} lists channels {tuple(listed)}, "
                f"expected some of {tuple(_CHANNELS.values())}"
            )
        out.channels[stack[-1]] = tuple(_CHANNELS[name.lower()] for name in listed)
        return at + 2 + count
    if word == "}":
        stack.pop()
        return at + 1
    raise BVHError(f"{path}: unexpected {tokens[at]!r} in the HIERARCHY")
