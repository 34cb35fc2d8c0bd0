"""Rotations for motions that are joint positions only: a body with their proportions, posed to follow them.

No position decides how far a limb is twisted about itself; here limbs are twisted as little as the body's heading and
the bones before them allow. The positions stay as they are; see `hftrainer.motion.fit` for the method.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hftrainer.motion.body import Body, smpl_body, symmetric
from hftrainer.motion.fit import fit
from hftrainer.motion.skeleton import MIRROR, N_JOINTS, PARENTS

Float = NDArray[np.float64]
_LEFT_HIP, _RIGHT_HIP, _LEFT_SHOULDER, _RIGHT_SHOULDER = 1, 2, 16, 17
_BONES = 0.005, 2.0  # metres


def posed(joints: Float, fps: float) -> Float:
    """Local rotations (T, 22, 3, 3), joint 0 global, of joint positions (T, 22, 3) in metres, Y up.

    Raises ``ValueError`` where the joints are no body: bones without a length, or longer than any.
    """
    joints = np.asarray(joints, dtype=np.float64)
    guess = np.tile(np.eye(3), (len(joints), N_JOINTS, 1, 1))
    guess[:, 0] = headings(joints)
    return fit(joints, guess, body_like(joints), fps=fps, smoothing=1).rotations


def body_like(joints: Float) -> Body:
    """SMPL's rest pose with the median bone lengths of joints (T, 22, 3), left and right equal."""
    rest = smpl_body().offsets
    bones = np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1)
    lengths = np.concatenate([[0.0], np.median(bones, axis=0)])
    lengths = (lengths + lengths[list(MIRROR)]) / 2
    if not (_BONES[0] < lengths[1:].min() and lengths[1:].max() < _BONES[1]):
        raise ValueError(
            f"a body cannot be posed to joints whose bones are {lengths[1:].min():.4g} to {lengths[1:].max():.4g} m "
            f"long; {_BONES[0]:g} to {_BONES[1]:g} m are expected. Are they joint positions in metres?"
        )
    scale = lengths[1:] / np.linalg.norm(rest[1:], axis=-1)
    offsets = np.concatenate([np.zeros((1, 3)), rest[1:] * scale[:, None]])
    return Body("measured", symmetric(offsets))


def headings(joints: Float) -> Float:
    """Rotations (T, 3, 3) about Y by which a body that faces +Z faces as these joints (T, 22, 3) do."""
    across = joints[:, _LEFT_HIP] - joints[:, _RIGHT_HIP] + joints[:, _LEFT_SHOULDER] - joints[:, _RIGHT_SHOULDER]
    angle = np.arctan2(-across[:, 2], across[:, 0])  # a body that faces +Z has its left on +X
    zero, one = np.zeros_like(angle), np.ones_like(angle)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c, zero, s, zero, one, zero, -s, zero, c], axis=-1).reshape(-1, 3, 3)
