"""The process that reads an FBX file with ufbx and writes it to standard output as .npz; see `motion.io.fbx`."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import Any

import numpy as np

from hftrainer.extras import need

_MAX_VALUES = 80_000_000
_MAX_MEMORY = 4 << 30  # bytes of addresses, of which the libraries take one gigabyte


def main(path: str) -> None:
    """Names, parents, local transforms of every frame and of the rest pose; one line of text where there are none."""
    ufbx: Any = need("ufbx", "reading FBX files")
    _limit_memory()
    gc.disable()  # freeing a scene before its parts crashes, so that nothing is freed
    try:
        scene = ufbx.load_file(path, ignore_geometry=True, node_depth_limit=512)
    except ufbx.UfbxError as error:
        _say(f"not a readable FBX file ({error})")
    except MemoryError:
        _say("needs more memory than is given to reading a file")
    nodes = sorted(scene.nodes, key=lambda node: node.node_depth)
    place = {node.element_id: number for number, node in enumerate(nodes)}
    takes = sorted(scene.anim_stacks, key=lambda take: take.time_end - take.time_begin)
    if not takes or not len(scene.anim_curves):
        _say("holds no animation")
    take = takes[-1]
    begin, end = _span(scene, take)
    fps = float(scene.settings.frames_per_second) or 30.0
    frames = int((end - begin) * fps + 1e-3) + 1
    if frames * len(nodes) * 12 > _MAX_VALUES:
        _say(f"{frames} frames of {len(nodes)} nodes are more than is read at once")
    parts = np.empty((frames, len(nodes), 10))
    for frame in range(frames):
        for number, node in enumerate(nodes):
            parts[frame, number] = _parts(node.evaluate_transform(take.anim, begin + frame / fps))
    bound: dict[int, list[list[float]]] = {}
    for pose in scene.poses:
        for bone in pose.bone_poses if pose.is_bind_pose else ():
            bound.setdefault(place[bone.bone_node.element_id], _matrix(bone.bone_to_world))
    several = [f"holds {len(takes)} takes; the longest, {take.name[:40]!r}, is read"] if len(takes) > 1 else []
    stream = io.BytesIO()
    np.savez(
        stream,
        names=np.array([node.name for node in nodes], dtype=np.str_),
        parents=np.array([place[n.parent.element_id] if n.parent is not None else -1 for n in nodes]),
        parts=parts,
        still=np.array([_parts(node.local_transform) for node in nodes]),
        bound=np.array(list(bound), dtype=np.int64),
        bind=np.array(list(bound.values())).reshape(-1, 4, 4),
        fps=np.array(fps),
        unit=np.array(float(scene.settings.unit_meters)),
        notes=np.array(several, dtype=np.str_),
    )
    sys.stdout.buffer.write(stream.getvalue())
    sys.stdout.buffer.flush()
    os._exit(0)


def _limit_memory() -> None:
    """Files may say that they have more of something than there is memory for."""
    try:
        import resource
    except ImportError:  # Windows
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY if most < 0 else min(most, _MAX_MEMORY), most))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


def _span(scene: Any, take: Any) -> tuple[float, float]:
    """Seconds at which a take begins and ends: its own, or those of the keys where it says none."""
    if take.time_end > take.time_begin:
        return float(take.time_begin), float(take.time_end)
    ends = []
    for curve in scene.anim_curves:  # keyframes must not outlive their curve
        keys = curve.keyframes
        if len(keys):
            ends.append((keys[0].time, keys[len(keys) - 1].time))
    return min((first for first, _ in ends), default=0.0), max((last for _, last in ends), default=0.0)


def _parts(transform: Any) -> list[float]:
    t, q, s = transform.translation, transform.rotation, transform.scale
    return [t.x, t.y, t.z, q.w, q.x, q.y, q.z, s.x, s.y, s.z]


def _matrix(m: Any) -> list[list[float]]:
    columns = [[c.x, c.y, c.z] for c in (m.c0, m.c1, m.c2, m.c3)]
    return [*(list(row) for row in zip(*columns, strict=True)), [0.0, 0.0, 0.0, 1.0]]


if __name__ == "__main__":
    main(sys.argv[1])
