"""ASF and AMC (Acclaim), as CMU publishes its motion capture: a skeleton for a subject, and a file of angles a trial.

The joint of a bone is where the bone starts; its angles turn about the bone's own axes (`axis`), which lie in the world
when the body is in its zero pose, a T-pose. Lengths are in inches over the `length` of :units. AMC files name no rate:
CMU's are 120 frames a second, some 60. Source: the Acclaim format as described in CMU's own documentation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.io.source import MotionFileError, SkeletalMotion, check_size
from hftrainer.motion.rotation import euler_to_matrix, transpose
from hftrainer.plain_text import decode
from hftrainer.readers import read_bytes

Float = NDArray[np.float64]
FPS = 120.0
_INCH = 0.0254
_MAX_BYTES = 1 << 30
_MAX_DOF = 12  # channels of a bone
_ANGLES = ("rx", "ry", "rz")


@dataclass
class Bone:
    """`offset` (3,) from its start to its end in the zero pose, `axis` (3, 3) its own axes, `dof` its channels."""

    name: str
    offset: Float
    axis: Float
    dof: list[str] = field(default_factory=list)


@dataclass
class Skeleton:
    """Bones in the order of the hierarchy, the root first; `parents` by number; `length` is the scale of :units."""

    bones: list[Bone]
    parents: list[int]
    length: float


def companions(path: str | os.PathLike[str]) -> list[Path]:
    """The skeleton of an AMC file: <subject>.asf beside 07_01.amc, or the only .asf there."""
    path = Path(path)
    beside = sorted(p for p in path.parent.iterdir() if p.suffix.lower() == ".asf")
    named = [p for p in beside if path.stem.lower() == p.stem.lower()]
    named = named or [p for p in beside if path.stem.lower().startswith(p.stem.lower() + "_")]
    found = named or beside
    if len(found) != 1:
        raise MotionFileError(f"{path}: its skeleton should be beside it, as {path.stem.partition('_')[0]}.asf")
    return found


def read_amc(path: str | os.PathLike[str]) -> SkeletalMotion:
    """The motion of an AMC file on the skeleton beside it. Raises `MotionFileError`."""
    skeleton = read_asf(companions(path)[0])
    rows = _rows(path, skeleton)
    count = len(skeleton.bones)
    check_size(len(rows), count, path)
    rotations = np.empty((len(rows), count, 3, 3))
    translations = np.zeros((len(rows), count, 3))
    column = 0
    for number, bone in enumerate(skeleton.bones):
        values = rows[:, column : column + len(bone.dof)]
        column += len(bone.dof)
        angles = np.zeros((len(rows), 3))
        for index, channel in enumerate(bone.dof):
            if channel in _ANGLES:
                angles[:, _ANGLES.index(channel)] = np.radians(values[:, index])
            elif channel in ("tx", "ty", "tz") and number == 0:
                translations[:, 0, "xyz".index(channel[1])] = values[:, index]
        turn = euler_to_matrix(angles[:, [2, 1, 0]], "ZYX")  # about x first
        rotations[:, number] = bone.axis @ turn @ transpose(bone.axis)
        if number:
            translations[:, number] = skeleton.bones[skeleton.parents[number]].offset
    parents_of = set(skeleton.parents)
    rest = np.broadcast_to(np.eye(3), (count, 3, 3))
    return SkeletalMotion(
        names=[bone.name for bone in skeleton.bones],
        parents=skeleton.parents,
        rotations=rotations,
        translations=translations,
        rest_rotations=rest,
        rest_translations=np.array([np.zeros(3), *translations[0, 1:]]),
        fps=FPS,
        metres_per_unit=_INCH / skeleton.length,
        end_offsets={n: b.offset for n, b in enumerate(skeleton.bones) if n not in parents_of},
        notes=[f"AMC files have no frame rate; assuming {FPS:g} fps (override with --fps)"],
    )


def read_asf(path: str | os.PathLike[str]) -> Skeleton:
    """The skeleton of an ASF file. Raises `MotionFileError`."""
    sections = _sections(path)
    length = 1.0
    bones = {"root": Bone("root", np.zeros(3), np.eye(3), [])}
    try:
        for words in sections.get("units", []):
            if words[0].lower() == "length":
                length = float(words[1])
        degrees = all(words[1].lower().startswith("deg") for words in sections["units"] if words[0].lower() == "angle")
        for words in sections["root"]:
            if words[0].lower() == "order":
                bones["root"].dof = [word.lower() for word in words[1 : 1 + _MAX_DOF]]
        for block in _blocks(sections["bonedata"]):
            bone = _bone(block, degrees)
            bones[bone.name] = bone
        order, parents = ["root"], [-1]
        for words in sections["hierarchy"]:
            if words[0].lower() in ("begin", "end"):
                continue
            for child in words[1:]:
                parents.append(order.index(words[0]))
                order.append(child)
        if length <= 0 or len(set(order)) < len(order):
            raise ValueError("a length of 0, or a bone with two parents")
        return Skeleton([bones[name] for name in order], parents, length)
    except (KeyError, IndexError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MotionFileError(f"{path}: not a readable ASF skeleton ({reason})") from error


def _bone(block: list[list[str]], degrees: bool) -> Bone:
    fields = {words[0].lower(): words[1:] for words in block}
    direction = np.array([float(v) for v in fields["direction"][:3]])
    norm = np.linalg.norm(direction)
    offset = direction / norm * float(fields["length"][0]) if norm > 0 else np.zeros(3)
    angles = np.array([float(v) for v in fields["axis"][:3]])
    order = fields["axis"][3].upper() if len(fields["axis"]) > 3 else "XYZ"
    by_axis = dict(zip(order, np.radians(angles) if degrees else angles, strict=True))
    axis = euler_to_matrix(np.array([by_axis[c] for c in order[::-1]]), order[::-1])  # the first one turns first
    if not (np.isfinite(offset).all() and np.isfinite(axis).all()):
        raise ValueError("numbers that are not finite")
    dof = [word.lower() for word in fields.get("dof", [])]
    if len(dof) > _MAX_DOF:
        raise ValueError(f"a bone with {len(dof)} channels")
    return Bone(fields["name"][0], offset, axis, dof)


def _blocks(lines: list[list[str]]) -> Iterator[list[list[str]]]:
    block: list[list[str]] = []
    for words in lines:
        if words[0].lower() == "begin":
            block = []
        elif words[0].lower() == "end":
            yield block
        else:
            block.append(words)


def _sections(path: str | os.PathLike[str]) -> dict[str, list[list[str]]]:
    out: dict[str, list[list[str]]] = {}
    current: list[list[str]] = []
    for line in _lines(path):
        if line.startswith(":"):
            current = out.setdefault(line[1:].partition(" ")[0].strip().lower(), [])
        else:
            current.append(line.split())
    return out


def _rows(path: str | os.PathLike[str], skeleton: Skeleton) -> Float:
    """Values (T, sum of dof) in the order of the skeleton; every frame has a line for the same bones, the root's too.

    A bone that no frame names keeps its zero pose.
    """
    starts, width = {}, 0
    for bone in skeleton.bones:
        starts[bone.name] = width
        width += len(bone.dof)
    sizes = {bone.name: len(bone.dof) for bone in skeleton.bones}
    rows: list[Float] = []
    numbers: list[int] = []
    named: list[set[str]] = []
    degrees = False
    try:
        for line in _lines(path):
            if line.startswith(":"):
                if line[1:].strip().lower() == "radians":
                    raise MotionFileError(f"{path}: angles in radians are not supported, only :DEGREES")
                degrees |= line[1:].strip().lower() == "degrees"
                continue
            words = line.split()
            if len(words) == 1 and words[0].isdecimal():
                check_size(len(rows) + 1, len(skeleton.bones), path)
                rows.append(np.zeros(width))
                numbers.append(int(words[0]))
                named.append(set())
            elif words[0] in starts:
                values = np.array(words[1:], dtype=np.float64)
                if len(values) != sizes[words[0]]:
                    raise ValueError(f"{words[0]} has {len(values)} values, its skeleton {sizes[words[0]]}")
                if not rows:
                    raise ValueError(f"{words[0]} comes before the number of the first frame")
                if words[0] in named[-1]:
                    raise ValueError(f"{words[0]} has two lines, so the number of a frame is missing")
                named[-1].add(words[0])
                rows[-1][starts[words[0]] : starts[words[0]] + len(values)] = values
            else:
                raise ValueError(f"the skeleton has no bone {words[0]!r}")
    except (ValueError, IndexError) as error:
        if isinstance(error, MotionFileError):
            raise
        frame = numbers[-1] if numbers else 1
        raise MotionFileError(f"{path}: frame {frame} cannot be read ({error})") from error
    _check_complete(path, numbers, named)
    if rows and not degrees:
        raise MotionFileError(f"{path}: no :DEGREES line; add it before frame {numbers[0]} if the angles are degrees")
    if not rows or not np.isfinite(rows).all():
        raise MotionFileError(f"{path}: holds no frames, or numbers that are not finite")
    return np.stack(rows)


def _check_complete(path: str | os.PathLike[str], numbers: list[int], named: list[set[str]]) -> None:
    """Refuse frames that are left out or cut off: numbers count up by one, and each frame names the same bones."""
    everywhere = set().union(*named)
    for index, (number, bones) in enumerate(zip(numbers, named, strict=True)):
        if number != numbers[0] + index:
            raise MotionFileError(f"{path}: frame {number} follows frame {numbers[index - 1]}; frames are missing")
        if missing := sorted((everywhere | {"root"}) - bones):
            what = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise MotionFileError(f"{path}: frame {number} is incomplete: no values for {what}; is the file cut?")


def _lines(path: str | os.PathLike[str]) -> Iterator[str]:
    try:
        text = decode(read_bytes(path, _MAX_BYTES, error=MotionFileError), path)
    except ValueError as error:
        raise error if isinstance(error, MotionFileError) else MotionFileError(str(error)) from error
    for line in text.split("\n"):
        stripped = line.partition("#")[0].strip()
        if stripped:
            yield stripped
