"""Rotations of one body that follow given joint positions: what every file and picture of a motion shows.

Positions that a model generates imply bones that change their length from frame to frame, and its rotations describe a
slightly different motion. The fit finds the motion of one `Body` that is nearest to the positions:

1. Positions are smoothed lightly in time (a symmetric filter, exact for parabolas: steps and swings keep their size).
2. Each joint's rotation is taken from the directions of its bones; what they leave open, the twist of an arm or a leg,
   comes from the given rotations.
3. A few Gauss-Newton steps over pelvis position and all rotations minimise the squared distances of all joints.

Everything is batched over frames; numpy in, numpy out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import Body, BodyMotion
from hftrainer.motion.lock import lock_feet
from hftrainer.motion.representation.base import get_representation
from hftrainer.motion.rotation import axis_angle_to_matrix, between_vectors, rotate, transpose
from hftrainer.motion.skeleton import N_JOINTS, PARENTS, global_rotations, local_rotations

Float = NDArray[np.float64]

STEPS = 2
SMOOTHING = 5  # frames of the position filter, odd
TWIST_SMOOTHING = 7  # frames over which given rotations are averaged
_CHUNK = 512  # frames solved at once, which bounds memory
_CHILDREN = tuple(tuple(c for c in range(1, N_JOINTS) if PARENTS[c] == j) for j in range(N_JOINTS))
_TURNING = tuple(j for j in range(N_JOINTS) if _CHILDREN[j])  # the 17 joints whose rotation moves another joint
_PRIOR = 0.02  # metres: the given rotation counts as much as bones of this length
_DAMPING = 4e-4  # square metres: holds twist, which no position decides


def pose(
    features: NDArray[np.floating[Any]], body: Body, *, representation: str = "motion272", raw: bool = False
) -> BodyMotion:
    """What files and pictures show of features (T, width) of a representation: fitted to `body`, feet locked.

    `raw`: as near to the model's positions as one skeleton can be, without smoothing and without foot locking.
    """
    source = get_representation(representation)
    found = source.to_body(np.asarray(features, dtype=np.float64))
    fitted = fit(found.joints, found.rotations, body, fps=found.fps, smoothing=1 if raw else SMOOTHING)
    return fitted if raw else lock_feet(fitted)


def fit(
    joints: Float, rotations: Float | None, body: Body, *, fps: float = 30.0, smoothing: int = SMOOTHING
) -> BodyMotion:
    """The motion of `body` nearest to `joints` (T, 22, 3); `rotations` (T, 22, 3, 3) local decide twists only.

    Without `rotations` a bone takes the twist of the one before it.

    `smoothing`: frames of the position filter, odd; 1 turns it off. Raises ``ValueError`` for no frames, wrong shapes
    and values that are not finite.
    """
    given = rotations is not None
    if rotations is None:
        rotations = np.tile(np.eye(3), (len(joints), N_JOINTS, 1, 1))
    joints, turns = checked(joints, rotations)
    smooth = smoothed(joints, smoothing)
    world = np.asarray(global_rotations(turns))
    if not given:
        world = carried_along(smooth, body)
    elif smoothing > 1:
        world = orthonormal(smoothed(world.reshape(len(world), -1, 9), TWIST_SMOOTHING).reshape(world.shape))
    world = follow_bones(smooth, world, body)
    root = smooth[:, 0].copy()
    for start in range(0, len(joints), _CHUNK):
        part = slice(start, start + _CHUNK)
        root[part], world[part] = _gauss_newton(smooth[part], root[part], world[part], body)
    return BodyMotion(np.asarray(local_rotations(world)), root, body, fps)


def checked(joints: Float, rotations: Float) -> tuple[Float, Float]:
    """Both as float64; ``ValueError`` for what cannot be fitted."""
    joints, rotations = np.asarray(joints, dtype=np.float64), np.asarray(rotations, dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (N_JOINTS, 3) or rotations.shape != (len(joints), N_JOINTS, 3, 3):
        raise ValueError(
            f"a fit needs joints (T, {N_JOINTS}, 3) and rotations (T, {N_JOINTS}, 3, 3), got {joints.shape} and "
            f"{rotations.shape}"
        )
    if not len(joints):
        raise ValueError("a motion needs at least one frame, got none")
    for name, values in (("joints", joints), ("rotations", rotations)):
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise ValueError(f"{name} must be finite, got NaN or infinity first in frame {int(np.argmin(finite))}")
    return joints, rotations


def smoothed(values: Float, window: int) -> Float:
    """`values` (T, ...) under a Savitzky-Golay filter: a parabola fitted to each window of an odd number of frames.

    At both ends the clip is continued by its point reflection, which keeps position and velocity there.
    """
    half = min(window // 2, len(values) - 1)
    if half < 2:  # a parabola through three points is the points
        return np.array(values)
    at = np.arange(-half, half + 1.0)
    kernel = np.linalg.pinv(np.vander(at, 3))[2]  # value at 0 of the parabola
    start = 2 * values[:1] - values[half:0:-1]
    end = 2 * values[-1:] - values[-2 : -half - 2 : -1]
    padded = np.concatenate([start, values, end])
    return np.asarray(sum(weight * padded[k : k + len(values)] for k, weight in enumerate(kernel)))


def orthonormal(matrices: Float) -> Float:
    """The rotation nearest to each matrix (..., 3, 3)."""
    u, _, vt = np.linalg.svd(matrices)
    sign = np.linalg.det(u @ vt)
    u[..., 2] *= sign[..., None]
    return np.asarray(u @ vt)


def carried_along(joints: Float, body: Body) -> Float:
    """World rotations (T, 22, 3, 3) of positions: each bone turns its parent's frame the shortest way."""
    world = np.tile(np.eye(3), (len(joints), N_JOINTS, 1, 1))
    for joint in range(N_JOINTS):
        parent = PARENTS[joint]
        before = world[:, parent] if parent >= 0 else _facing(joints, body)
        children = list(_CHILDREN[joint])
        if len(children) == 1:
            rest = body.offsets[children[0]]
            now = joints[:, children[0]] - joints[:, joint]
            world[:, joint] = np.asarray(between_vectors(rotate(before, rest), now)) @ before
        else:
            world[:, joint] = before
    return follow_bones(joints, world, body)


def _facing(joints: Float, body: Body) -> Float:
    """The pelvis's rotation (T, 3, 3) that fits hips and lower spine."""
    children = list(_CHILDREN[0])
    seen = joints[:, children] - joints[:, :1]
    return orthonormal(np.einsum("tci,cj->tij", seen, body.offsets[children]) + 1e-6 * np.eye(3))


def follow_bones(joints: Float, world: Float, body: Body) -> Float:
    """`world` rotations (T, 22, 3, 3) turned so that bones point along those of `joints`.

    Joints with several bones take the rotation that fits all of them best; others turn by the smallest angle.
    """
    out = world.copy()
    for joint in _TURNING:
        children = list(_CHILDREN[joint])
        seen = joints[:, children] - joints[:, joint, None]
        rest = body.offsets[children]
        if len(children) > 1:
            out[:, joint] = orthonormal(
                np.einsum("tci,cj->tij", seen, rest) / np.linalg.norm(rest, axis=-1).mean() + _PRIOR * world[:, joint]
            )
        else:
            now = rotate(world[:, joint], rest[0])
            out[:, joint] = np.asarray(between_vectors(now, seen[:, 0])) @ world[:, joint]
    for joint in range(N_JOINTS):
        if not _CHILDREN[joint]:  # ends keep their angle to the bone that carries them
            parent = PARENTS[joint]
            out[:, joint] = out[:, parent] @ transpose(world[:, parent]) @ world[:, joint]
    return out


def _gauss_newton(joints: Float, root: Float, world: Float, body: Body) -> tuple[Float, Float]:
    """`STEPS` steps on the squared distances; ends turn with their parents."""
    ends = [j for j in range(N_JOINTS) if not _CHILDREN[j]]
    above = [PARENTS[j] for j in ends]
    for _ in range(STEPS):
        place, jacobian = _placed(root, world, body)
        error = (joints - place).reshape(len(joints), -1, 1)
        turned = np.swapaxes(jacobian, 1, 2)
        normal = turned @ jacobian
        normal[:, range(3, normal.shape[1]), range(3, normal.shape[1])] += _DAMPING
        change = np.linalg.solve(normal, turned @ error)[..., 0]
        root = root + change[:, :3]
        turns = np.asarray(axis_angle_to_matrix(change[:, 3:].reshape(len(joints), -1, 3)))
        carried = np.swapaxes(world[:, above], -1, -2) @ world[:, ends]
        world = world.copy()
        world[:, list(_TURNING)] = turns @ world[:, list(_TURNING)]
        world[:, ends] = world[:, above] @ carried
    return root, world


def _placed(root: Float, world: Float, body: Body) -> tuple[Float, Float]:
    """Joints (T, 22, 3) and their derivatives (T, 66, 3 + 3 * 17) by pelvis position and rotation vectors."""
    frames, column = len(root), {joint: 3 + 3 * i for i, joint in enumerate(_TURNING)}
    place = np.empty((frames, N_JOINTS, 3))
    jacobian = np.zeros((frames, N_JOINTS, 3, 3 + 3 * len(_TURNING)))
    place[:, 0] = root
    jacobian[:, 0, :, :3] = np.eye(3)
    for joint in range(1, N_JOINTS):
        parent = PARENTS[joint]
        bone = rotate(world[:, parent], body.offsets[joint])
        place[:, joint] = place[:, parent] + bone
        jacobian[:, joint] = jacobian[:, parent]
        jacobian[:, joint, :, column[parent] : column[parent] + 3] += _cross_matrix(-bone)
    return place, jacobian.reshape(frames, 3 * N_JOINTS, -1)


def _cross_matrix(v: Float) -> Float:
    """Matrices (T, 3, 3) whose product with w is the cross product v x w."""
    out = np.zeros((*v.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = v[..., 2], -v[..., 1], v[..., 0]
    return out
