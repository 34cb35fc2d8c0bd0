"""Writing BVH files (Biovision hierarchy): centimetres, Y up, rotations in the order Z, Y, X."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from hftrainer.files import write_text
from hftrainer.motion.representation import motion272
from hftrainer.motion.representation.spec import MOTION272
from hftrainer.motion.rotation import matrix_to_euler_zyx
from hftrainer.motion.skeleton import JOINTS, PARENTS, bone_offsets

Float = NDArray[np.float64]


def format_bvh(
    rotations: Float,
    root: Float,
    offsets: Float,
    *,
    names: tuple[str, ...],
    parents: tuple[int, ...],
    fps: float,
    scale: float = 100.0,
) -> str:
    """The text of a BVH whose rest pose is the skeleton's own (all rotations zero; for SMPL-22 a T-pose).

    `rotations` (T, J, 3, 3) local, `root` (T, 3) positions and `offsets` (J, 3) in metres; the file's lengths are
    metres times `scale`, so centimetres unless told otherwise. The root's OFFSET is zero and its position channels
    are absolute, so that a reader which adds the two and one which replaces the first agree.
    """
    children: dict[int, list[int]] = {}
    for joint, parent in enumerate(parents):
        children.setdefault(parent, []).append(joint)
    lines, order = ["HIERARCHY"], []

    def emit(joint: int, depth: int) -> None:
        pad = "\t" * depth
        order.append(joint)
        offset = np.zeros(3) if depth == 0 else offsets[joint] * scale
        position = "6 Xposition Yposition Zposition" if depth == 0 else "3"
        lines.extend(
            [
                f"{pad}{'JOINT' if depth else 'ROOT'} {names[joint]}",
                f"{pad}{{",
                f"{pad}\tOFFSET {_numbers(offset)}",
                f"{pad}\tCHANNELS {position} Zrotation Yrotation Xrotation",
            ]
        )
        for child in children.get(joint, []):
            emit(child, depth + 1)
        if joint not in children:
            stub = offsets[joint] * scale * 0.5  # a short bone, so that the tip has a direction in viewers
            lines.extend([f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET {_numbers(stub)}", f"{pad}\t}}"])
        lines.append(f"{pad}}}")

    emit(0, 0)
    angles = np.degrees(matrix_to_euler_zyx(np.asarray(rotations, dtype=np.float64)[:, order]))
    table = np.concatenate([np.asarray(root) * scale, angles.reshape(len(angles), -1)], axis=1)
    lines += ["MOTION", f"Frames: {len(table)}", f"Frame Time: {1.0 / fps:.8f}"]
    lines += [_numbers(row) for row in table]
    return "\n".join(lines) + "\n"


def write_bvh(path: str | os.PathLike[str], motion: NDArray[np.floating], *, scale: float = 100.0) -> None:
    """Write a 272 motion (T, 272) as BVH on its own skeleton: 22 SMPL joints, T-pose rest, centimetres, 30 fps.

    Rotations come from the rotation channel, the skeleton is the mean of what positions and rotations say.
    """
    wide = np.asarray(motion, dtype=np.float64)
    rotations, root = motion272.to_rotations(wide)
    offsets = bone_offsets(motion272.to_joints(wide), rotations)
    text = format_bvh(rotations, root, offsets, names=JOINTS, parents=PARENTS, fps=MOTION272.fps, scale=scale)
    write_text(path, text)


def _numbers(row: Float) -> str:
    return " ".join(f"{value:.6f}" for value in row)
