"""Rotations as matrices (..., 3, 3) acting on column vectors, and the other forms that the field uses.

There are three layouts of six numbers for a rotation, and two of them are called "row" somewhere. Here each has its
own pair of functions:

    rows                  [r00 r01 r02 r10 r11 r12]   the first two rows; the 272 representation, PyTorch3D
    columns               [r00 r10 r20 r01 r11 r21]   the first two columns; HumanML3D-263, MotionCLIP-135
    columns_interleaved   [r00 r01 r10 r11 r20 r21]   ``R[:, :2]`` flattened; motion_135
"""

from __future__ import annotations

from hftrainer.motion.array import Array, expect_shape, like, namespace


def yaw(angle: Array) -> Array:
    """Rotation about +Y by `angle` (...) radians: +Z turns towards +X."""
    xp = namespace(angle)
    c, s, zero, one = xp.cos(angle), xp.sin(angle), xp.zeros_like(angle), xp.ones_like(angle)
    return _matrix(((c, zero, s), (zero, one, zero), (-s, zero, c)))


def heading(rotation: Array) -> Array:
    """Yaw (...) of the rotated +Z axis: the way the body faces, 0 for +Z. Undefined when that axis is vertical."""
    return namespace(rotation).arctan2(rotation[..., 0, 2], rotation[..., 2, 2])


def transpose(rotation: Array) -> Array:
    """The inverse of a rotation matrix."""
    return namespace(rotation).swapaxes(rotation, -1, -2)


def rotate(rotation: Array, vector: Array) -> Array:
    """`rotation` (..., 3, 3) applied to `vector` (..., 3)."""
    return (rotation @ vector[..., None])[..., 0]


# --- six numbers ------------------------------------------------------------------------------------------------


def to_rows_6d(rotation: Array) -> Array:
    """Matrix to [r00 r01 r02 r10 r11 r12]."""
    return rotation[..., :2, :].reshape(*rotation.shape[:-2], 6)


def from_rows_6d(values: Array) -> Array:
    """[r00 r01 r02 r10 r11 r12], not necessarily orthonormal, to a matrix by Gram-Schmidt on the rows."""
    expect_shape(values, (6,), "6D rotations")
    return namespace(values).stack(_gram_schmidt(values[..., :3], values[..., 3:]), axis=-2)


def to_columns_6d(rotation: Array) -> Array:
    """Matrix to [r00 r10 r20 r01 r11 r21]."""
    return to_rows_6d(transpose(rotation))


def from_columns_6d(values: Array) -> Array:
    """[r00 r10 r20 r01 r11 r21] to a matrix by Gram-Schmidt on the columns."""
    return transpose(from_rows_6d(values))


def to_columns_interleaved_6d(rotation: Array) -> Array:
    """Matrix to [r00 r01 r10 r11 r20 r21]."""
    return rotation[..., :, :2].reshape(*rotation.shape[:-2], 6)


def from_columns_interleaved_6d(values: Array) -> Array:
    """[r00 r01 r10 r11 r20 r21] to a matrix by Gram-Schmidt on the columns."""
    return from_columns_6d(values[..., [0, 2, 4, 1, 3, 5]])


def _gram_schmidt(a: Array, b: Array) -> tuple[Array, Array, Array]:
    xp = namespace(a)
    a = _normalize(a)
    b = _normalize(b - (a * b).sum(axis=-1, keepdims=True) * a)
    return a, b, xp.linalg.cross(a, b)


def _normalize(v: Array, eps: float = 1e-12) -> Array:
    norm = namespace(v).linalg.norm(v, axis=-1, keepdims=True)
    return v / namespace(v).clip(norm, eps, None)


# --- quaternions (w, x, y, z) and axis-angle ----------------------------------------------------------------------


def quaternion_to_matrix(q: Array) -> Array:
    """Quaternion (..., 4), any length but zero, to a matrix."""
    expect_shape(q, (4,), "quaternions")
    w, x, y, z = (_normalize(q)[..., i] for i in range(4))
    return _matrix(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )


def matrix_to_quaternion(rotation: Array) -> Array:
    """Matrix to a unit quaternion (w, x, y, z) with w >= 0, from its largest component, so stable at 180 degrees."""
    expect_shape(rotation, (3, 3), "rotations")
    xp = namespace(rotation)
    m = rotation
    d0, d1, d2 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = xp.stack([1 + d0 + d1 + d2, 1 + d0 - d1 - d2, 1 - d0 + d1 - d2, 1 - d0 - d1 + d2], axis=-1)
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    # Row k is 4 q_k (w, x, y, z): four times the wanted quaternion, scaled by one of its components.
    candidates = xp.stack(
        [
            xp.stack([squares[..., 0], a, b, c], axis=-1),
            xp.stack([a, squares[..., 1], d, e], axis=-1),
            xp.stack([b, d, squares[..., 2], f], axis=-1),
            xp.stack([c, e, f, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    best = squares.argmax(axis=-1)[..., None, None]
    if xp.__name__ == "numpy":
        chosen = xp.take_along_axis(candidates, best, axis=-2)
    else:
        chosen = candidates.gather(-2, best.expand(*best.shape[:-1], 4))
    q = _normalize(chosen[..., 0, :])
    return q * xp.where(q[..., :1] < 0, like(-1.0, q), like(1.0, q))


def axis_angle_to_matrix(axis_angle: Array) -> Array:
    """Rotation vector (..., 3), radians, to a matrix."""
    expect_shape(axis_angle, (3,), "rotation vectors")
    xp = namespace(axis_angle)
    angle = xp.linalg.norm(axis_angle, axis=-1, keepdims=True)
    half = angle / 2
    small = angle < 1e-6
    scale = xp.where(small, 0.5 - angle * angle / 48, xp.sin(half) / xp.where(small, xp.ones_like(angle), angle))
    return quaternion_to_matrix(xp.concatenate([xp.cos(half), axis_angle * scale], axis=-1))


def matrix_to_axis_angle(rotation: Array) -> Array:
    """Matrix to the rotation vector (..., 3) whose length, 0 to pi, is the angle."""
    q = matrix_to_quaternion(rotation)
    xp = namespace(q)
    sine = xp.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * xp.arctan2(sine, q[..., :1])
    small = angle < 1e-6
    scale = xp.where(small, 0.5 - angle * angle / 48, xp.sin(angle / 2) / xp.where(small, xp.ones_like(angle), angle))
    return q[..., 1:] / scale


def slerp(start: Array, end: Array, t: Array) -> Array:
    """Quaternions (..., 4) between `start` and `end` along the shorter arc; `t` (...) runs from 0 to 1."""
    xp = namespace(start)
    dot = (start * end).sum(axis=-1)
    end = end * xp.where(dot < 0, like(-1.0, end), like(1.0, end))[..., None]
    angle = xp.arccos(xp.clip(xp.abs(dot), None, 1.0))
    sine = xp.sin(angle)
    near = sine < 1e-6
    safe = xp.where(near, xp.ones_like(sine), sine)
    a = xp.where(near, 1 - t, xp.sin((1 - t) * angle) / safe)[..., None]
    b = xp.where(near, t, xp.sin(t * angle) / safe)[..., None]
    return _normalize(a * start + b * end)


# --- Euler angles ---------------------------------------------------------------------------------------------------


def euler_to_matrix(angles: Array, order: str) -> Array:
    """Angles (..., 3) in radians, in the order of the letters of `order`, e.g. "ZXY" is Rz(a0) @ Rx(a1) @ Ry(a2)."""
    expect_shape(angles, (3,), "Euler angles")
    first, second, third = (_about(axis, angles[..., i]) for i, axis in enumerate(order.upper()))
    return first @ second @ third


def matrix_to_euler_zyx(rotation: Array) -> Array:
    """Angles (..., 3) about Z, Y, X with matrix = Rz @ Ry @ Rx. At Y = +-90 degrees the X angle is set to 0."""
    xp = namespace(rotation)
    m = rotation
    y = xp.arcsin(xp.clip(-m[..., 2, 0], -1.0, 1.0))
    locked = xp.abs(m[..., 2, 0]) > 1 - 1e-9
    z = xp.where(locked, xp.arctan2(-m[..., 0, 1], m[..., 1, 1]), xp.arctan2(m[..., 1, 0], m[..., 0, 0]))
    x = xp.where(locked, xp.zeros_like(y), xp.arctan2(m[..., 2, 1], m[..., 2, 2]))
    return xp.stack([z, y, x], axis=-1)


def _about(axis: str, angle: Array) -> Array:
    xp = namespace(angle)
    c, s, zero, one = xp.cos(angle), xp.sin(angle), xp.zeros_like(angle), xp.ones_like(angle)
    if axis == "X":
        return _matrix(((one, zero, zero), (zero, c, -s), (zero, s, c)))
    if axis == "Y":
        return yaw(angle)
    if axis == "Z":
        return _matrix(((c, -s, zero), (s, c, zero), (zero, zero, one)))
    raise ValueError(f"an Euler order is three letters of X, Y and Z, got {axis!r}")


def _matrix(rows: tuple[tuple[Array, Array, Array], ...]) -> Array:
    xp = namespace(rows[0][0])
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


# --- accumulation and comparison ------------------------------------------------------------------------------------


def running_product(rotations: Array) -> Array:
    """``out[t] = r[t] @ r[t-1] @ ... @ r[0]`` along axis -3 of (..., T, 3, 3), in log2(T) batched products."""
    xp = namespace(rotations)
    out, step, frames = rotations, 1, rotations.shape[-3]
    while step < frames:
        later = out[..., step:, :, :] @ out[..., :-step, :, :]
        out = xp.concatenate([out[..., :step, :, :], later], axis=-3)
        step *= 2
    return out


def angle_between(a: Array, b: Array) -> Array:
    """Geodesic distance (...) in radians between two rotations; accurate for small angles too."""
    xp = namespace(a)
    chord = xp.linalg.norm((a - b).reshape(*a.shape[:-2], 9), axis=-1)  # 2 sqrt(2) sin(angle / 2)
    return 2 * xp.arcsin(xp.clip(chord / 8**0.5, None, 1.0))


def between_vectors(start: Array, end: Array) -> Array:
    """The smallest rotation (..., 3, 3) that turns direction `start` (..., 3) into direction `end`."""
    xp = namespace(start)
    start, end = _normalize(start), _normalize(end)
    w = 1 + (start * end).sum(axis=-1, keepdims=True)
    axis = xp.linalg.cross(start, end)
    # Opposite directions: any axis at right angles will do.
    other = like([1.0, 0.0, 0.0], start) + xp.zeros_like(start)
    other = xp.where(xp.abs(start[..., :1]) > 0.9, like([0.0, 1.0, 0.0], start) + xp.zeros_like(start), other)
    opposite = w < 1e-9
    axis = xp.where(opposite, xp.linalg.cross(start, other), axis)
    return quaternion_to_matrix(xp.concatenate([xp.where(opposite, xp.zeros_like(w), w), axis], axis=-1))
