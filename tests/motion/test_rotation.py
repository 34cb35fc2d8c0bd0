"""Rotations: every form to a matrix and back, against scipy where it knows the form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hftrainer.motion import rotation as r
from hftrainer.motion.resample import resample_positions, resample_rotations, resampled_frames

RNG = np.random.default_rng(0)
QUATERNIONS = RNG.normal(size=(200, 4))
MATRICES = r.quaternion_to_matrix(QUATERNIONS)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(
    ("there", "back"),
    [
        (r.to_rows_6d, r.from_rows_6d),
        (r.to_columns_6d, r.from_columns_6d),
        (r.to_columns_interleaved_6d, r.from_columns_interleaved_6d),
        (r.matrix_to_quaternion, r.quaternion_to_matrix),
        (r.matrix_to_axis_angle, r.axis_angle_to_matrix),
        (r.matrix_to_euler_zyx, lambda e: r.euler_to_matrix(e, "ZYX")),
    ],
)
def test_forms_come_back(there, back, make):
    matrices = make(MATRICES)
    np.testing.assert_allclose(back(there(matrices)), matrices, atol=1e-9)


def test_the_three_6d_layouts_differ():
    matrix = MATRICES[0]
    assert r.to_rows_6d(matrix).tolist() == [*matrix[0], *matrix[1]]
    assert r.to_columns_6d(matrix).tolist() == [*matrix[:, 0], *matrix[:, 1]]
    assert r.to_columns_interleaved_6d(matrix).tolist() == matrix[:, :2].ravel().tolist()
    assert np.degrees(r.angle_between(r.from_columns_6d(r.to_rows_6d(matrix)), matrix)) > 10


@pytest.mark.parametrize("order", ["XYZ", "ZXY", "ZYX", "YXZ", "XZY", "YZX"])
def test_euler_orders_equal_scipy(order):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    angles = RNG.uniform(-np.pi, np.pi, size=(50, 3))
    np.testing.assert_allclose(
        r.euler_to_matrix(angles, order), rotation.from_euler(order, angles).as_matrix(), atol=1e-12
    )


def test_axis_angle_equals_scipy_from_tiny_to_half_a_turn():
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    axes = RNG.normal(size=(60, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.concatenate([np.geomspace(1e-12, 1e-3, 20), RNG.uniform(0, np.pi, 39), [np.pi]])
    matrices = rotation.from_rotvec(axes * angles[:, None]).as_matrix()
    np.testing.assert_allclose(r.axis_angle_to_matrix(axes * angles[:, None]), matrices, atol=1e-12)
    vectors = r.matrix_to_axis_angle(matrices)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), angles, atol=1e-7)


def test_gimbal_lock_is_still_a_rotation():
    locked = r.euler_to_matrix(np.array([[0.3, np.pi / 2, 0.7], [0.3, -np.pi / 2, 0.7]]), "ZYX")
    np.testing.assert_allclose(r.euler_to_matrix(r.matrix_to_euler_zyx(locked), "ZYX"), locked, atol=1e-7)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 64, 100])
def test_running_product_equals_the_loop(frames):
    parts = MATRICES[:frames]
    want = [parts[0]]
    for part in parts[1:]:
        want.append(part @ want[-1])
    np.testing.assert_allclose(r.running_product(parts), want, atol=1e-12)


def test_between_vectors_is_the_smallest_turn():
    a, b = RNG.normal(size=(2, 50, 3))
    turn = r.between_vectors(a, b)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b)]
    np.testing.assert_allclose(r.rotate(turn, unit[0]), unit[1], atol=1e-9)
    np.testing.assert_allclose(
        r.angle_between(turn, np.eye(3)), np.arccos(np.clip((unit[0] * unit[1]).sum(1), -1, 1)), atol=1e-7
    )
    back = r.between_vectors(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, -1.0]))
    np.testing.assert_allclose(r.rotate(back, np.array([0.0, 0.0, 1.0])), [0, 0, -1], atol=1e-9)


def test_heading_is_the_yaw_it_was_made_with():
    angles = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(r.heading(r.yaw(angles)), angles, atol=1e-12)


def test_resampling_takes_the_shorter_arc():
    spin = r.yaw(np.radians(np.array([0.0, 170.0, 340.0, 510.0])))  # 170 degrees a frame, passing 180
    half = resample_rotations(spin, 10.0, 20.0)
    want = r.yaw(np.radians(np.array([0.0, 85.0, 170.0, 255.0, 340.0, 425.0, 510.0])))
    np.testing.assert_allclose(half, want, atol=1e-9)


@pytest.mark.parametrize(
    ("frames", "source", "target", "count"),
    [(121, 120, 30, 31), (120, 120, 30, 30), (61, 60, 30, 31), (11, 20, 30, 16), (1, 24, 30, 1)],
)
def test_resampled_positions_lie_on_the_line(frames, source, target, count):
    line = np.arange(frames, dtype=float)[:, None] / source
    out = resample_positions(line, source, target)
    assert len(out) == count == resampled_frames(frames, source, target)
    np.testing.assert_allclose(out[:, 0], np.arange(count) / target, atol=1e-12)


def test_impossible_rates_are_refused():
    with pytest.raises(ValueError, match="frame rates must be positive"):
        resampled_frames(10, 0, 30)
