"""From any BVH skeleton to the 22 SMPL joints, by a joint map; no optimisation and no body model.

A joint map pairs SMPL joints with joints of the file and says how the file's joints are oriented when the body stands
in SMPL's rest pose, a T-pose. The global rotation of an SMPL joint is then the file's global rotation, seen from that
rest orientation, so bend and **twist** are both carried over as the file has them; nothing is re-estimated from
positions. Arms and legs whose rest bones are not quite on the T-pose's axes (an A-pose, spread legs) are turned onto
them by the smallest rotation, which adds no twist.

A **missing joint** (``null`` in the map) is put on the straight line between its neighbours and does not bend on its
own; ``Name@end`` stands for the End Site of joint ``Name``. Joints of the file that the map does not name are left
out; where they bend between two named ones, the bone between those two gets its mean direction.

Positions come from forward kinematics of the rotations with the clip's own mean bones, so the two always agree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hftrainer.motion.io.bvh import BVH, BVHError
from hftrainer.motion.resample import resample_positions, resample_rotations
from hftrainer.motion.rotation import between_vectors, rotate, transpose
from hftrainer.motion.skeleton import JOINTS, PARENTS, forward_kinematics, local_rotations

Float = NDArray[np.float64]
SHIPPED = Path(__file__).parent / "skeletons"
_AXES = {"+X": (1, 0, 0), "-X": (-1, 0, 0), "+Y": (0, 1, 0), "-Y": (0, -1, 0), "+Z": (0, 0, 1), "-Z": (0, 0, -1)}

# Bones that a T-pose puts on an axis: (joint, its child, direction of the bone, joints that move along).
_T_POSE = tuple(
    bone
    for side, x in (("left", "+X"), ("right", "-X"))
    for bone in (
        (f"{side}_shoulder", f"{side}_elbow", x, (f"{side}_elbow", f"{side}_wrist")),
        (f"{side}_elbow", f"{side}_wrist", x, (f"{side}_wrist",)),
        (f"{side}_hip", f"{side}_knee", "-Y", ()),
        (f"{side}_knee", f"{side}_ankle", "-Y", ()),
    )
)


@dataclass
class SkeletonMap:
    """How the joints of a family of BVH files correspond to SMPL's; `docs/bvh.md` explains how to write one."""

    name: str
    joints: dict[str, str | None]
    metres_per_unit: float
    rest: dict[str, dict[str, Any]] = field(default_factory=dict)
    up: str = "+Y"
    forward: str = "+Z"
    prefixes: list[str] = field(default_factory=lambda: [""])
    straighten: bool = True

    def __post_init__(self) -> None:
        wrong = [j for j in (*self.joints, *self.rest) if j not in JOINTS]
        missing = [j for j in JOINTS if j not in self.joints]
        if wrong or missing:
            near = [m for w in wrong for m in get_close_matches(w, JOINTS, n=1)]
            raise ValueError(
                f"skeleton map {self.name!r}: unknown SMPL joints {wrong} (near: {near}), missing {missing}; "
                "write null for a joint that the files do not have"
            )
        if self.joints["pelvis"] is None:
            raise ValueError(f"skeleton map {self.name!r}: the pelvis cannot be null")
        for child in JOINTS:
            if self.joints[child] is None and not any(
                PARENTS[j] == JOINTS.index(child) and self._reaches_mapped(j) for j in range(len(JOINTS))
            ):
                raise ValueError(f"skeleton map {self.name!r}: {child} is null and nothing below it is mapped")
        if not self.metres_per_unit > 0:
            raise ValueError(f"skeleton map {self.name!r}: metres_per_unit must be positive")
        for axis in (self.up, self.forward):
            _direction(axis)

    def _reaches_mapped(self, joint: int) -> bool:
        return self.joints[JOINTS[joint]] is not None or any(
            PARENTS[child] == joint and self._reaches_mapped(child) for child in range(len(JOINTS))
        )


def shipped_maps() -> list[str]:
    """Names that `load_map` knows."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_map(name_or_path: str | os.PathLike[str]) -> SkeletonMap:
    """A shipped map by name, or a map of one's own by the path of its YAML file."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ValueError(
            f"no skeleton map {str(name_or_path)!r}; shipped: {', '.join(shipped_maps())}; or give a YAML file's path"
        )
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return SkeletonMap(**{"name": path.stem, **fields})
    except TypeError as error:
        raise ValueError(f"{path}: {error}; see the shipped maps for the keys") from error


@dataclass
class RetargetedMotion:
    """An SMPL-22 clip: `rotations` (T, 22, 3, 3) local, `root` (T, 3), `offsets` (22, 3), `joints` (T, 22, 3)."""

    rotations: Float
    root: Float
    offsets: Float
    fps: float

    @property
    def joints(self) -> Float:
        """World joint positions by forward kinematics, metres."""
        return np.asarray(forward_kinematics(self.rotations, self.root, self.offsets))


def retarget(bvh: BVH, skeleton: SkeletonMap, *, fps: float = 30.0, source: str = "BVH") -> RetargetedMotion:
    """Put the motion of `bvh` on the SMPL-22 skeleton at `fps`. Raises `BVHError` when mapped joints are missing."""
    found = _find_joints(bvh, skeleton, source)
    world, positions = bvh.global_transforms()
    axes = _world_axes(skeleton)
    world, positions = axes @ world, rotate(axes, positions) * skeleton.metres_per_unit

    place = {joint: _position(bvh, world, positions, at, skeleton) for joint, at in found.items()}
    frame = {joint: world[:, at.index] for joint, at in found.items()}
    rest = _rest_orientations(skeleton, found, place, frame, axes)

    turned = np.empty((len(positions), len(JOINTS), 3, 3))
    for index, joint in enumerate(JOINTS):
        parent = turned[:, PARENTS[index]] if index else turned[:, 0]
        turned[:, index] = frame[joint] @ rest[joint].T if joint in frame else parent

    offsets = _offsets(place, turned)
    local = np.asarray(local_rotations(turned))
    return RetargetedMotion(
        rotations=resample_rotations(local, bvh.fps, fps),
        root=resample_positions(place["pelvis"], bvh.fps, fps),
        offsets=offsets,
        fps=fps,
    )


@dataclass(frozen=True)
class _Found:
    index: int
    is_end: bool


def _find_joints(bvh: BVH, skeleton: SkeletonMap, source: str) -> dict[str, _Found]:
    wanted = {joint: name for joint, name in skeleton.joints.items() if name is not None}
    best: list[str] = []
    for prefix in skeleton.prefixes:
        missing = [n for n in wanted.values() if prefix + n.removesuffix("@end") not in bvh.names]
        if not missing:
            return {
                joint: _Found(bvh.names.index(prefix + name.removesuffix("@end")), name.endswith("@end"))
                for joint, name in wanted.items()
            }
        best = missing if not best or len(missing) < len(best) else best
    near = {name: get_close_matches(name, bvh.names, n=1) for name in best[:3]}
    hint = "; ".join(f"{name!r} (near: {close[0]!r})" if close else repr(name) for name, close in near.items())
    raise BVHError(f"{source}: {len(best)} joints of map {skeleton.name!r} are not in the file: {hint}")


def _position(bvh: BVH, world: Float, positions: Float, at: _Found, skeleton: SkeletonMap) -> Float:
    if not at.is_end:
        return positions[:, at.index]
    if at.index not in bvh.end_offsets:
        raise BVHError(f"map {skeleton.name!r} uses the End Site of {bvh.names[at.index]!r}, which has none")
    tip = bvh.end_offsets[at.index] * skeleton.metres_per_unit
    return np.asarray(positions[:, at.index] + rotate(world[:, at.index], tip))


def _world_axes(skeleton: SkeletonMap) -> Float:
    """Rotation from the file's world to ours, which has +Y up and +Z forward."""
    up, forward = _direction(skeleton.up), _direction(skeleton.forward)
    if abs(float(up @ forward)) > 1e-6:
        raise ValueError(f"skeleton map {skeleton.name!r}: up {skeleton.up} and forward {skeleton.forward} clash")
    return np.asarray([np.cross(up, forward), up, forward], dtype=np.float64)


def _rest_orientations(
    skeleton: SkeletonMap, found: dict[str, _Found], place: dict[str, Float], frame: dict[str, Float], axes: Float
) -> dict[str, Float]:
    """For each found joint, where its local axes point in the T-pose (3, 3)."""
    rest = {joint: _frame_from(skeleton.rest[joint]) if joint in skeleton.rest else axes.copy() for joint in found}
    if not skeleton.straighten:
        return rest
    for joint, child, direction, followers in _T_POSE:
        if joint in found and child in found:
            bone = np.asarray(rotate(transpose(frame[joint]), place[child] - place[joint])).mean(axis=0)
            turn = np.asarray(between_vectors(rest[joint] @ bone, _direction(direction)))
            for moved in (joint, *followers):
                if moved in rest:
                    rest[moved] = turn @ rest[moved]
    return rest


def _offsets(place: dict[str, Float], turned: Float) -> Float:
    """Bones (22, 3) in the rest pose, mean over frames; bones through missing joints are divided evenly."""
    offsets = np.zeros((len(JOINTS), 3))
    for index in range(1, len(JOINTS)):
        if JOINTS[index] not in place:
            continue
        chain, above = [index], PARENTS[index]  # from the joint up to its nearest mapped ancestor
        while JOINTS[above] not in place:
            chain.append(above)
            above = PARENTS[above]
        bone = place[JOINTS[index]] - place[JOINTS[above]]
        seen = np.asarray(rotate(transpose(turned[:, above]), bone)).mean(axis=0)
        for joint in chain:
            # Siblings that share a missing ancestor agree on it only on average; the first one decides.
            if not offsets[joint].any():
                offsets[joint] = seen / len(chain)
    return offsets


def _frame_from(axes: dict[str, Any]) -> Float:
    """Two of x, y, z, each a direction, to the rotation whose columns they are; the third follows."""
    given = {key: _direction(value) for key, value in axes.items()}
    if len(given) != 2 or not set(given) <= set("xyz"):
        raise ValueError(f"a rest orientation needs two of x, y and z, got {sorted(axes)}")
    (first, a), (second, b) = given.items()
    b = b - (a @ b) * a
    if np.linalg.norm(b) < 1e-3:
        raise ValueError(f"a rest orientation needs two different directions, got {axes}")
    columns = {first: a, second: b / np.linalg.norm(b)}
    third = ({"x", "y", "z"} - set(given)).pop()
    left, right = {"x": ("y", "z"), "y": ("z", "x"), "z": ("x", "y")}[third]
    columns[third] = np.cross(columns[left], columns[right])
    return np.stack([columns[key] for key in "xyz"], axis=1)


def _direction(value: Any) -> Float:
    vector = np.asarray(_AXES[value] if isinstance(value, str) and value in _AXES else value)
    if vector.dtype.kind not in "if" or vector.shape != (3,) or not np.linalg.norm(vector) > 0:
        raise ValueError(f"a direction is one of {', '.join(_AXES)} or three numbers, got {value!r}")
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)
