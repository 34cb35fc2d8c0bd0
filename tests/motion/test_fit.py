"""One body, rotations that follow positions, and feet that stand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.body import Body, BodyMotion, bend_knees, measure, read_body, smpl_body, symmetric, write_body
from hftrainer.motion.contacts import contacts
from hftrainer.motion.fit import fit, pose, smoothed
from hftrainer.motion.ik import reach
from hftrainer.motion.lock import lock_feet
from hftrainer.motion.representation import motion272
from hftrainer.motion.rotation import angle_between, axis_angle_to_matrix, rotate
from hftrainer.motion.skeleton import MIRROR, forward_kinematics


def noisy(motion, metres=0.006, seed=0):
    """A clip whose bones change their length from frame to frame, as generated ones do."""
    joints, rotations = motion272.to_joints(motion), motion272.to_rotations(motion)[0]
    rng = np.random.default_rng(seed)
    return joints + rng.normal(0, metres, joints.shape), rotations


WALK = make_motion("walk", 120, 1).astype(np.float64)
BODY = measure([(motion272.to_joints(WALK), motion272.to_rotations(WALK)[0])], "walker")


def test_a_body_is_symmetric_stands_on_the_floor_and_bends_its_knees_forward():
    for body in (BODY, smpl_body()):
        rest = body.rest_joints
        np.testing.assert_allclose(rest, rest[list(MIRROR)] * [-1, 1, 1], atol=1e-9)
        assert rest[:, 1].min() == 0
        assert rest[20, 0] > 0.4 > -0.4 > rest[21, 0]  # a T-pose, left on +X
        between = rest[1] + (rest[7] - rest[1]) * (rest[1, 1] - rest[4, 1]) / (rest[1, 1] - rest[7, 1])
        assert rest[4, 2] - between[2] > 0.01


def test_bending_knees_keeps_lengths():
    straight = BODY.offsets.copy()
    straight[[4, 5]] = 0, -0.4, 0
    straight[[7, 8]] = 0, -0.41, 0
    bent = bend_knees(straight)
    np.testing.assert_allclose(np.linalg.norm(bent, axis=-1), np.linalg.norm(straight, axis=-1), atol=1e-12)
    np.testing.assert_allclose((bent[4] + bent[7])[[0, 2]], 0, atol=1e-12)


def test_measuring_noisy_clips_finds_the_bones():
    found = measure([noisy(WALK, seed=k) for k in range(3)], "again")
    assert np.abs(found.lengths - BODY.lengths).max() < 0.002  # metres; the median of 360 noisy frames


def test_a_body_survives_its_file(tmp_path):
    write_body(tmp_path / "skeleton.json", BODY)
    again = read_body(tmp_path / "skeleton.json")
    assert again.name == "walker"
    np.testing.assert_allclose(again.offsets, BODY.offsets, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(format="other"), "expected 'hftrainer-body-v1'"),
        (lambda c: c["offsets"].pop("head"), "head"),
        (lambda c: c["offsets"].update(left_hip=[1, 2]), "not a body's skeleton file"),
        (lambda c: c["offsets"].update(left_hip=[0.2, 0, 0]), "left and right differ"),
        (lambda c: c["offsets"].update(head=[0, 17, 0]), "are the offsets in metres"),
    ],
)
def test_a_damaged_body_file_is_refused(tmp_path, change, words):
    path = tmp_path / "skeleton.json"
    write_body(path, BODY)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        read_body(path)


def test_an_exact_clip_is_met_exactly():
    rotations, root = motion272.to_rotations(WALK)
    joints = forward_kinematics(rotations, root, BODY.offsets)
    found = fit(joints, rotations, BODY, smoothing=1)
    assert np.abs(found.joints - joints).max() < 1e-6
    assert np.degrees(np.asarray(angle_between(found.rotations, rotations)).max()) < 0.1


def test_a_noisy_clip_is_followed_on_fixed_bones_and_more_smoothly():
    joints, rotations = noisy(WALK)
    found = fit(joints, rotations, BODY)
    clean = forward_kinematics(*motion272.to_rotations(WALK), BODY.offsets)
    apart = np.linalg.norm(found.joints - joints, axis=-1).mean()
    assert apart < np.linalg.norm(clean - joints, axis=-1).mean() * 1.1  # no farther than the truth is, about
    assert np.linalg.norm(found.joints - clean, axis=-1).mean() < np.linalg.norm(joints - clean, axis=-1).mean()
    jerk = [np.linalg.norm(np.diff(p, n=3, axis=0), axis=-1).mean() for p in (found.joints, joints)]
    assert jerk[0] < 0.6 * jerk[1]


def test_twist_comes_from_the_given_rotations():
    rotations, root = motion272.to_rotations(WALK)
    rotations[:, 18] = rotations[:, 18] @ axis_angle_to_matrix(np.array([0.7, 0.0, 0.0]))  # a forearm about itself
    joints = forward_kinematics(rotations, root, BODY.offsets)
    found = fit(joints, rotations, BODY)
    turned = np.degrees(np.asarray(angle_between(found.rotations[:, 18], rotations[:, 18])))
    assert np.median(turned) < 3


def test_the_filter_keeps_parabolas_and_ends():
    t = np.arange(30.0)[:, None]
    curve = 0.3 * t**2 - 2 * t + 5
    inside = smoothed(curve, 7)
    np.testing.assert_allclose(inside[3:-3], curve[3:-3], atol=1e-9)
    np.testing.assert_allclose(smoothed(2 * t, 7), 2 * t, atol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_short_clips_are_fitted_too(frames):
    assert len(pose(WALK[:frames], BODY)) == frames


def test_what_cannot_be_fitted_is_named():
    joints, rotations = noisy(WALK)
    with pytest.raises(ValueError, match="at least one frame"):
        fit(joints[:0], rotations[:0], BODY)
    with pytest.raises(ValueError, match=r"got \(120, 21, 3\)"):
        fit(joints[:, 1:], rotations, BODY)
    joints[7, 3, 1] = np.nan
    with pytest.raises(ValueError, match="joints must be finite, got NaN or infinity first in frame 7"):
        fit(joints, rotations, BODY)
    with pytest.raises(ValueError, match="left and right differ"):
        Body("crooked", BODY.offsets + np.eye(22, 3) * 0.1)
    assert np.abs(symmetric(BODY.offsets) - BODY.offsets).max() < 1e-12


# --- feet -----------------------------------------------------------------------------------------------------------


def skating():
    """A walk in which the body glides sideways and sinks: 6 cm a second and 1.5 cm deep."""
    rotations, root = motion272.to_rotations(WALK)
    t = np.arange(len(root)) / 30
    glide = np.stack([0.06 * t, -0.015 * np.sin(2 * t) ** 2, 0 * t], axis=-1)
    return BodyMotion(rotations, root + glide, BODY)


def test_locked_feet_stand_and_do_not_sink():
    motion = skating()
    locked = lock_feet(motion)
    standing = contacts(motion.joints, BODY, fps=30)[1:, 2:] > 0.5
    assert standing.mean() > 0.2  # there is something to lock
    speed = [
        (30 * np.linalg.norm(np.diff(m.joints[:, [10, 11]][..., [0, 2]], axis=0), axis=-1))[standing].mean()
        for m in (motion, locked)
    ]
    assert speed[1] < 0.4 * speed[0]
    assert locked.joints[..., 1].min() > -0.005
    assert motion.joints[..., 1].min() < -0.01
    assert np.linalg.norm(locked.joints - motion.joints, axis=-1).mean() < 0.04


def test_knees_do_not_pop():
    """The synthetic walker's legs are all but straight, where a knee moves ten times as far as its ankle."""
    for motion in (fit(*noisy(WALK), BODY), skating()):
        sharpest = np.linalg.norm(np.diff(lock_feet(motion).joints[:, [4, 5]], n=2, axis=0), axis=-1).max()
        assert sharpest < 0.04  # metres a frame a frame; without a direction for straight knees: 0.056


def test_long_clips_are_solved_in_parts_without_a_seam():
    motion = skating()
    times = 12
    long = BodyMotion(
        np.tile(motion.rotations, (times, 1, 1, 1)),
        np.concatenate([motion.root + k * (motion.root[-1] - motion.root[0]) * [1, 0, 1] for k in range(times)]),
        BODY,
    )
    moved = lock_feet(long).joints - long.joints
    steps = np.linalg.norm(np.diff(moved, n=2, axis=0), axis=-1).max(axis=1)
    assert steps[470:490].max() < 2 * np.percentile(steps, 99)


def test_a_leg_reaches_and_keeps_its_bones():
    thigh, shin = np.array([0.0, -0.4, 0.02]), np.array([0.0, -0.41, -0.02])
    eye = np.broadcast_to(np.eye(3), (3, 3, 3))
    hip = np.zeros((3, 3))
    target = np.array([[0.1, -0.7, 0.1], [0.0, -0.5, 0.3], [0.0, -2.0, 0.0]])
    limit = np.full(3, 0.8)
    upper, lower = reach(hip, target, thigh, shin, (eye, eye), np.tile([0.0, 0.0, 1.0], (3, 1)), limit)
    ankle = rotate(upper, thigh) + rotate(lower, shin)
    np.testing.assert_allclose(ankle[:2], target[:2], atol=1e-6)
    np.testing.assert_allclose(ankle[2], [0, -0.8, 0], atol=1e-6)  # as far as it is allowed to
    assert (rotate(upper, thigh)[:, 2] > 0).all()  # knees in front
