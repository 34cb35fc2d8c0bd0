"""A motion from any file that we write or that others commonly have: npy, npz (ours and AMASS's), bvh, glb."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.arrays import Wanted, read_npy, read_npz
from hftrainer.motion.body import Body, BodyMotion, measure, smpl_body, symmetric
from hftrainer.motion.fit import fit, pose
from hftrainer.motion.io.bvh import BVH, read_bvh
from hftrainer.motion.io.gltf import GltfFile
from hftrainer.motion.io.npz import SMPLX_PELVIS, TO_Z_UP
from hftrainer.motion.io.source import MAX_ARRAYS, MotionFileError
from hftrainer.motion.retarget import RetargetOptions, retarget
from hftrainer.motion.rigs import find_rig, rig_names
from hftrainer.motion.rotation import axis_angle_to_matrix, quaternion_to_matrix, rotate, slerp
from hftrainer.motion.skeleton import N_JOINTS
from hftrainer.motion.skeleton_map import load_map, shipped_maps
from hftrainer.readers import FileError

Float = NDArray[np.float64]
SUFFIXES = (".npy", ".npz", ".bvh", ".glb")


def read_motions(
    path: str | os.PathLike[str], *, body: Body | None = None, skeleton_map: str | None = None, raw: bool = False
) -> list[tuple[str, BodyMotion]]:
    """The motions of a file with their names; a .glb may hold several, other files hold one.

    .npy: 272 features, fitted to `body` (default: SMPL's) unless `raw`. .npz: ours, or AMASS's layout, whose betas are
    not used. .bvh: ours or any that one of the shipped skeleton maps fits; `skeleton_map` names a map or its YAML file.
    .glb: any that has the bone names of one of our rigs. Raises ``ValueError`` that says what is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        features = read_npy(path, shape=(None, 272), finite=True)
        check_size(features, str(path))
        return [(path.stem, pose(features, body or smpl_body(), raw=raw))]
    if suffix == ".npz":
        return [(path.stem, _from_npz(path))]
    if suffix == ".bvh":
        return [(path.stem, _from_bvh(path, skeleton_map))]
    if suffix == ".glb":
        return _from_glb(path)
    raise FileError(f"{path}: cannot read {suffix or 'a file without a suffix'}; motions are {', '.join(SUFFIXES)}")


def _from_npz(path: Path) -> BodyMotion:
    names = ("rotations", "root_position", "bone_offsets", "fps", "trans", "poses", "root_orient", "pose_body", *_RATES)
    found = read_npz(path, {name: Wanted("number") for name in names}, optional=names, max_bytes=MAX_ARRAYS)
    arrays = {name: np.asarray(values, np.float64) for name, values in found.items()}
    if "trans" in arrays and ("poses" in arrays or {"root_orient", "pose_body"} <= set(arrays)):
        return _from_amass(path, arrays)
    if not set(names[:4]) <= set(arrays):
        raise FileError(
            f"{path}: holds neither our arrays (rotations, root_position, bone_offsets, fps) nor AMASS's (trans and "
            "poses, or root_orient and pose_body)"
        )
    shapes: dict[str, tuple[int | None, ...]] = {
        "rotations": (None, N_JOINTS, 3, 3), "root_position": (None, 3), "bone_offsets": (N_JOINTS, 3),
    }  # fmt: skip
    for name, shape in shapes.items():
        _check_shape(path, name, arrays[name], shape)
    rotations = arrays["rotations"]
    squared = rotations @ np.swapaxes(rotations, -1, -2)
    if not (np.abs(squared - np.eye(3)).max(initial=0) < _ROUNDED and (np.linalg.det(rotations) > 0).all()):
        raise FileError(
            f"{path}, 'rotations': expected rotation matrices (orthonormal rows, determinant 1), got other numbers"
        )
    rate = _one_number(path, "fps", arrays["fps"])
    try:
        body = Body(path.stem, symmetric(arrays["bone_offsets"]))
        return BodyMotion(rotations, arrays["root_position"], body, rate)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error


_RATES = ("mocap_frame_rate", "mocap_framerate")
_ROUNDED = 0.01  # what float16 leaves of a product of rotation matrices, with room
_LARGEST = 1e3  # metres, metres a frame, or entries of rotations: nothing in a motion is larger


def check_size(features: NDArray[Any], what: str) -> None:
    """Raise ``ValueError`` for features (T, width) too large for metres and rotations."""
    largest = float(np.abs(features).max(initial=0))
    if largest > _LARGEST:
        raise ValueError(
            f"{what}: features up to {largest:.3g} are no motion, expected metres and rotations below {_LARGEST:g}; "
            "are they in other units?"
        )


def _check_shape(path: Path, name: str, values: Float, shape: tuple[int | None, ...]) -> None:
    if values.ndim != len(shape) or any(w not in (None, n) for w, n in zip(shape, values.shape, strict=True)):
        sizes = ", ".join("frames" if size is None else str(size) for size in shape)
        raise FileError(f"{path}, {name!r}: expected shape ({sizes}), got {values.shape}")


def _one_number(path: Path, name: str, values: Float) -> float:
    if values.size != 1:
        raise FileError(f"{path}, {name!r}: expected one number, got shape {values.shape}")
    return float(values.reshape(()))


def _from_amass(path: Path, arrays: dict[str, Float]) -> BodyMotion:
    rate = next((_one_number(path, name, arrays[name]) for name in _RATES if name in arrays), None)
    if rate is None:
        raise FileError(f"{path} does not say its frame rate ({' or '.join(_RATES)})")
    _check_shape(path, "trans", arrays["trans"], (None, 3))
    frames = len(arrays["trans"])
    if {"root_orient", "pose_body"} <= set(arrays):
        for name, width in (("root_orient", 3), ("pose_body", 3 * (N_JOINTS - 1))):
            _check_shape(path, name, arrays[name], (frames, width))
        vectors = np.concatenate([arrays["root_orient"], arrays["pose_body"]], axis=1)
    else:
        poses = arrays["poses"]
        if poses.ndim != 2 or len(poses) != frames or poses.shape[1] < 3 * N_JOINTS:
            raise FileError(
                f"{path}, 'poses': expected {frames} frames (as in trans) of at least {3 * N_JOINTS} numbers, got "
                f"shape {poses.shape}"
            )
        vectors = poses[:, : 3 * N_JOINTS]
    rotations = np.asarray(axis_angle_to_matrix(vectors.reshape(len(vectors), N_JOINTS, 3)))
    rotations[:, 0] = TO_Z_UP.T @ rotations[:, 0]
    root = rotate(TO_Z_UP.T, arrays["trans"] + SMPLX_PELVIS)
    try:
        return BodyMotion(rotations, root, smpl_body(), rate)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error


# --- BVH --------------------------------------------------------------------------------------------------------------


def _from_bvh(path: Path, skeleton_map: str | None) -> BodyMotion:
    bvh = read_bvh(path)
    if not bvh.fps:
        raise FileError(f"{path}: its frame time of {bvh.frame_time} s is not usable; correct it in the file")
    if skeleton_map is None:
        ours = _our_bvh(bvh)
        if ours is not None:
            return ours
    for name in [skeleton_map] if skeleton_map is not None else shipped_maps():
        try:
            clip = retarget(bvh, load_map(name), RetargetOptions(fps=bvh.fps), source=str(path))
        except MotionFileError:
            if skeleton_map is not None:
                raise
            continue
        joints = np.asarray(clip.joints)
        return fit(joints, clip.rotations, measure([(joints, clip.rotations)], path.stem), fps=clip.fps, smoothing=1)
    raise FileError(
        f"{path}: its joints ({', '.join(bvh.names[:4])}, ...) fit none of the maps {', '.join(shipped_maps())}; "
        "write a skeleton map (docs/bvh.md) and give it with --map"
    )


def _our_bvh(bvh: BVH) -> BodyMotion | None:
    """A file that we wrote: the bones of a rig below a root, rest rotations all the identity; Y up or Z up."""
    rig = _rig_of(bvh.names)
    if rig is None or bvh.parents[bvh.names.index(rig[0])] != 0 or bvh.names[0] not in ("root", "Root"):
        return None
    order = [bvh.names.index(name) for name in rig]
    rotations, _ = bvh.local_transforms()
    world, places = bvh.global_transforms()
    offsets = bvh.offsets[order].copy()
    local, root = rotations[:, order], places[:, order[0]]
    local[:, 0] = world[:, order[0]]
    if abs(offsets[0, 2]) > abs(offsets[0, 1]):  # the pelvis is above the root along Z
        offsets, root, local = offsets @ TO_Z_UP, root @ TO_Z_UP, TO_Z_UP.T @ local @ TO_Z_UP
    scale = _unit_of(float(offsets[0, 1]))
    if scale is None:
        return None
    offsets[0] = 0.0
    return BodyMotion(local, root * scale, Body("bvh", symmetric(offsets * scale)), bvh.fps)


def _unit_of(height: float) -> float | None:
    """Metres of a file's unit (m, cm, mm, inch), by the height of a standing pelvis; None if none fits."""
    return next((unit for unit in (1.0, 0.01, 0.001, 0.0254) if 0.4 < height * unit < 1.6), None)


def _rig_of(names: Sequence[str]) -> tuple[str, ...] | None:
    known = (find_rig(name).names for name in rig_names())
    return next((rig for rig in known if set(rig) <= set(names)), None)


# --- GLB --------------------------------------------------------------------------------------------------------------


def _from_glb(path: Path) -> list[tuple[str, BodyMotion]]:
    file = GltfFile(path)
    try:
        nodes: list[dict[str, Any]] = file.json["nodes"]
        rig = _rig_of([str(node.get("name", "")) for node in nodes])
        if rig is None:
            raise MotionFileError(
                f"{path}: its bone names match none of the known skeletons ({', '.join(rig_names())})"
            )
        by_name = {str(node.get("name", "")): i for i, node in enumerate(nodes)}
        order = [by_name[name] for name in rig]
        parent = {child: i for i, node in enumerate(nodes) for child in node.get("children", [])}
        carriers = _above(order[0], parent, path)
        offsets = np.array([nodes[i].get("translation", [0.0, 0.0, 0.0]) for i in order], dtype=np.float64)
        turned = any(
            np.abs(np.array(nodes[i].get("rotation", [0, 0, 0, 1])) - [0, 0, 0, 1]).max() > 1e-4 for i in order
        )
        if turned:
            raise MotionFileError(
                f"{path}: its bones are rotated at rest; only files written by hftrainer can be read back"
            )
        scale = _unit_of(float(offsets[0, 1])) or 1.0  # glTF's unit is the metre
        offsets[0] = 0.0
        body = Body(path.stem, symmetric(offsets * scale))
        animations = file.json.get("animations") or []
        if not animations:
            raise MotionFileError(f"{path} holds no animation")
        return [
            (
                str(animation.get("name") or path.stem),
                _glb_motion(file, animation, order, carriers, body, scale),
            )
            for animation in animations
        ]
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, MotionFileError):
            raise
        raise MotionFileError(f"{path} is not a complete glTF file: {error!r}") from error


def _above(node: int, parent: dict[int, int], path: Path) -> list[int]:
    """The nodes that carry `node`, the nearest first."""
    out: list[int] = []
    while node in parent:
        node = parent[node]
        out.append(node)
        if len(out) > len(parent):
            raise MotionFileError(f"{path}: its nodes are not a tree")
    return out


def _glb_motion(
    file: GltfFile, animation: dict[str, Any], order: list[int], carriers: list[int], body: Body, scale: float
) -> BodyMotion:
    nodes, tracks, times = file.json["nodes"], {}, np.zeros(1)
    for channel in file.channels(animation):
        sampler = animation["samplers"][channel["sampler"]]
        clock, values = file.accessor(sampler["input"]).reshape(-1), file.accessor(sampler["output"])
        if len(clock) != len(values) or not len(clock) or not (np.isfinite(clock).all() and np.isfinite(values).all()):
            raise MotionFileError(f"{file.path}: a track of {str(animation.get('name'))[:40]!r} is broken")
        tracks[channel["target"]["node"], channel["target"]["path"]] = (clock, values)
        times = clock if len(clock) > len(times) else times
    fps = float(round((len(times) - 1) / (times[-1] - times[0]), 3)) if len(times) > 1 else 30.0

    def turn(node: int) -> Float:
        q = np.array([nodes[node].get("rotation", [0.0, 0.0, 0.0, 1.0])])
        clock, values = tracks.get((node, "rotation"), (times[:1], q))
        return np.asarray(quaternion_to_matrix(_sampled_turns(clock, values[:, [3, 0, 1, 2]], times)))

    def place(node: int) -> Float:
        still = np.array([nodes[node].get("translation", [0.0, 0.0, 0.0])], dtype=np.float64)
        clock, values = tracks.get((node, "translation"), (times[:1], still))
        return np.stack([np.interp(times, clock, column) for column in values.T], axis=1)

    rotations = np.stack([turn(node) for node in order], axis=1)
    root = place(order[0])
    for node in carriers:
        carried = turn(node)
        rotations[:, 0] = carried @ rotations[:, 0]
        root = place(node) + rotate(carried, root)
    return BodyMotion(rotations, root * scale, body, fps)


def _sampled_turns(clock: Float, turns: Float, times: Float) -> Float:
    if len(clock) == len(times) and np.allclose(clock, times):
        return turns
    at = np.interp(times, clock, np.arange(len(clock)))
    below = np.minimum(at.astype(np.int64), max(len(clock) - 2, 0))
    above = np.minimum(below + 1, len(clock) - 1)
    return np.asarray(slerp(turns[below], turns[above], np.clip(at - below, 0, 1)))
