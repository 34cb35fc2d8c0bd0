"""Writing BVH files (Biovision hierarchy): rotations in the order Z, Y, X, one skeleton for all motions of a body.

The tree is root, pelvis, ..., and a bone at the end of head, hands and toes that has a name of its own: readers give
all of BVH's nameless End Sites the same name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hftrainer.files import write_text
from hftrainer.motion.animation import Animation, animate
from hftrainer.motion.body import BodyMotion
from hftrainer.motion.rotation import matrix_to_euler_zyx

Float = NDArray[np.float64]
_TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def write_bvh(
    path: str | os.PathLike[str], motion: BodyMotion | Animation, *, scale: float = 100.0, up: str = "y"
) -> None:
    """Write a motion as BVH, atomically; lengths are metres times `scale`, so centimetres unless told otherwise.

    `up`: "y", or "z" for a file whose body stands on the plane of X and Y and faces -Y.
    """
    animation = animate(motion, moving_root=True) if isinstance(motion, BodyMotion) else motion
    write_text(path, format_animation(animation, scale=scale, up=up))


def format_animation(animation: Animation, *, scale: float = 100.0, up: str = "y") -> str:
    """The text of a BVH whose rest pose is the animation's."""
    names, parents = list(animation.names), list(animation.parents)
    offsets, rotations = list(animation.offsets), animation.rotations
    still = np.broadcast_to(np.eye(3), (len(animation), 1, 3, 3))
    for bone, tip in animation.tips.items():
        names.append(f"{animation.names[bone]}_end")
        parents.append(bone)
        offsets.append(tip)
        rotations = np.concatenate([rotations, still], axis=1)
    moves = {bone: values for bone, values in animation.moves.items()}
    table = np.array(offsets)
    if up == "z":
        table, rotations = table @ _TO_Z_UP.T, _TO_Z_UP @ rotations @ _TO_Z_UP.T
        moves = {bone: values @ _TO_Z_UP.T for bone, values in moves.items()}
    elif up != "y":
        raise ValueError(f"up is 'y' or 'z', got {up!r}")
    return _format(rotations, moves, table, names, parents, animation.fps, scale)


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
    """The text of a BVH of any tree: `rotations` (T, J, 3, 3) local, `root` (T, 3), `offsets` (J, 3), metres.

    The root's OFFSET is zero and its position channels are absolute, so that a reader which adds the two and one
    which replaces the first agree. Bones without a child end in an End Site half as long as the bone.
    """
    table = np.array(offsets, dtype=np.float64)
    table[0] = 0.0
    return _format(np.asarray(rotations), {0: np.asarray(root)}, table, names, parents, fps, scale, ends=True)


def _format(
    rotations: Float,
    moves: dict[int, Float],
    offsets: Float,
    names: Sequence[str],
    parents: Sequence[int],
    fps: float,
    scale: float,
    ends: bool = False,
) -> str:
    children: dict[int, list[int]] = {}
    for joint, parent in enumerate(parents):
        children.setdefault(parent, []).append(joint)
    lines, order = ["HIERARCHY"], []

    def emit(joint: int, depth: int) -> None:
        pad = "\t" * depth
        order.append(joint)
        channels = "6 Xposition Yposition Zposition" if joint in moves else "3"
        lines.extend(
            [
                f"{pad}{'JOINT' if depth else 'ROOT'} {names[joint]}",
                f"{pad}{{",
                f"{pad}\tOFFSET {_numbers(offsets[joint] * scale)}",
                f"{pad}\tCHANNELS {channels} Zrotation Yrotation Xrotation",
            ]
        )
        for child in children.get(joint, []):
            emit(child, depth + 1)
        if joint not in children and ends:
            stub = offsets[joint] * scale * 0.5  # a short bone, so that the tip has a direction in viewers
            lines.extend([f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET {_numbers(stub)}", f"{pad}\t}}"])
        lines.append(f"{pad}}}")

    emit(0, 0)
    angles = np.degrees(matrix_to_euler_zyx(np.asarray(rotations, dtype=np.float64)[:, order]))
    angles = np.degrees(np.unwrap(np.radians(angles), axis=0))  # curves without jumps of 360 degrees
    columns = [part for i, joint in enumerate(order) for part in _channels(joint, moves, scale, angles[:, i])]
    lines += ["MOTION", f"Frames: {len(angles)}", f"Frame Time: {1.0 / fps:.8f}"]
    lines += [_numbers(row) for row in np.concatenate(columns, axis=1)]
    return "\n".join(lines) + "\n"


def _channels(joint: int, moves: dict[int, Float], scale: float, angles: Float) -> list[Float]:
    return [moves[joint] * scale, angles] if joint in moves else [angles]


def _numbers(row: Float) -> str:
    return " ".join(f"{value:.6f}" for value in row)
