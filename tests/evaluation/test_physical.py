"""Physical metrics: the published ones against golden values and a slow second version, ours on made situations."""

from __future__ import annotations

import numpy as np
import pytest

from hftrainer.data.synthetic.motions import CAPTIONS, make_motion
from hftrainer.evaluation import physical
from hftrainer.evaluation.physical_units import (
    KEYS,
    aggregate_physical_metrics_in_units,
    estimate_floor,
    physical_metrics_in_units,
)
from hftrainer.motion.representation import motion135, motion272
from hftrainer.motion.representation.convert import motion272_to_motion135
from hftrainer.motion.skeleton import forward_kinematics

OFFSETS = np.array(motion135.CANON272_OFFSETS)


@pytest.mark.parametrize("clip", ["c0", "c1", "c2"])
def test_golden_values(golden, clip):
    content = golden("representation_pub")
    got = physical.physical_metrics_from_motion(content[f"{clip}_272"], "ms272")
    assert tuple(got) == physical.KEYS
    for key, value in got.items():
        assert value == pytest.approx(float(content[f"{clip}_phys_{key}"]), rel=1e-6), key


def test_rotations_on_a_skeleton_are_measured_as_their_joints_are(golden):
    motion = golden("representation_pub")["c0_272"]
    for layout in ("columns", "columns_interleaved"):
        turned = motion272_to_motion135(motion, layout=layout)
        got = physical.physical_metrics_from_motion(turned, "motion135", layout=layout)
        rotations, root = motion272.to_rotations(motion)
        joints = forward_kinematics(rotations, root, OFFSETS)
        want = physical.compute_physical_metrics(joints)
        assert got == pytest.approx(want, rel=1e-3)
        assert got != physical.physical_metrics_from_motion(motion, "ms272")  # another skeleton, another clip
    longer = physical.physical_metrics_from_motion(turned, "motion135", offsets=2 * OFFSETS)
    assert longer["Jitter"] > got["Jitter"]
    with pytest.raises(ValueError, match="not applicable, because motion272 stores positions"):
        physical.physical_metrics_from_motion(motion, "ms272", layout="columns")
    with pytest.raises(ValueError, match="no representation called 'smpl'"):
        physical.physical_metrics_from_motion(motion, "smpl")


def test_every_representation_of_the_same_clip_gives_the_same(golden):
    motion = golden("representation_pub")["c0_272"]
    joints = motion272.to_joints(motion)
    want = physical.compute_physical_metrics(joints)
    assert physical.physical_metrics_from_motion(motion, "ms272") == want
    assert physical.physical_metrics_from_motion(joints, "joints") == want
    assert physical.physical_metrics_from_motion(joints.reshape(len(joints), 66), "joints66") == want


# --- a slow second version of Float, the rule with the most parts -----------------------------------------------------


def slow_float(joints: np.ndarray) -> tuple[int, int, int]:
    from scipy.signal import find_peaks

    joints = joints.astype(np.float32)
    root, toes, frames = joints[:, 0], joints[:, [10, 11]], len(joints)

    def speed(path):
        steps = [np.linalg.norm(path[t + 1] - path[t]) for t in range(frames - 1)]
        return np.array([*steps, steps[-1]])

    toe = [speed(toes[:, f]) for f in (0, 1)]
    body = speed(root)
    rate = [speed(toes[:, f] - root) / (body + 1e-6) for f in (0, 1)]
    low = toes[..., 1] - toes[..., 1].min() < 0.02
    contact = [(toe[f] < 0.01) | low[:, f] for f in (0, 1)]

    def invalid(t, f):
        drags = rate[f][t] < 0.6 and toe[f][t] > 1.2e-4
        slips = rate[f][t] > 1.75 and toe[f][t] > 1.2e-4 and body[t] > 1.2e-4
        return body[t] >= 0.001 and (drags or slips)

    unsupported = 0
    for t in range(frames):
        touching = [f for f in (0, 1) if contact[f][t]]
        unsupported += bool(touching) and all(invalid(t, f) for f in touching)

    def intervals(f):
        found, start = [], None
        for t in range(frames + 1):
            free = t < frames and not contact[f][t]
            if free and start is None:
                start = t
            if not free and start is not None:
                found.append((start, t))
                start = None
        return found

    hanging = 0
    for f in (0, 1):
        for a, b in intervals(f):
            if b - a >= 4 and np.mean(body[a:b] < 0.001) <= 0.5:
                hanging += int(np.sum(rate[f][a:b] < 0.4))
    swinging = 0
    for a, b in intervals(0):
        for c, d in intervals(1):
            start, end = max(a, c), min(b, d)
            if end - start >= 4:
                path = toes[start:end, 0]
                moved, base = path[1:] - path[0], path[-1] - path[0]
                norms = np.maximum(np.linalg.norm(moved, axis=1) * np.linalg.norm(base), 1e-12)
                angles = np.degrees(np.arccos(np.clip(moved @ base / norms, -1, 1)))
                swinging += (end - start) * (len(find_peaks(angles)[0]) > 2)
    return unsupported, hanging, swinging


def test_float_is_that_of_the_slow_version():
    pytest.importorskip("scipy")
    met = np.zeros(3)
    for seed in range(16):
        rng = np.random.default_rng(seed)
        frames = int(rng.integers(20, 90))
        joints = motion272.to_joints(make_motion(list(CAPTIONS)[seed % 5], 90, seed))[:frames]
        joints = joints + rng.normal(size=joints.shape) * rng.choice([1e-3, 1e-2])
        if seed % 3 == 0:
            joints = np.cumsum(rng.normal(size=joints.shape) * 0.01, axis=0)
        if seed % 4 == 0:  # carried along through the air
            joints = joints + np.linspace(0, 1, frames)[:, None, None] * [0, 2, 3]
        parts = np.array(slow_float(joints))
        got = physical.compute_physical_metrics(joints)["Float"]
        assert got == pytest.approx((parts * [1, 0.5, 1]).sum() / frames), seed
        met += parts
    assert (met > 0).all(), "the clips meet every rule"


def test_standing_still_and_gliding():
    still = np.tile(np.linspace(0, 1.5, 22)[:, None] * [0.1, 1, 0.1], (20, 1, 1))
    assert set(physical.compute_physical_metrics(still).values()) == {0.0}
    glide = still + np.arange(20)[:, None, None] * [0.02, 0, 0]
    got = physical.compute_physical_metrics(glide)
    assert got["Dynamic"] == pytest.approx(0.02, rel=1e-4)
    assert got["Slide"] == pytest.approx(0.01, rel=1e-3)  # one toe is the floor, the other high and fast
    assert got["Jitter"] == pytest.approx(0, abs=1e-6)


def test_means_and_the_tables_units():
    rows = [dict.fromkeys(physical.KEYS, 1.0), None, dict.fromkeys(physical.KEYS, 3.0)]
    mean = physical.aggregate_physical_metrics(rows)
    assert mean == {"n": 2.0, **dict.fromkeys(physical.KEYS, 2.0)}
    scaled = physical.table_scaled_physical_metrics(mean)
    assert scaled == {"n": 2.0, "Jitter": 2e3, "Dynamic": 2e3, "Penet": 2e3, "Float": 200.0, "Slide": 2e3}
    with pytest.raises(ValueError, match="no clip"):
        physical.aggregate_physical_metrics([None])


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.zeros((3, 22, 3)), "At least four frames"),
        (np.zeros((9, 24, 3)), "joints must have shape"),
        (np.zeros((2, 9, 22, 3)), "one clip at a time"),
        (np.full((9, 22, 3), np.inf), "NaN or infinite"),
    ],
)
def test_clips_that_cannot_be_measured(joints, message):
    for measure in (physical.compute_physical_metrics, lambda j: physical_metrics_in_units(j, fps=30)):
        with pytest.raises(ValueError, match=message):
            measure(joints)
    with pytest.raises(ValueError, match="no representation called 'motion201'"):
        physical.physical_metrics_from_motion(np.zeros((9, 201)), "motion201")


# --- in units -----------------------------------------------------------------------------------------------------


def body(seconds: float = 2.0, fps: float = 30.0) -> np.ndarray:
    """A rigid body that stands on y = 0, with its joints above one another but for the feet."""
    frames = round(seconds * fps)
    pose = np.zeros((22, 3))
    pose[:, 1] = np.linspace(0.2, 1.7, 22)
    pose[[10, 11]] = [[0.1, 0, 0.1], [-0.1, 0, 0.1]]
    return np.tile(pose, (frames, 1, 1))


def test_nothing_is_wrong_with_standing():
    got = physical_metrics_in_units(body(), fps=30)
    assert tuple(got) == KEYS
    assert got == {**dict.fromkeys(KEYS, 0.0), "contact_percent": 100.0}


@pytest.mark.parametrize("fps", [20.0, 30.0, 60.0])
def test_skate_is_a_speed_at_any_frame_rate(fps):
    joints = body(fps=fps)
    joints[..., 0] += 0.7 * (np.arange(len(joints)) / fps)[:, None]
    got = physical_metrics_in_units(joints, fps=fps)
    assert got["skate_m_per_s"] == pytest.approx(0.7, rel=1e-4)
    assert got["speed_m_per_s"] == pytest.approx(0.7, rel=1e-4)
    assert got["skate_percent"] == 100
    slower = body(fps=fps)
    slower[..., 0] += 0.3 * (np.arange(len(joints)) / fps)[:, None]
    assert physical_metrics_in_units(slower, fps=fps)["skate_percent"] == 0


def test_a_foot_that_swings_high_or_rises_does_not_skate():
    joints = body()
    joints[:, :, 0] += 2.0 * (np.arange(len(joints)) / 30)[:, None]
    joints[:, 10:12, 1] = 0.2
    got = physical_metrics_in_units(joints, fps=30)
    assert got["contact_percent"] == 0
    assert np.isnan(got["skate_m_per_s"])


def test_penetration_is_seen_where_the_published_one_is_blind():
    joints = body()
    joints[:30, :, 1] -= 0.03
    got = physical_metrics_in_units(joints, fps=30)
    assert got["penetration_mm"] == pytest.approx(15, rel=1e-4)
    assert got["penetration_percent"] == 50
    assert physical.compute_physical_metrics(joints)["Penet"] == 0


def test_the_floor_can_be_estimated():
    joints = body() + np.array([0, 0.8, 0])
    joints[20, 10, 1] = 0.5  # one bad frame, which a minimum would take for the floor
    assert estimate_floor(joints, fps=30) == pytest.approx(0.8)
    got = physical_metrics_in_units(joints, fps=30, floor="estimated")
    assert got["contact_percent"] > 95
    assert got["penetration_mm"] == pytest.approx(300 / 60, rel=1e-3)
    assert physical_metrics_in_units(joints, fps=30)["floating_percent"] == 100
    with pytest.raises(ValueError, match="'estimated', got 'guess'"):
        physical_metrics_in_units(joints, fps=30, floor="guess")
    with pytest.raises(ValueError, match="fps must be positive"):
        physical_metrics_in_units(joints, fps=0)


def test_a_jump_does_not_float_and_hovering_does():
    t = np.arange(60) / 30
    jump, hover = body(), body()
    flight = np.maximum(0, 3.0 * (t - 0.5) - 0.5 * 9.81 * (t - 0.5) ** 2) * (t > 0.5)
    jump[..., 1] += flight[:, None]
    hover[15:45, :, 1] += 0.3
    assert flight.max() > 0.4
    assert physical_metrics_in_units(jump, fps=30)["floating_percent"] == 0
    assert physical_metrics_in_units(hover, fps=30)["floating_percent"] == 50


def test_means_leave_clips_without_contact_out_of_skate_alone():
    rows = [dict.fromkeys(KEYS, 1.0), {**dict.fromkeys(KEYS, 3.0), "skate_m_per_s": np.nan, "skate_percent": np.nan}]
    got = aggregate_physical_metrics_in_units(rows)
    assert (got["n"], got["n_with_contact"]) == (2, 1)
    assert got["skate_m_per_s"] == 1
    assert got["jerk_m_per_s3"] == 2
    with pytest.raises(ValueError, match="no clip"):
        aggregate_physical_metrics_in_units([])
