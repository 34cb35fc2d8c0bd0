"""The 22 body joints of SMPL, in SMPL's order, and forward kinematics over them.

Rest pose: all local rotations are the identity, the body stands in a T-pose, left on +X, facing +Z.
"""

from __future__ import annotations

from hftrainer.motion.array import Array, expect_shape, namespace

JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
N_JOINTS = len(JOINTS)

CHAINS = ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20))
MIRROR = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20)
FEET = (7, 10, 8, 11)  # left ankle, left toes, right ankle, right toes


def global_rotations(local: Array) -> Array:
    """Local rotations (..., 22, 3, 3), joint 0 global already, to the global rotation of every joint."""
    expect_shape(local, (N_JOINTS, 3, 3), "local rotations")
    out = [local[..., 0, :, :]]
    for joint in range(1, N_JOINTS):
        out.append(out[PARENTS[joint]] @ local[..., joint, :, :])
    return namespace(local).stack(out, axis=-3)


def local_rotations(world: Array) -> Array:
    """The inverse of `global_rotations`."""
    expect_shape(world, (N_JOINTS, 3, 3), "global rotations")
    xp = namespace(world)
    parents = world[..., list(PARENTS[1:]), :, :]
    return xp.concatenate([world[..., :1, :, :], xp.swapaxes(parents, -1, -2) @ world[..., 1:, :, :]], axis=-3)


def forward_kinematics(local: Array, root: Array, offsets: Array) -> Array:
    """Joint positions (..., 22, 3) from local rotations (..., 22, 3, 3), pelvis positions (..., 3) and bone offsets.

    `offsets` (22, 3), or any shape that broadcasts to the positions: the vector from a joint's parent to the joint
    in the rest pose; offsets[0] is not used.
    """
    world = global_rotations(local)
    xp = namespace(local)
    offsets = xp.broadcast_to(offsets, world.shape[:-1])
    out = [root]
    for joint in range(1, N_JOINTS):
        parent = PARENTS[joint]
        out.append(out[parent] + (world[..., parent, :, :] @ offsets[..., joint, :, None])[..., 0])
    return xp.stack(out, axis=-2)


def bone_offsets(joints: Array, local: Array) -> Array:
    """Rest-pose offsets (22, 3) of one clip: the mean over frames of each bone seen from its parent's frame.

    `joints` (T, 22, 3) and `local` (T, 22, 3, 3). For a clip whose positions and rotations agree the mean is the
    bone itself; for a generated clip it is the least-squares skeleton.
    """
    xp = namespace(joints)
    world = global_rotations(local)
    parents = list(PARENTS[1:])
    bones = joints[..., 1:, :] - joints[..., parents, :]
    seen = (xp.swapaxes(world[..., parents, :, :], -1, -2) @ bones[..., None])[..., 0]
    offsets = seen.reshape(-1, N_JOINTS - 1, 3).mean(axis=0)
    return xp.concatenate([xp.zeros_like(offsets[:1]), offsets], axis=0)
