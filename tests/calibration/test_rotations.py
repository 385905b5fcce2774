from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.rotations import (
    A_BODY_CAM,
    ENU_FROM_NED,
    quat_conj,
    quat_exp,
    quat_from_r,
    quat_log,
    quat_mul,
    r_from_quat,
    r_from_ypr,
    r_ned_cam_from_ypr,
    rot_exp,
    rot_log,
    skew,
    ypr_from_r,
    ypr_from_r_ned_cam,
)

angle = st.floats(-np.pi, np.pi)
pitch = st.floats(-np.pi / 2, np.pi / 2)
component = st.floats(-1.8, 1.8)


@given(angle, pitch, angle)
def test_ypr_round_trip_gives_the_same_rotation(yaw: float, tilt: float, roll: float) -> None:
    r = r_from_ypr(yaw, tilt, roll)
    np.testing.assert_allclose(r_from_ypr(*ypr_from_r(r)), r, atol=2e-8)
    np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(r) == pytest.approx(1.0)
    cam = r_ned_cam_from_ypr(yaw, tilt, roll)
    np.testing.assert_allclose(r_ned_cam_from_ypr(*ypr_from_r_ned_cam(cam)), cam, atol=2e-8)


@given(component, component, component)
def test_exp_and_log_are_inverse_and_quaternions_agree(x: float, y: float, z: float) -> None:
    v = np.array([x, y, z])
    if np.linalg.norm(v) > 3.1:
        v = v / np.linalg.norm(v) * 3.1
    r = rot_exp(v)
    np.testing.assert_allclose(rot_log(r), v, atol=1e-7)
    np.testing.assert_allclose(r_from_quat(quat_exp(v)), r, atol=1e-10)
    np.testing.assert_allclose(quat_log(quat_exp(v)), v, atol=1e-9)
    np.testing.assert_allclose(r_from_quat(quat_from_r(r)), r, atol=1e-12)
    np.testing.assert_allclose(skew(v) @ np.array([1.0, 2.0, 3.0]), np.cross(v, [1.0, 2.0, 3.0]))


@given(st.lists(component, min_size=6, max_size=6))
def test_quaternion_product_is_the_matrices_product(values: list[float]) -> None:
    a, b = quat_exp(values[:3]), quat_exp(values[3:])
    np.testing.assert_allclose(
        r_from_quat(quat_mul(a, b)), r_from_quat(a) @ r_from_quat(b), atol=1e-12
    )
    np.testing.assert_allclose(quat_mul(a, quat_conj(a)), [1, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("axis", np.eye(3), ids=["x", "y", "z"])
def test_log_at_half_a_turn(axis: np.ndarray) -> None:
    np.testing.assert_allclose(np.abs(rot_log(rot_exp(np.pi * axis))), np.pi * axis, atol=1e-9)


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll", "forward", "right"),
    [
        (0, 0, 0, (1, 0, 0), (0, 1, 0)),
        (90, 0, 0, (0, 1, 0), (-1, 0, 0)),
        (0, -90, 0, (0, 0, 1), (0, 1, 0)),
        (90, -90, 0, (0, 0, 1), (-1, 0, 0)),
        (0, 0, 90, (1, 0, 0), (0, 0, 1)),
    ],
    ids=["level north", "level east", "nadir north", "nadir east", "right side down"],
)
def test_camera_axes_in_ned(
    yaw: float, pitch: float, roll: float, forward: tuple[int, ...], right: tuple[int, ...]
) -> None:
    r = r_ned_cam_from_ypr(*np.radians([yaw, pitch, roll]))
    np.testing.assert_allclose(r[:, 2], forward, atol=1e-12)
    np.testing.assert_allclose(r[:, 0], right, atol=1e-12)


def test_stacks_and_axes() -> None:
    assert r_from_ypr(np.zeros(5), 0.1, np.ones(5)).shape == (5, 3, 3)
    np.testing.assert_array_equal(A_BODY_CAM @ [0, 0, 1], [1, 0, 0])
    np.testing.assert_array_equal(ENU_FROM_NED @ [1, 2, 3], [2, 1, -3])
