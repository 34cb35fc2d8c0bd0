"""Animations of glTF 2.0 files (.glb, .gltf): Mixamo, VRM, Ready Player Me and what Blender exports.

The rest pose is the one that the skin is bound in, or, without a skin, the nodes' own. The longest animation is read,
at the rate of its keys. Source: the glTF 2.0 specification of Khronos.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.io.nodes import as_motion, matrices, world_matrices
from hftrainer.motion.io.source import MAX_VALUES, MotionFileError, SkeletalMotion, check_size
from hftrainer.motion.rotation import matrix_to_quaternion, slerp
from hftrainer.readers import check_list, inside, parse_json, read_bytes

Float = NDArray[np.float64]
_MAX_BYTES = 2 << 30
_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_PARTS = ("nodes", "animations", "accessors", "bufferViews", "buffers", "skins")
_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MAX_FPS = 240.0
_MAX_FRAMES_OF_KEYS = 20
_PROPERTIES, _FEW_CHANNELS, _MAX_CHANNELS = 4, 256, 50_000
_SAME_TIME = 1e-4  # seconds; key times are float32
Track = tuple[int, str, Float, Float, str]  # node, kind, key times, values, interpolation


def companions(path: str | os.PathLike[str]) -> list[Path]:
    """The buffers beside a .gltf file."""
    return [p for p in GltfFile(path).external() if p.is_file()]


def read_gltf(path: str | os.PathLike[str]) -> SkeletalMotion:
    """The motion of the longest animation. Raises `MotionFileError`."""
    file = GltfFile(path)
    try:
        with np.errstate(all="ignore"):  # numbers that are none are refused, with the file's name
            return _motion(file)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        if isinstance(error, MotionFileError):
            raise
        raise MotionFileError(f"{path}: not a readable glTF file ({type(error).__name__}: {error})") from error


def _motion(file: GltfFile) -> SkeletalMotion:
    nodes = file.json.get("nodes", [])
    animations = file.json.get("animations", [])
    if not animations:
        raise MotionFileError(f"{file.path}: holds no animation")
    order, parents = _tree(nodes, file.path)
    place = {node: number for number, node in enumerate(order)}
    tracks = [list(_tracks(file, animation, place)) for animation in animations]
    longest = max(range(len(tracks)), key=lambda n: max((times[-1] for _, _, times, _, _ in tracks[n]), default=0.0))
    chosen = tracks[longest]
    if not chosen:
        raise MotionFileError(f"{file.path}: its animations move no node")
    start, end = min(t[0] for _, _, t, _, _ in chosen), max(t[-1] for _, _, t, _, _ in chosen)
    fps = _rate([t for _, _, t, _, _ in chosen])
    frames = int((end - start) * fps + 1e-3) + 1
    most = max(len(t) for _, _, t, _, _ in chosen)
    if frames > _MAX_FRAMES_OF_KEYS * most + 10_000:
        raise MotionFileError(f"{file.path}: {most} keys over {frames} frames are no motion")
    check_size(frames, len(order), file.path)
    times = start + np.arange(frames) / fps
    still = [_node_parts(nodes[node]) for node in order]
    parts = {
        kind: np.broadcast_to(np.array([s[i] for s in still]), (frames, len(order), len(still[0][i]))).copy()
        for i, kind in enumerate(("translation", "rotation", "scale"))
    }
    for number, kind, keys, values, how in chosen:
        parts[kind][:, number] = _sample(times, keys, values, how, kind == "rotation")
    quaternions = parts["rotation"][..., [3, 0, 1, 2]]
    world = world_matrices(parents, matrices(parts["translation"], quaternions, parts["scale"]))
    arrays = [np.array([s[i] for s in still], dtype=np.float64) for i in range(3)]
    rest = world_matrices(parents, matrices(arrays[0], arrays[1][..., [3, 0, 1, 2]], arrays[2])[None])[0]
    rest = _bind_pose(file, place, parents, rest)
    notes = []
    if len(animations) > 1:
        name = animations[longest].get("name", longest)
        notes.append(f"holds {len(animations)} animations; the longest, {str(name)[:40]!r}, is read")
    names = [str(nodes[node].get("name", f"node {node}")) for node in order]
    return as_motion(names, parents, world, rest, fps, notes, metres_per_unit=1.0)


def _tree(nodes: list[Any], path: Path) -> tuple[list[int], list[int]]:
    """Nodes, parents first, and the place of each one's parent."""
    parent_of = {child: node for node, fields in enumerate(nodes) for child in fields.get("children", [])}
    check_size(1, max(len(nodes), 1), path)
    order: list[int] = []
    waiting = [node for node in range(len(nodes)) if node not in parent_of]
    while waiting and len(order) <= len(nodes):  # a loop would never end
        node = waiting.pop()
        order.append(node)
        waiting += nodes[node].get("children", [])
    if len(order) != len(nodes) or len(set(order)) != len(order):
        raise MotionFileError(f"{path}: its nodes are not a tree")
    place = {node: number for number, node in enumerate(order)}
    return order, [place[parent_of[node]] if node in parent_of else -1 for node in order]


def _node_parts(node: dict[str, Any]) -> tuple[list[float], list[float], list[float]]:
    """Translation, rotation x y z w and scale."""
    if "matrix" in node:
        matrix = np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
        scale = np.linalg.norm(matrix[:3, :3], axis=0)
        w, x, y, z = matrix_to_quaternion(matrix[:3, :3] / scale)
        return matrix[:3, 3].tolist(), [x, y, z, w], scale.tolist()
    return (
        list(node.get("translation", (0.0, 0.0, 0.0))),
        list(node.get("rotation", (0.0, 0.0, 0.0, 1.0))),
        list(node.get("scale", (1.0, 1.0, 1.0))),
    )


def _tracks(file: GltfFile, animation: dict[str, Any], place: dict[int, int]) -> Iterator[Track]:
    """Node, kind, key times, values and interpolation of each channel that moves a node."""
    for channel in file.channels(animation):
        target = channel["target"]
        if target.get("path") not in ("translation", "rotation", "scale") or target.get("node") not in place:
            continue
        sampler = animation["samplers"][channel["sampler"]]
        times, values = file.accessor(sampler["input"]).reshape(-1), file.accessor(sampler["output"])
        how = sampler.get("interpolation", "LINEAR")
        count = len(times) * (3 if how == "CUBICSPLINE" else 1)
        good = len(times) and len(values) == count and np.isfinite(times).all() and np.isfinite(values).all()
        if not good or (np.diff(times) < 0).any() or not 0 <= times[0] <= times[-1] < 1e6:
            raise MotionFileError(f"{file.path}: a track of {animation.get('name', 'an animation')!r} is broken")
        yield place[target["node"]], target["path"], times, values, how


def _rate(times: list[Float]) -> float:
    """Frames a second of the densest keys."""
    different = {id(t): t for t in times}.values()  # tracks share their clocks
    steps = np.concatenate([np.diff(t) for t in different if len(t) > 1] or [np.array([1 / 30])])
    steps = steps[steps > 1e-6]
    rate = 1.0 / float(np.median(steps)) if len(steps) else 30.0
    rate = min(max(rate, 1.0), _MAX_FPS)
    return float(round(rate)) if abs(rate - round(rate)) < 0.02 * rate else rate


def _sample(at: Float, times: Float, values: Float, how: str, turning: bool) -> Float:
    """Values at the times `at`; keys hold before the first and after the last."""
    if how == "CUBICSPLINE":
        tangents_in, values, tangents_out = values[0::3], values[1::3], values[2::3]
    if len(times) == 1:
        return np.broadcast_to(values[0], (len(at), values.shape[1])).copy()
    below = np.clip(np.searchsorted(times, at + _SAME_TIME, side="right") - 1, 0, len(times) - 2)
    span = np.maximum(times[below + 1] - times[below], 1e-9)
    t = np.clip((at - times[below]) / span, 0.0, 1.0)[:, None]
    a, b = values[below], values[below + 1]
    if how == "STEP":
        return np.asarray(np.where(at[:, None] < times[below + 1, None] - _SAME_TIME, a, b))
    if how == "CUBICSPLINE":
        m, n = tangents_out[below] * span[:, None], tangents_in[below + 1] * span[:, None]
        out = (2 * t**3 - 3 * t**2 + 1) * a + (t**3 - 2 * t**2 + t) * m + (3 * t**2 - 2 * t**3) * b + (t**3 - t**2) * n
        return np.asarray(out)
    if turning:  # x y z w to w x y z and back
        q = np.asarray(slerp(a[:, [3, 0, 1, 2]], b[:, [3, 0, 1, 2]], t[:, 0]))
        return q[:, [1, 2, 3, 0]]
    return np.asarray(a + t * (b - a))


def _bind_pose(file: GltfFile, place: dict[int, int], parents: list[int], rest: Float) -> Float:
    """World transforms of the pose that skins are bound in; nodes outside of skins keep theirs to their parent."""
    bound: dict[int, Float] = {}
    for skin in file.json.get("skins", []):
        if "inverseBindMatrices" in skin:
            inverse = file.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
            for joint, matrix in zip(skin["joints"], inverse, strict=True):
                if abs(np.linalg.det(matrix)) > 1e-18:
                    bound.setdefault(place[joint], np.asarray(np.linalg.inv(matrix), dtype=np.float64))
    out = rest.copy()
    for node, parent in enumerate(parents):
        if node in bound:
            out[node] = bound[node]
        elif parent >= 0:
            out[node] = out[parent] @ np.linalg.solve(rest[parent], rest[node])
    return out


class GltfFile:
    """The JSON of a glTF file and its buffers."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        data = read_bytes(path, _MAX_BYTES, error=MotionFileError)
        self.binary = b""
        if data[:4] != b"glTF" and self.path.suffix.lower() == ".glb":
            raise MotionFileError(f"{path}: not a binary glTF file")
        if data[:4] == b"glTF":
            if len(data) < 20 or int.from_bytes(data[8:12], "little") > len(data):
                raise MotionFileError(f"{path}: is cut short")
            chunks = dict(reversed(list(_chunks(data, self.path))))
            self.binary = chunks.get(b"BIN\0", b"")
            data = chunks.get(b"JSON", b"")
        self.json: dict[str, Any] = parse_json(data, path, dict, error=MotionFileError)
        self._buffers: dict[int, bytes] = {}
        self._read: dict[int, Float] = {}
        self._values = self._channels = 0
        for part in _PARTS:
            check_list(self.json.get(part, []), dict, f"{path}, {part!r}", error=MotionFileError)

    def external(self) -> Iterator[Path]:
        """Files beside this one that hold its buffers."""
        for buffer in self.json.get("buffers", []):
            uri = buffer.get("uri")
            if isinstance(uri, str) and not uri.startswith("data:"):
                yield inside(self.path.parent, unquote(uri), what=f"{self.path}: a buffer", error=MotionFileError)

    def channels(self, animation: dict[str, Any]) -> list[dict[str, Any]]:
        """The channels of an animation, of which no two may move the same property of a node."""
        channels: list[dict[str, Any]] = animation["channels"]
        self._channels += len(channels)
        if len(channels) > _FEW_CHANNELS + _PROPERTIES * len(self.json["nodes"]) or self._channels > _MAX_CHANNELS:
            raise MotionFileError(f"{self.path}: its animations have {self._channels} tracks, more than its nodes can")
        return channels

    def accessor(self, number: int) -> Float:
        """The values (count, size) of an accessor, whole numbers as normalized floats where it says so.

        Tracks may share one; it is read once, and all of them together have a limit.
        """
        if number not in self._read:
            self._read[number] = self._accessor(number)
        return self._read[number]

    def _accessor(self, number: int) -> Float:
        accessor = self.json["accessors"][number]
        size, dtype = _SIZES[accessor["type"]], np.dtype(_TYPES[accessor["componentType"]])
        count = int(accessor["count"])
        if "sparse" in accessor or "bufferView" not in accessor:
            raise MotionFileError(f"{self.path}: sparse accessors are not supported")
        view = self.json["bufferViews"][accessor["bufferView"]]
        data = self._buffer(int(view.get("buffer", 0)))
        start = int(view.get("byteOffset", 0)) + int(accessor.get("byteOffset", 0))
        stride = int(view.get("byteStride", size * dtype.itemsize))
        row = size * dtype.itemsize
        if min(count - 1, start, stride - row) < 0 or start + (count - 1) * stride + row > len(data):
            raise MotionFileError(f"{self.path}: accessor {number} reaches past its buffer")
        self._values += count * size
        if self._values > MAX_VALUES:
            raise MotionFileError(f"{self.path}: its animations hold more than {MAX_VALUES} numbers")
        array = np.ndarray((count, size), dtype, data, start, (stride, dtype.itemsize))
        values = array.astype(np.float64)
        if accessor.get("normalized") and dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(dtype).max, -1.0)
        return values

    def _buffer(self, number: int) -> bytes:
        if number not in self._buffers:
            self._buffers[number] = self._read_buffer(number)
        return self._buffers[number]

    def _read_buffer(self, number: int) -> bytes:
        buffer = self.json["buffers"][number]
        uri = buffer.get("uri")
        if uri is None:
            return self.binary
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise MotionFileError(f"{self.path}: buffer {number} is not base64") from error
        path = inside(self.path.parent, unquote(uri), what=f"{self.path}: a buffer", error=MotionFileError)
        return read_bytes(path, _MAX_BYTES, error=MotionFileError)


def _chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<I4s", data, at)
        if at + 8 + length > len(data):
            raise MotionFileError(f"{path}: is cut short")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length
