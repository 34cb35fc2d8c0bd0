"""The mannequin that stands for a person in files and pictures: our own low-poly shapes, CC0, for any `Body`.

The shapes are those of the viewer page (tools/web/src/body.js) with fewer points: limbs in the colours of their sides,
left orange and right blue, a trunk with darker trousers, head, hands, and feet whose soles are on the floor at rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import Body
from hftrainer.motion.mesh import Surface, frame_along, limb, loft, smooth_table
from hftrainer.motion.rotation import rotate
from hftrainer.motion.skeleton import JOINTS, N_JOINTS, PARENTS, global_rotations

Float = NDArray[np.float64]

COLORS = {"left": "#e58a4f", "right": "#3f7fc1", "shirt": "#e9e6e1", "trousers": "#a09d99"}
SIZE_LEG = 0.81  # metres of thigh and shin for which the measures below are meant: about 1.70 m tall
_AT = {name: index for index, name in enumerate(JOINTS)}

# Rows of t, radius, z of the middle; metres.
_THIGH = [[0, 0.084, 0.0], [0.25, 0.083, 0.008], [0.6, 0.066, 0.008], [0.9, 0.054, 0.003], [1, 0.052, 0.002]]
_SHIN = [[0, 0.051, 0.002], [0.12, 0.05, -0.003], [0.3, 0.056, -0.014], [0.62, 0.041, -0.007], [1, 0.034, 0]]
_UPPER_ARM = [[0, 0.06], [0.2, 0.055, 0.001], [0.55, 0.045, 0.005], [0.85, 0.037], [1, 0.037]]
_FOREARM = [[0, 0.037], [0.25, 0.041], [0.65, 0.032], [1, 0.025]]
_COLLAR = [[0, 0.07], [0.5, 0.061], [1, 0.046]]
_NECK = [[0, 0.062], [0.45, 0.053], [1, 0.051]]
_HAND = [[0, 0.02, 0.024], [0.2, 0.02, 0.032], [0.45, 0.019, 0.041], [0.7, 0.015, 0.038], [0.9, 0.011, 0.026],
         [1, 0.004, 0.008]]  # fmt: skip
_FOOT = [[0, 0.008, 0.2], [0.03, 0.022, 0.45], [0.1, 0.032, 0.78], [0.3, 0.036, 0.98], [0.5, 0.041, 0.72],
         [0.72, 0.047, 0.46], [0.88, 0.043, 0.34], [0.96, 0.032, 0.27], [1, 0.012, 0.16]]  # fmt: skip
_WAIST = 0.27  # of the way from hips to neck: where trousers end


@dataclass(frozen=True)
class Mannequin:
    """`points` (V, 3) and `normals` (V, 3) at rest, `weights` (V, 22), and the faces (F, 3) of each colour."""

    points: Float
    normals: Float
    weights: Float
    faces: dict[str, NDArray[np.int64]]
    body: Body

    def posed(self, rotations: Float, root: Float) -> Float:
        """Points (T, V, 3) for local rotations (T, 22, 3, 3) and pelvis positions (T, 3): linear blend skinning."""
        world = np.asarray(global_rotations(rotations))
        rest = self.body.rest_joints
        place = np.empty((len(root), N_JOINTS, 3))
        place[:, 0] = root
        for joint in range(1, N_JOINTS):
            parent = PARENTS[joint]
            place[:, joint] = place[:, parent] + rotate(world[:, parent], self.body.offsets[joint])
        shift = place - rotate(world, rest)
        carried = np.concatenate([world, shift[..., None]], axis=-1).reshape(len(root), N_JOINTS, 12)
        blended = (self.weights @ carried).reshape(len(root), -1, 3, 4)
        return np.asarray(rotate(blended[..., :3], self.points) + blended[..., 3])


@lru_cache(maxsize=8)
def _cached(name: str, offsets: bytes) -> Mannequin:
    return _build(Body(name, np.frombuffer(offsets).reshape(N_JOINTS, 3)))


def mannequin(body: Body) -> Mannequin:
    """The mannequin of a body, in its rest pose."""
    return _cached(body.name, body.offsets.tobytes())


def _build(body: Body) -> Mannequin:
    surfaces = [*_trunk(body), _head(body), _neck(body)]
    for side in ("left", "right"):
        surfaces += _side(body, side)
    start = 0
    groups: dict[str, list[NDArray[np.int64]]] = {name: [] for name in COLORS}
    for surface in surfaces:
        groups[surface.part].append(surface.faces + start)
        start += len(surface.points)
    return Mannequin(
        points=np.concatenate([s.points for s in surfaces]),
        normals=np.concatenate([s.normals for s in surfaces]),
        weights=np.concatenate([s.weights for s in surfaces]),
        faces={name: np.concatenate(parts) for name, parts in groups.items()},
        body=body,
    )


def _side(body: Body, side: str) -> list[Surface]:
    def part(start: str, end: str, profile: Sequence[Sequence[float]]) -> Surface:
        return _limb(body, _AT[f"{side}_{start}"], _AT[f"{side}_{end}"], profile, side)

    return [
        part("hip", "knee", _THIGH),
        part("knee", "ankle", _SHIN),
        part("shoulder", "elbow", _UPPER_ARM),
        part("elbow", "wrist", _FOREARM),
        _collar(body, side),
        _foot(body, side),
        *_hand(body, side),
    ]


def _size(body: Body) -> float:
    return body.leg / SIZE_LEG


def _limb(body: Body, start: int, end: int, profile: Sequence[Sequence[float]], part: str) -> Surface:
    """A bone's surface; near its ends it is carried by the neighbouring bones, too."""
    size, bone = _size(body), body.offsets[end]
    length = float(np.linalg.norm(bone))
    sized = [[row[0], *(size * value for value in row[1:])] for row in profile]
    points, faces = loft(limb(length, sized))
    t = points[:, 1] / length
    weights = np.zeros((len(points), N_JOINTS))
    before, after = 0.5 * np.clip(1 - t / 0.12, 0, 1), 0.5 * np.clip(1 - (1 - t) / 0.12, 0, 1)
    before *= PARENTS[start] not in (0, 13, 14)  # hips and shoulders slide under the trunk instead of bending
    weights[:, start] = 1 - before - after
    weights[:, PARENTS[start]] += before
    weights[:, end] += after
    return Surface(points @ frame_along(bone).T + body.rest_joints[start], faces, weights, part)


def _rigid(points: Float, faces: NDArray[np.int64], joint: int, part: str) -> Surface:
    weights = np.zeros((len(points), N_JOINTS))
    weights[:, joint] = 1.0
    return Surface(points, faces, weights, part)


def _trunk(body: Body) -> list[Surface]:
    """Hips, waist and rib cage around the spine, in two colours."""
    size, rest = _size(body), body.rest_joints
    h = float(rest[1, 0]) / size
    s = min(0.2, float(rest[16, 0]) / size)
    outline = [
        [0.0, h + 0.062, 0.112, -0.004], [0.12, h + 0.072, 0.116, -0.006], [0.3, 0.55 * h + 0.098, 0.1, 0.004],
        [0.44, 0.4 * h + 0.107, 0.096, 0.008], [0.62, 0.26 * s + 0.098, 0.1, 0.01],
        [0.76, 0.37 * s + 0.087, 0.102, 0.009], [0.87, 0.55 * s + 0.046, 0.093, 0.004],
        [0.94, 0.45 * s + 0.034, 0.08, 0.0], [1.0, 0.055, 0.056, 0.0],
    ]  # fmt: skip
    spine = np.stack([(rest[1] + rest[2]) / 2, *rest[[3, 6, 9, 12]]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(spine, axis=0), axis=-1))])
    along /= along[-1]
    surfaces = []
    for part, low, high in (("trousers", 0.0, _WAIST), ("shirt", _WAIST - 0.02, 1.0)):
        t = np.linspace(low, high, 5 if part == "trousers" else 11)
        _, wide, deep, ahead = smooth_table(outline, t)
        if part == "trousers":  # closed below the hips
            below = np.array([0.9, 0.55, 0.0])
            round_ = np.sqrt(1 - below**2)
            t = np.concatenate([0 * below[:2], t])
            wide, deep = (np.concatenate([v[0] * round_[:2], v]) for v in (wide, deep))
            ahead = np.concatenate([ahead[:1], ahead[:1], ahead])
            sink = np.concatenate([-0.1 * below[:2], np.zeros(5)])
        else:
            sink = np.zeros(len(t))
        middle = np.stack([np.interp(t, along, spine[:, k]) for k in range(3)], axis=1)
        rings = np.stack([middle[:, 1] + size * sink, size * wide, size * deep, 0 * t, middle[:, 2] + size * ahead], 1)
        points, faces = loft(rings)
        surfaces.append(Surface(points, faces, _spine_weights(points[:, 1], rest), part))
    return surfaces


def _spine_weights(height: Float, rest: Float) -> Float:
    """Carried by the two of pelvis, spine1, spine2, spine3 between whose middles a point lies."""
    chain = [0, 3, 6, 9]
    ends = [*chain, 12]
    middles = [(rest[a, 1] + rest[b, 1]) / 2 for a, b in pairwise(ends)]
    weights = np.zeros((len(height), N_JOINTS))
    place = np.interp(height, middles, range(len(chain)))
    for k, joint in enumerate(chain):
        weights[:, joint] = np.clip(1 - np.abs(place - k), 0, 1)
    return weights


def _neck(body: Body) -> Surface:
    size = _size(body)
    bone = body.offsets[15]
    points, faces = loft(limb(float(np.linalg.norm(bone)) + 0.03 * size, [[t, size * r] for t, r in _NECK], steps=4))
    points = points @ frame_along(bone).T + body.rest_joints[12]
    weights = np.zeros((len(points), N_JOINTS))
    up = np.clip((points[:, 1] - body.rest_joints[12, 1]) / max(bone[1], 1e-3), 0, 1)
    weights[:, 12], weights[:, 15] = 1 - 0.6 * up, 0.6 * up
    return Surface(points, faces, weights, "shirt")


def _head(body: Body) -> Surface:
    """An egg with a chin and a hint of a nose above the head joint, which sits at the base of the skull."""
    angle = np.linspace(0, np.pi, 13)[1:-1]
    points, faces = loft(np.stack([-np.cos(angle), np.sin(angle), np.sin(angle), 0 * angle, 0 * angle], axis=1))
    points[-2:, 1] = -1.0, 1.0
    x, y, z = points.T
    low, face = np.minimum(0, y), np.maximum(0, z)
    nose = 0.014 * np.exp(-((x / 0.15) ** 2) - ((y + 0.12) / 0.2) ** 2) * (z > 0)
    brow = -0.006 * np.exp(-(((y - 0.12) / 0.12) ** 2)) * face
    deep = 0.094 * z * np.where(z < 0, 1 - 0.42 * low**2, 1 - 0.1 * low**2) + nose + brow + 0.012
    shaped = np.stack([0.076 * x * (1 - 0.3 * low**2), 0.083 + 0.116 * y, deep], axis=1)
    return _rigid(_size(body) * shaped + body.rest_joints[15], faces, 15, "shirt")


def _collar(body: Body, side: str) -> Surface:
    """From below the neck to the shoulder, so that a raised shoulder stays part of the body."""
    rest, size = body.rest_joints, _size(body)
    collar, shoulder = _AT[f"{side}_collar"], _AT[f"{side}_shoulder"]
    start = rest[12] + 0.3 * (rest[9] - rest[12])
    start = start + 0.35 * (rest[collar] - start)
    bone = rest[shoulder] - start
    points, faces = loft(limb(float(np.linalg.norm(bone)), [[t, size * r] for t, r in _COLLAR], steps=4))
    t = np.clip(points[:, 1] / np.linalg.norm(bone), 0, 1)
    weights = np.zeros((len(points), N_JOINTS))
    weights[:, 9], weights[:, collar] = 1 - t, t
    return Surface(points @ frame_along(bone).T + start, faces, weights, "shirt")


def _foot(body: Body, side: str) -> Surface:
    """Heel to toes with a flat sole at the height of the ball joint; the toes turn with it."""
    size = _size(body)
    ankle, ball = body.rest_joints[_AT[f"{side}_ankle"]], body.rest_joints[_AT[f"{side}_foot"]]
    flat = (ball - ankle) * [1.0, 0.0, 1.0]
    sole = ankle[1] - ball[1]
    heel, tip = -0.06 * size, float(np.linalg.norm(flat)) + 0.085 * size
    t, wide, high = smooth_table(_FOOT, np.linspace(0, 1, 14))
    top = sole - high * (sole + 0.012 * size)  # downwards from the ankle
    bottom = sole + 0.5 * (sole - top)  # the lower half of each ring is cut off at the sole
    rings = np.stack([heel + t * (tip - heel), size * wide, (bottom - top) / 2, 0 * t, -(bottom + top) / 2], axis=1)
    points, faces = loft(rings)
    points[:, 2] = np.maximum(-sole, points[:, 2])
    # y, along the foot, becomes the way to the toes; z stays up, x becomes the left
    ahead = flat / np.linalg.norm(flat)
    axes = np.stack([np.cross([0.0, 1.0, 0.0], ahead), ahead, [0.0, 1.0, 0.0]], axis=1)
    axes[:, 0] *= -1.0  # the loft's x, y, z is a right-handed frame, and so must this one be
    weights = np.zeros((len(points), N_JOINTS))
    toes = np.clip((points[:, 1] - np.linalg.norm(flat)) / (0.03 * size) + 0.5, 0, 1)
    weights[:, _AT[f"{side}_ankle"]], weights[:, _AT[f"{side}_foot"]] = 1 - toes, toes
    return Surface(points @ axes.T + ankle, faces, weights, side)


def _hand(body: Body, side: str) -> list[Surface]:
    """A mitten along the forearm with its thumb to the front."""
    size, wrist = _size(body), _AT[f"{side}_wrist"]
    axes, place = frame_along(body.offsets[wrist]), body.rest_joints[wrist]
    t, thick, wide = smooth_table(_HAND, np.linspace(0, 1, 8))
    points, faces = loft(size * np.stack([0.172 * t - 0.004, thick, wide, 0 * t, 0 * t], axis=1))
    palm = _rigid(points @ axes.T + place, faces, wrist, side)
    points, faces = loft(limb(0.055 * size, [[0, 0.014 * size], [0.6, 0.0125 * size], [1, 0.009 * size]], steps=3))
    c, s = np.cos(0.75), np.sin(0.75)
    points = points @ np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]]).T + size * np.array([0.0, 0.035, 0.022])
    return [palm, _rigid(points @ axes.T + place, faces, wrist, side)]
