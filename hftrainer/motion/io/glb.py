"""GLB: a skinned mannequin with one or more animations, for Blender, Unity, Unreal and the web; VRMA for VRM avatars.

Metres, Y up, the body faces +Z, as glTF has it. The tree is root, pelvis, ...; every bone's rest rotation is the
identity. Several motions of one body are several animations of one file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.animation import Animation, animate
from hftrainer.motion.body import BodyMotion, same_bones
from hftrainer.motion.edit import continuous
from hftrainer.motion.io.glb_container import ARRAY_BUFFER, INDEX_BUFFER, Buffer, write_glb
from hftrainer.motion.mannequin import COLORS, Mannequin, mannequin
from hftrainer.motion.rigs import Rig, find_rig, onto_rig
from hftrainer.motion.rotation import matrix_to_quaternion
from hftrainer.readers import FileError
from hftrainer.version import __version__

Float = NDArray[np.float64]
_STILL = 1e-7


def save_glb(
    path: str | os.PathLike[str],
    motions: Sequence[BodyMotion],
    *,
    titles: Sequence[str] | None = None,
    rig: Rig | str = "model",
    root_motion: bool = False,
    scale: float = 1.0,
) -> None:
    """Write motions of one body as the animations `titles` of one .glb, atomically.

    `scale`: glTF's unit is the metre; another one is for programs that do not know that. Raises ``ValueError`` for no
    motions and for motions of different bodies.
    """
    rig, motions, titles = _checked(path, motions, titles, rig)
    figure = mannequin(motions[0].body)
    animations = [animate(motion, rig, root_motion=root_motion) for motion in motions]
    buffer = Buffer()
    bones = len(animations[0].names)
    nodes = _bones(animations[0], scale)
    nodes.append({"name": "mannequin", "mesh": 0, "skin": 0})
    document = {
        "asset": _asset("The mannequin is CC0: use it as you like."),
        "scene": 0,
        "scenes": [{"nodes": [0, bones]}],
        "nodes": nodes,
        "skins": [_skin(animations[0], buffer, scale)],
        "meshes": [_mesh(figure, buffer, scale)],
        "materials": [_material(name, color) for name, color in COLORS.items()],
        "animations": [
            _animation(animation, title, buffer, scale) for animation, title in zip(animations, titles, strict=True)
        ],
    }
    write_glb(path, document, buffer)


def save_vrma(path: str | os.PathLike[str], motion: BodyMotion, *, title: str = "motion", lock: bool = True) -> None:
    """Write a VRM animation (VRMC_vrm_animation 1.0) that any VRM avatar can play, atomically.

    `lock`: feet are locked again on the VRM body.
    """
    rig = find_rig("vrm")
    animation = animate(onto_rig(motion, rig, lock=lock), rig)
    buffer = Buffer()
    document = {
        "asset": _asset(None),
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": _bones(animation, 1.0),
        "animations": [_animation(animation, title, buffer, 1.0)],
        "extensionsUsed": ["VRMC_vrm_animation"],
        "extensions": {
            "VRMC_vrm_animation": {
                "specVersion": "1.0",
                "humanoid": {"humanBones": {name: {"node": i + 1} for i, name in enumerate(rig.names)}},
            }
        },
    }
    write_glb(path, document, buffer)


def _checked(
    path: str | os.PathLike[str], motions: Sequence[BodyMotion], titles: Sequence[str] | None, rig: Rig | str
) -> tuple[Rig, list[BodyMotion], list[str]]:
    if not motions:
        raise FileError(f"{path}: a glb needs at least one motion, got none")
    found = find_rig(rig) if isinstance(rig, str) else rig
    moved = [onto_rig(motion, found) for motion in motions]
    if any(not same_bones(motion.body, moved[0].body) for motion in moved):
        raise FileError(
            f"{path}: motions of different bodies cannot share one file; write a file for each, or choose a skeleton "
            "with a body of its own (smpl, mixamo, unreal)"
        )
    names = list(titles) if titles is not None else [f"motion_{i}" for i in range(1, len(moved) + 1)]
    if len(names) != len(moved):
        raise FileError(f"{path}: got {len(names)} titles for {len(moved)} motions")
    seen: dict[str, int] = {}
    for i, name in enumerate(names):  # programs find animations by their names
        seen[name] = seen.get(name, 0) + 1
        names[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return found, moved, names


def _asset(note: str | None) -> dict[str, str]:
    return {"version": "2.0", "generator": f"hftrainer {__version__}", **({"copyright": note} if note else {})}


def _bones(animation: Animation, scale: float) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    for bone, name in enumerate(animation.names):
        children = [child for child, parent in enumerate(animation.parents) if parent == bone]
        node: dict[str, Any] = {"name": name, "translation": (animation.offsets[bone] * scale).tolist()}
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _skin(animation: Animation, buffer: Buffer, scale: float) -> dict[str, Any]:
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(animation.names), 1, 1))
    inverse[:, 3, :3] = -animation.rest * scale  # column-major: the translation is the last row here
    return {
        "name": "skeleton",
        "skeleton": 0,
        "joints": list(range(len(animation.names))),
        "inverseBindMatrices": buffer.add(inverse.reshape(-1, 16)),
    }


def _mesh(figure: Mannequin, buffer: Buffer, scale: float) -> dict[str, Any]:
    strongest = np.argsort(-figure.weights, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(figure.weights, strongest, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    joints = np.where(weights > 0, strongest + 1, 0)  # bone 0 is the root
    attributes = {
        "POSITION": buffer.add((figure.points * scale).astype(np.float32), target=ARRAY_BUFFER, bounds=True),
        "NORMAL": buffer.add(figure.normals.astype(np.float32), target=ARRAY_BUFFER),
        "JOINTS_0": buffer.add(joints.astype(np.uint8), target=ARRAY_BUFFER),
        "WEIGHTS_0": buffer.add(weights.astype(np.float32), target=ARRAY_BUFFER),
    }
    primitives = [
        {
            "attributes": attributes,
            "indices": buffer.add(figure.faces[name].astype(np.uint16).ravel(), target=INDEX_BUFFER),
            "material": number,
        }
        for number, name in enumerate(COLORS)
    ]
    return {"name": "mannequin", "primitives": primitives}


def _material(name: str, color: str) -> dict[str, Any]:
    srgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    factor = [*(round(float(value), 5) for value in linear), 1.0]
    return {
        "name": name,
        "pbrMetallicRoughness": {"baseColorFactor": factor, "metallicFactor": 0.0, "roughnessFactor": 0.62},
    }


def _animation(animation: Animation, title: str, buffer: Buffer, scale: float) -> dict[str, Any]:
    times = (np.arange(len(animation)) / animation.fps).astype(np.float32)
    clock = buffer.add(times, bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def channel(bone: int, path: str, values: Float) -> None:
        samplers.append({"input": clock, "output": buffer.add(values.astype(np.float32)), "interpolation": "LINEAR"})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": bone, "path": path}})

    for bone, place in animation.moves.items():
        channel(bone, "translation", place * scale)
    turns = continuous(np.asarray(matrix_to_quaternion(animation.rotations)))[..., [1, 2, 3, 0]]
    for bone in range(len(animation.names)):
        if np.abs(turns[:, bone] - [0.0, 0.0, 0.0, 1.0]).max() > _STILL:
            channel(bone, "rotation", turns[:, bone])
    return {"name": title, "samplers": samplers, "channels": channels}
