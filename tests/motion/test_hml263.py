"""HumanML3D-263 against a slow second implementation: HumanML3D's recipe with quaternions, frame by frame."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.representation import hml263
from hftrainer.motion.representation.convert import hml263_to_joints, joints_to_hml263, motion272_to_hml263
from hftrainer.motion.representation.motion272 import to_joints
from hftrainer.motion.representation.spec import HML263
from hftrainer.motion.resample import resample_positions
from hftrainer.motion.rotation import rotate, yaw

CLIPS = ("c0", "c1", "c2")
TREE = [[0, 2, 5, 8, 11], [0, 1, 4, 7, 10], [0, 3, 6, 9, 12, 15], [9, 14, 17, 19, 21], [9, 13, 16, 18, 20]]


# --- the second implementation: one frame, one joint at a time, quaternions (w, x, y, z) ----------------------------


def qmul(a, b):
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return np.array(
        [
            aw * bw - ax * bx - ay * by - az * bz, aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw,
        ]
    )  # fmt: skip


def qinv(q):
    return q * np.array([1, -1, -1, -1])


def qrot(q, v):
    return qmul(qmul(q, np.array([0, *v])), qinv(q))[1:]


def qbetween(u, v):
    q = np.array([math.sqrt((u @ u) * (v @ v)) + u @ v, *np.cross(u, v)])
    return q / np.linalg.norm(q)


def unit(v):
    return v / np.linalg.norm(v)


def inverse_kinematics(joints, *, smooth):
    """Root and bone quaternions, with the hips' sign as the release has it."""
    ndimage = pytest.importorskip("scipy.ndimage")
    forward = []
    for p in joints:
        across = unit((p[1] - p[2]) + (p[17] - p[16]))
        forward.append(np.cross([0, 1, 0], across))
    forward = np.array(forward)
    if smooth:
        forward = ndimage.gaussian_filter1d(forward, 20, axis=0, mode="nearest")
    directions = [None, *map(np.array, hml263.BONE_DIRECTIONS)]
    out = np.zeros((len(joints), 22, 4))
    for t, p in enumerate(joints):
        out[t, 0] = [1, 0, 0, 0] if t == 0 else qbetween(unit(forward[t]), np.array([0.0, 0, 1]))
        for chain in TREE:
            total = out[t, 0]
            for before, joint in pairwise(chain):
                wanted = qbetween(directions[joint].astype(float), unit(p[joint] - p[before]))
                out[t, joint] = qmul(qinv(total), wanted)
                total = qmul(total, out[t, joint])
    return out


def second_from_joints(joints):
    # 2: the uniform skeleton, by inverse and forward kinematics
    quaternions = inverse_kinematics(joints, smooth=False)
    first = joints[0]
    scale = (hml263.BONE_LENGTHS[4] + hml263.BONE_LENGTHS[7]) / (
        np.linalg.norm(first[5] - first[2]) + np.linalg.norm(first[8] - first[5])
    )
    same = np.zeros_like(joints)
    for t in range(len(joints)):
        same[t, 0] = joints[t, 0] * scale
        for chain in TREE:
            total = quaternions[t, 0]
            for before, joint in pairwise(chain):
                total = qmul(total, quaternions[t, joint])
                offset = np.array(hml263.BONE_DIRECTIONS[joint - 1]) * hml263.BONE_LENGTHS[joint - 1]
                same[t, joint] = same[t, before] + qrot(total, offset)
    # 3, 4, 5: floor, origin, facing
    same[..., 1] -= same[..., 1].min()
    same -= same[0, 0] * [1, 0, 1]
    p = same[0]
    across = unit((p[2] - p[1]) + (p[17] - p[16]))
    q = qbetween(unit(np.cross([0, 1, 0], across)), np.array([0.0, 0, 1]))
    same = np.array([[qrot(q, joint) for joint in frame] for frame in same])
    # 6, 7, 8
    quaternions = inverse_kinematics(same, smooth=True)
    rows = []
    for t in range(len(same) - 1):
        now, after, q0, q1 = same[t], same[t + 1], quaternions[t, 0], quaternions[t + 1, 0]
        row = [math.asin(qmul(q1, qinv(q0))[2])]
        moved = qrot(q1, after[0] - now[0])
        row += [moved[0], moved[2], now[0, 1]]
        for joint in range(1, 22):
            row += list(qrot(q0, now[joint] - now[0] * [1, 0, 1]))
        for joint in range(1, 22):
            row += list(qrot(quaternions[t, joint], np.array([1.0, 0, 0])))
            row += list(qrot(quaternions[t, joint], np.array([0, 1.0, 0])))
        for joint in range(22):
            row += list(qrot(q0, after[joint] - now[joint]))
        for joint in (7, 10, 8, 11):
            row.append(float(((after[joint] - now[joint]) ** 2).sum() < 0.002))
        rows.append(row)
    return np.array(rows)


def second_to_joints(features):
    angle, place, out = 0.0, np.zeros(3), []
    for t, row in enumerate(features):
        if t:
            angle += features[t - 1, 0]
        q = np.array([math.cos(angle), 0, math.sin(angle), 0])
        if t:
            place = place + qrot(qinv(q), np.array([features[t - 1, 1], 0, features[t - 1, 2]]))
        root = place + np.array([0, row[3], 0])
        out.append([root, *(qrot(qinv(q), local) + place for local in row[4:67].reshape(21, 3))])
    return np.array(out)


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joints20(golden):
    content = golden("representation_pub")
    return {clip: resample_positions(content[f"{clip}_joints"].astype(np.float64), 30, 20) for clip in CLIPS}


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("clip", CLIPS)
def test_features_equal_the_second_implementation(joints20, clip, kind):
    want = second_from_joints(joints20[clip])
    got = joints_to_hml263(kind(joints20[clip]))
    assert type(got) is type(kind(joints20[clip]))
    np.testing.assert_allclose(got, want, atol=1e-9, rtol=0)


def test_a_body_that_turns_around_equals_the_second_implementation(joints20):
    """Past 180 degrees the quaternion changes its sign, and one turn with it; the release's features have that."""
    turning = rotate(yaw(np.linspace(0, 2 * np.pi, 60))[:, None], joints20["c0"])
    got = joints_to_hml263(turning)
    np.testing.assert_allclose(got, second_from_joints(turning), atol=1e-9, rtol=0)
    assert (got[:, 0] > 0).sum() > 5
    assert (got[:, 0] < 0).sum() > 5


@pytest.mark.parametrize("clip", CLIPS)
def test_joints_equal_the_second_implementation(joints20, clip):
    features = joints_to_hml263(joints20[clip])
    np.testing.assert_allclose(hml263_to_joints(features), second_to_joints(features), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["walk", "turn-left", "squat"])
def test_joints_come_back_as_the_uniform_body(name):
    joints = resample_positions(to_joints(make_motion(name, 90, 3).astype(np.float64)), 30, 20)
    want = hml263.canonical(hml263.uniform(joints))[:-1]
    np.testing.assert_allclose(hml263_to_joints(joints_to_hml263(joints)), want, atol=1e-9)


def test_uniform_bodies_have_the_lengths_and_keep_directions(joints20):
    joints = joints20["c0"]
    same = hml263.uniform(joints)
    parents = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
    bones, before = same[:, 1:] - same[:, parents], joints[:, 1:] - joints[:, parents]
    np.testing.assert_allclose(np.linalg.norm(bones, axis=-1), np.tile(hml263.BONE_LENGTHS, (60, 1)), atol=1e-12)
    cosine = (bones * before).sum(-1) / np.linalg.norm(bones, axis=-1) / np.linalg.norm(before, axis=-1)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-12)
    assert hml263.BONE_LENGTHS[4] + hml263.BONE_LENGTHS[7] == pytest.approx(0.815832, abs=1e-6)


def test_turning_moving_and_scaling_the_walker_do_not_change_the_features(joints20):
    joints = joints20["c2"]
    moved = 1.1 * rotate(yaw(np.array(1.2)), joints) + np.array([3.0, 0.5, -2.0])
    np.testing.assert_allclose(joints_to_hml263(moved), joints_to_hml263(joints), atol=1e-9)


def test_the_hips_sign_of_the_release_matters(joints20):
    """Without it the turn channel is another one; were it gone, the features would not be HumanML3D's."""
    world = hml263.canonical(hml263.uniform(joints20["c0"]))
    right = hml263._half_turn(hml263._smoothed(hml263.facing(world)))
    got = joints_to_hml263(joints20["c0"])[:, 0]
    assert np.abs(np.diff(right)[1:] - got[1:]).max() > 1e-4


def test_frame_count_and_rate_of_272(golden):
    motion = golden("representation_pub")["c1_272"]
    for frames, rows in ((61, 40), (60, 39), (59, 38), (4, 2), (3, 1)):
        assert motion272_to_hml263(motion[:frames]).shape == (rows, 263)
    assert motion272_to_hml263(np.zeros((175, 272)) + motion[:1]).shape[0] == 116  # HumanML3D's clip 000000
    with pytest.raises(ValueError, match="2 frames at 30 fps are 1 at 20 fps"):
        motion272_to_hml263(motion[:2])


def test_leading_dimensions_are_clips_and_types_stay(golden):
    motion = golden("representation_pub")["c0_272"].astype(np.float32)
    both = np.stack([motion, motion[::-1]])
    got = motion272_to_hml263(both)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[0], motion272_to_hml263(motion))
    np.testing.assert_array_equal(hml263_to_joints(got)[1], hml263_to_joints(got[1]))
    assert motion272_to_hml263(torch.from_numpy(motion)).dtype == torch.float32


def test_contacts_are_the_four_feet(joints20):
    joints = np.repeat(joints20["c0"][:1], 4, axis=0)
    joints[2:, 10] += [0.0, 0.05, 0.0]  # the left toes jump once; the whole clip keeps its floor
    contacts = joints_to_hml263(joints)[:, HML263["contacts"]]
    np.testing.assert_array_equal(contacts, [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]])


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="22, 3"):
        joints_to_hml263(np.zeros((10, 21, 3)))
    with pytest.raises(ValueError, match="263"):
        hml263_to_joints(np.zeros((10, 272)))
    with pytest.raises(ValueError, match="21 bone lengths"):
        hml263.uniform(np.zeros((10, 22, 3)), (1.0,))
