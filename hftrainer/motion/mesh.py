"""Closed surfaces through rings of points, with the bones that carry them: what the mannequin is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
SEGMENTS = 14
_ANGLES = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS


@dataclass
class Surface:
    """`points` (V, 3), `faces` (F, 3) counter-clockwise from outside, `weights` (V, 22) that sum to 1, and a `part`."""

    points: Float
    faces: NDArray[np.int64]
    weights: Float
    part: str

    @property
    def normals(self) -> Float:
        """Unit normals (V, 3): the mean of the faces around each point, larger ones counting more."""
        a, b, c = (self.points[self.faces[:, k]] for k in range(3))
        across = np.cross(b - a, c - a)
        total = np.zeros_like(self.points)
        for k in range(3):
            np.add.at(total, self.faces[:, k], across)
        lengths = np.linalg.norm(total, axis=-1, keepdims=True)
        return np.asarray(np.where(lengths > 1e-15, total / np.maximum(lengths, 1e-15), [0.0, 1.0, 0.0]))


def loft(rings: Sequence[Sequence[float]] | Float) -> tuple[Float, NDArray[np.int64]]:
    """Points and faces through rings (y, half width on x, half depth on z, middle x, middle z), closed at both ends."""
    table = np.asarray(rings, dtype=np.float64)
    y, wide, deep, x, z = table.T[..., None]
    around = np.stack([x + wide * np.sin(_ANGLES), y + 0 * _ANGLES, z + deep * np.cos(_ANGLES)], axis=-1)
    points = np.concatenate([around.reshape(-1, 3), around[[0, -1]].mean(axis=1)])
    return points, _faces(len(table))


def limb(length: float, profile: Sequence[Sequence[float]], steps: int = 7, cap: int = 2) -> Float:
    """Rings of a bone from y = 0 to `length` with half a ball at either end; rows of `profile` are t, radius, z."""
    t, radius, *middle = smooth_table(profile, np.linspace(0, 1, steps))
    z = middle[0] if middle else np.zeros(steps)
    body = np.stack([t * length, radius, radius, 0 * t, z], axis=1)
    angle = np.arange(1, cap + 1) / (cap + 1) * (np.pi / 2)
    (r0, z0), (r1, z1) = (radius[0], z[0]), (radius[-1], z[-1])
    start = np.stack([-r0 * np.cos(angle), r0 * np.sin(angle), r0 * np.sin(angle), 0 * angle, z0 + 0 * angle], axis=1)
    end = np.stack([length + r1 * np.cos(angle), r1 * np.sin(angle), r1 * np.sin(angle), 0 * angle, z1 + 0 * angle], 1)
    return np.concatenate([start, body, end[::-1]])


def smooth_table(rows: Sequence[Sequence[float]], at: Float) -> list[Float]:
    """`at`, then each column of rows [t, value, ...] at `at`: cubic curves that never overshoot (Fritsch-Carlson)."""
    width = max(len(row) for row in rows)
    table = np.array([list(row) + [0.0] * (width - len(row)) for row in rows], dtype=np.float64)
    t = table[:, 0]
    spans = np.diff(t)
    index = np.clip(np.searchsorted(t, at, side="right") - 1, 0, len(t) - 2)
    u = np.clip((at - t[index]) / spans[index], 0.0, 1.0)
    out = [at]
    for values in table[:, 1:].T:
        secant = np.diff(values) / spans
        slope = np.zeros(len(values))
        before, after = secant[:-1], secant[1:]
        both = before * after > 0
        slope[1:-1][both] = 2 * before[both] * after[both] / (before + after)[both]
        a, b = values[index], values[index + 1]
        sa, sb = slope[index] * spans[index], slope[index + 1] * spans[index]
        out.append(a + u * (sa + u * (3 * (b - a) - 2 * sa - sb + u * (2 * (a - b) + sa + sb))))
    return out


def frame_along(bone: Float) -> Float:
    """Axes (3, 3) as columns: y along `bone`, z as near to the front as it can be."""
    y = bone / np.linalg.norm(bone)
    front = np.array([0.0, 0.0, 1.0]) if abs(y[2]) < 0.95 else np.array([0.0, 1.0, 0.0])
    z = front - (front @ y) * y
    z /= np.linalg.norm(z)
    return np.stack([np.cross(y, z), y, z], axis=1)


def _faces(rings: int) -> NDArray[np.int64]:
    i = np.arange(SEGMENTS)
    after = (i + 1) % SEGMENTS
    ring = SEGMENTS * np.arange(rings - 1)[:, None]
    a, b = ring + i, ring + after
    sides = np.stack([a, b, b + SEGMENTS, a, b + SEGMENTS, a + SEGMENTS], axis=-1).reshape(-1, 3)
    last = (rings - 1) * SEGMENTS
    bottom, top = np.full(SEGMENTS, rings * SEGMENTS), np.full(SEGMENTS, rings * SEGMENTS + 1)
    caps = np.concatenate([np.stack([bottom, after, i], axis=-1), np.stack([top, last + i, last + after], axis=-1)])
    return np.concatenate([sides, caps])
