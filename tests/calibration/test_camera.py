from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.board import changed
from calibration.camera import INTRINSICS, Camera
from calibration.errors import RigError

PINHOLE = Camera("opencv", 4000, 3000, 2950.0, 2945.0, 2011.3, 1487.6)
OPENCV = Camera(
    "opencv", 4000, 3000, 2950.0, 2945.0, 2011.3, 1487.6, (-0.092, 0.051, 7e-4, -4e-4, 0.01)
)
RATIONAL = Camera(
    "opencv", 1280, 960, 700.0, 702.0, 640.0, 479.0,
    (0.3, 0.05, 1e-3, -5e-4, 0.002, 0.62, 0.12, 0.01, 1e-3, -2e-4, 5e-4, 1e-4),
)  # fmt: skip
FISHEYE = Camera(
    "fisheye", 2704, 2028, 1180.0, 1181.0, 1350.2, 1012.8, (-0.021, 0.008, -0.004, 6e-4)
)
CAMERAS = {"pinhole": PINHOLE, "opencv": OPENCV, "rational": RATIONAL, "fisheye": FISHEYE}

unit = st.floats(0.0, 1.0)
each_camera = pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)


def pixels(camera: Camera, n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.uniform([0, 0], [camera.width_px - 1, camera.height_px - 1], (n, 2))


@each_camera
@given(u=unit, v=unit, far=st.floats(0.1, 1e4))
def test_pixel_to_ray_and_back(camera: Camera, u: float, v: float, far: float) -> None:
    uv = np.array([[u * (camera.width_px - 1), v * (camera.height_px - 1)]])
    np.testing.assert_allclose(camera.project(far * camera.unproject(uv)), uv, atol=1e-6)


@each_camera
def test_projection_is_opencvs(camera: Camera) -> None:
    rays = camera.unproject(pixels(camera))
    no_pose = np.zeros(3)
    if camera.model == "fisheye":
        seen, _ = cv2.fisheye.projectPoints(
            rays[:, None], no_pose, no_pose, camera.matrix, np.array(camera.distortion)
        )
    else:
        seen, _ = cv2.projectPoints(
            rays, no_pose, no_pose, camera.matrix, np.array(camera.distortion)
        )
    np.testing.assert_allclose(seen.reshape(-1, 2), pixels(camera), atol=1e-6)


@each_camera
def test_ray_jacobian_equals_finite_differences(camera: Camera) -> None:
    uv, step = pixels(camera), 1e-2
    got = camera.unproject_jacobian(uv)
    for axis in (0, 1):
        e = step * np.eye(2)[axis]
        expected = (camera.unproject(uv + e) - camera.unproject(uv - e)) / (2 * step)
        np.testing.assert_allclose(got[:, :, axis], expected, atol=1e-9)


@each_camera
def test_intrinsic_jacobian_equals_finite_differences(camera: Camera) -> None:
    uv = pixels(camera)
    names = (*INTRINSICS, *camera.terms)
    got = camera.intrinsic_jacobian(uv, names)
    for i, name in enumerate(names):
        step = 1e-3 if name in INTRINSICS else 1e-6
        ahead = changed(camera, name, step).unproject(uv)
        back = changed(camera, name, -step).unproject(uv)
        np.testing.assert_allclose(got[:, :, i], (ahead - back) / (2 * step), rtol=1e-5, atol=1e-5)


@each_camera
def test_ray_jacobian_at_the_principal_point(camera: Camera) -> None:
    at = np.array([[camera.cx_px, camera.cy_px]])
    np.testing.assert_allclose(camera.unproject(at), [[0, 0, 1]], atol=1e-12)
    jacobian = camera.unproject_jacobian(at)[0]
    np.testing.assert_allclose(np.diag(jacobian), [1 / camera.fx_px, 1 / camera.fy_px], rtol=1e-3)


def test_behind_the_camera_and_beyond_the_model_is_nan() -> None:
    assert np.isnan(OPENCV.project([[0.0, 0.0, -1.0]])).all()
    strong = Camera("opencv", 1000, 1000, 500.0, 500.0, 499.5, 499.5, (-0.3,))
    assert strong.farthest == pytest.approx(np.sqrt(1 / 0.9), rel=1e-2)  # 1 − 3·0.3·r² = 0
    assert np.isnan(strong.project([[1.2, 0.0, 1.0]])).all()
    assert np.isfinite(strong.project([[0.9, 0.0, 1.0]])).all()
    assert np.isnan(strong.unproject([[999.0, 999.0]])).all()


def test_fisheye_sees_behind_itself() -> None:
    wide = Camera("fisheye", 2000, 2000, 500.0, 500.0, 999.5, 999.5)
    ray = np.array([[np.sin(1.8), 0.0, np.cos(1.8)]])
    seen = wide.project(ray)
    assert seen[0, 0] == pytest.approx(999.5 + 500 * 1.8)
    np.testing.assert_allclose(wide.unproject(seen), ray, atol=1e-9)


def test_scaled_keeps_rays() -> None:
    half = OPENCV.scaled(2000, 1500)
    uv = pixels(OPENCV)
    np.testing.assert_allclose(
        half.unproject((uv + 0.5) / 2 - 0.5), OPENCV.unproject(uv), atol=1e-9
    )


def test_inside_the_image() -> None:
    uv = np.array([[-0.5, -0.5], [-0.6, 0.0], [3999.4, 2999.4], [3999.6, 0.0]])
    assert OPENCV.inside(uv).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    "bad",
    [{"fx_px": -5.0}, {"width_px": 0}, {"distortion": (0.0,) * 13}],
    ids=["negative focal", "no width", "too many terms"],
)
def test_bad_intrinsics_are_refused(bad: dict[str, object]) -> None:
    good = {"model": "opencv", "width_px": 10, "height_px": 10, "fx_px": 5.0, "fy_px": 5.0}
    with pytest.raises(RigError):
        Camera(**{**good, "cx_px": 5.0, "cy_px": 5.0, **bad})  # type: ignore[arg-type]
