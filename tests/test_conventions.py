"""Every convention of docs/axes.md as one number that can be checked by hand.

The camera has f = 1000 px and its principal point in the middle of 2001 × 1501 px: 100 px off the
middle are 10 m on ground that lies 100 m below a camera looking down.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from calibration.camera import Camera
from calibration.geodesy import MapFrame, geoid_m, to_ellipsoid_m
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import (
    A_BODY_CAM,
    r_from_ypr,
    r_ned_cam_from_ypr,
    ypr_from_r,
    ypr_from_r_ned_cam,
)
from onboard.place.first_hit import SKY, first_hit
from onboard.place.geotag import geotag, row_time_s
from onboard.place.surface import PlaneTerrain
from onboard.place.trajectory import PoseBuffer
from onboard.records import Floats, Poses
from onboard.sources.pose_table import read_poses

LAT, LON = 0.0, 9.0  # on the equator, on the central meridian of UTM 32: γ = 0, k = 0.9996
MAP = MapFrame.utm(LAT, LON)
CAMERA = Camera("opencv", 2001, 1501, 1000.0, 1000.0, 1000.0, 750.0)
DOWN = Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0))
MIDDLE, RIGHT, TOP = (1000.0, 750.0), (1100.0, 750.0), (1000.0, 650.0)
RIGHT_AXIS, DOWN_AXIS, FORWARD_AXIS = np.eye(3)


def enu_m(
    uv: tuple[float, float],
    r_ned_cam: Floats,
    rig: Rig | None = None,
    height_m: float = 100.0,
    v_ned_mps: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> tuple[float, float]:
    """True east and north from under the camera to where a pixel lies on ground of height 0."""
    pose = Poses(
        ("a",), np.array([LAT]), np.array([LON]), np.array([height_m]), "ellipsoid",
        r_ned_cam[None], np.full((1, 3, 3), np.nan), np.array([v_ned_mps], float), np.zeros((1, 3)),
        np.zeros((1, 3)), np.zeros(1), np.zeros(1), np.zeros((1, 3)), np.zeros(1), np.zeros(1),
        ((),),
    )  # fmt: skip
    rig = rig or Rig(CAMERA, DOWN)
    out = geotag(pose, np.zeros(1, np.int64), np.array([uv]), 0.0, rig, PlaneTerrain(0.0), MAP)
    east_m = np.radians(out.lon_deg[0] - LON) * 6378137.0
    north_m = np.radians(out.lat_deg[0] - LAT) * 6335439.327  # M at the equator: a(1 − e²)
    return float(east_m), float(north_m)


def camera(yaw: float, pitch: float, roll: float) -> Floats:
    return r_ned_cam_from_ypr(*np.radians([yaw, pitch, roll]))


@pytest.mark.parametrize(
    ("angles", "axis", "ned"),
    [
        pytest.param((0, 0, 0), FORWARD_AXIS, (1, 0, 0), id="level, yaw 0: looks north"),
        pytest.param((0, 0, 0), DOWN_AXIS, (0, 0, 1), id="level: the image's down is down"),
        pytest.param((90, 0, 0), FORWARD_AXIS, (0, 1, 0), id="yaw 90: looks east"),
        pytest.param((0, 90, 0), FORWARD_AXIS, (0, 0, -1), id="pitch 90: looks up"),
        pytest.param((0, -90, 0), FORWARD_AXIS, (0, 0, 1), id="pitch -90: looks down"),
        pytest.param((0, -90, 0), -DOWN_AXIS, (1, 0, 0), id="nadir, yaw 0: image top north"),
        pytest.param((90, -90, 0), -DOWN_AXIS, (0, 1, 0), id="nadir, yaw 90: image top east"),
        pytest.param((90, -90, 0), RIGHT_AXIS, (-1, 0, 0), id="nadir, yaw 90: image right south"),
        pytest.param((0, 0, 90), RIGHT_AXIS, (0, 0, 1), id="roll 90: the right side is down"),
        pytest.param((0, -90, 90), -DOWN_AXIS, (0, 1, 0), id="nadir: roll acts like yaw"),
    ],
)
def test_camera_attitudes(angles: tuple[float, ...], axis: Floats, ned: tuple[float, ...]) -> None:
    np.testing.assert_allclose(camera(*angles) @ axis, ned, atol=1e-12)


@pytest.mark.parametrize(
    ("uv", "angles", "east", "north"),
    [
        pytest.param(MIDDLE, (0, -90, 0), 0.0, 0.0, id="nadir, middle"),
        pytest.param(RIGHT, (0, -90, 0), 10.0, 0.0, id="nadir, 100 px right: 10 m east"),
        pytest.param(TOP, (0, -90, 0), 0.0, 10.0, id="nadir, 100 px up: 10 m north"),
        pytest.param(TOP, (90, -90, 0), 10.0, 0.0, id="nadir, yaw 90: up is east"),
        pytest.param(MIDDLE, (0, -45, 0), 0.0, 100.0, id="45 deg down, north: as far as high"),
        pytest.param(MIDDLE, (270, -45, 0), -100.0, 0.0, id="yaw 270: west"),
        pytest.param(MIDDLE, (0, -80, 0), 0.0, 17.633, id="tan 10 deg x 100 m"),
    ],
)
def test_pixels_on_flat_ground(
    uv: tuple[float, float], angles: tuple[float, ...], east: float, north: float
) -> None:
    assert enu_m(uv, camera(*angles)) == pytest.approx((east, north), abs=2e-3)


def test_pixel_centres_are_whole_numbers() -> None:
    """The middle of a 2001-px row is pixel 1000.0; half a pixel would be 5 cm here."""
    assert enu_m(MIDDLE, camera(0, -90, 0)) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert enu_m((1000.5, 750.0), camera(0, -90, 0))[0] == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(
    ("mount", "body", "ahead_ned"),
    [
        pytest.param((0, -90, 0), (0, 0, 0), (0, 0, 1), id="looks down from a level body"),
        pytest.param((0, -90, 0), (0, 10, 0), (0.1736, 0, 0.9848), id="nose up: looks ahead"),
        pytest.param((0, -90, 0), (0, 0, 10), (0, -0.1736, 0.9848), id="right wing down: left"),
        pytest.param((90, -45, 0), (0, 0, 0), (0, 0.7071, 0.7071), id="45 deg to the right"),
        pytest.param((90, -45, 0), (90, 0, 0), (-0.7071, 0, 0.7071), id="… flying east: south"),
    ],
)
def test_a_fixed_mount_looks_along_its_angles_in_the_body(
    mount: tuple[float, ...], body: tuple[float, ...], ahead_ned: tuple[float, ...]
) -> None:
    fixed = Mount("fixed", r_from_ypr(*np.radians(mount)))
    r = fixed.r_ned_cam(r_from_ypr(*np.radians(body)))
    np.testing.assert_allclose(r @ FORWARD_AXIS, ahead_ned, atol=1e-4)


def test_a_gimbal_mount_turns_after_the_gimbal() -> None:
    """R = R(gimbal)·R(mount)·A: 2° of mount yaw at nadir lean the view 2°, they do not turn it."""
    mount = Mount("gimbal", r_from_ypr(np.radians(2.0), 0.0, 0.0))
    r = mount.r_ned_cam(camera(0, -90, 0))
    np.testing.assert_allclose(r, r_from_ypr(0, -np.pi / 2, 0) @ mount.r_mount @ A_BODY_CAM)
    assert enu_m(MIDDLE, r) == pytest.approx((100.0 * np.tan(np.radians(2.0)), 0.0), abs=2e-3)


def test_heading_bias_turns_about_world_down() -> None:
    """A heading that reads 10° too little: the image's top points to 10°, not to 0°."""
    mount = replace(DOWN, heading_bias_rad=np.radians(10.0))
    r = mount.r_ned_cam(np.eye(3))
    np.testing.assert_allclose(-r @ DOWN_AXIS, (0.9848, 0.1736, 0.0), atol=1e-4)


def flying_north(rig: Rig, t_s: float) -> Poses:
    """20 m/s north along the meridian through (LAT, LON) at t = 100 s, nose north, 100 m high."""
    buffer = PoseBuffer()
    for t in np.arange(98.0, 102.01, 0.2):
        lat = LAT + np.degrees(20.0 * (t - 100.0) / 6335439.327)
        buffer.add_attitude(float(t), np.eye(3), (0.0, 0.0, 0.0))
        buffer.add_position(float(t), float(lat), LON, 100.0, "ellipsoid", (20.0, 0.0, 0.0))
    return buffer.pose_at([t_s], ["a"], rig)


def north_of(poses: Poses) -> float:
    return float(np.radians(poses.lat_deg[0] - LAT) * 6335439.327)


def test_a_positive_clock_offset_means_exposed_later_than_stamped() -> None:
    """Exposure = stamp + offset: at 20 m/s, +0.3 s is 6 m further along the line."""
    late = Rig(CAMERA, DOWN, Clock(offset_s=0.3))
    assert north_of(flying_north(late, 100.0)) == pytest.approx(6.0, abs=1e-3)


def test_a_lever_arm_leads_from_the_reference_point_to_the_camera() -> None:
    """Forward, right, down: flying north, the camera is 1 m north, 2 m east, 0.5 m lower."""
    rig = Rig(CAMERA, replace(DOWN, lever_arm_m=np.array([1.0, 2.0, 0.5])))
    poses = flying_north(rig, 100.0)
    assert north_of(poses) == pytest.approx(1.0, abs=1e-3)
    assert np.radians(poses.lon_deg[0] - LON) * 6378137.0 == pytest.approx(2.0, abs=1e-3)
    assert poses.alt_m[0] == pytest.approx(99.5, abs=1e-6)


def test_rows_run_top_first_over_the_readout() -> None:
    """The middle row is the stamp; of 1501 rows in 0.03 s the top one is 15 ms earlier."""
    rig = Rig(CAMERA, DOWN, Clock(readout_s=0.03))
    t = row_time_s(np.array([0.0, 750.0, 1500.0]), rig)
    np.testing.assert_allclose(t, (-0.01499, 0.0, 0.01499), atol=1e-5)
    still, moving = Rig(CAMERA, DOWN), rig
    top = (1000.0, 0.0)
    ahead = enu_m(top, camera(0, -90, 0), still)[1]
    earlier = enu_m(top, camera(0, -90, 0), moving, v_ned_mps=(20.0, 0.0, 0.0))[1]
    assert earlier - ahead == pytest.approx(-0.2998, abs=1e-3)  # the camera was 0.3 m further south


# ---- maps


def test_grid_convergence() -> None:
    """γ = Δλ·sin φ: 1° east of the central meridian at 45° north it is 0.7071°, to the east."""
    local = MapFrame.utm(45.0, 10.0).local(45.0, 10.0)
    assert np.degrees(local.convergence_rad[0]) == pytest.approx(0.7072, abs=2e-4)
    east, north = MapFrame.utm(45.0, 10.0).offset(local, 0.0, 1000.0, 0.0)
    assert float(east[0]) == pytest.approx(-12.34, abs=0.01)  # true north leans to the grid's west
    assert float(north[0]) == pytest.approx(999.6, abs=0.1)


def test_scale_and_height_factor() -> None:
    """k = 0.9996 on the central meridian; at 1000 m, R/(R + h) takes off another 0.157 m a km."""
    local = MAP.local(LAT, LON)
    assert local.scale[0] == pytest.approx(0.9996, abs=1e-8)
    low, _ = MAP.offset(local, 1000.0, 0.0, 0.0)
    high, _ = MAP.offset(local, 1000.0, 0.0, 1000.0)
    assert float(low[0]) == pytest.approx(999.6, abs=1e-4)
    assert float(low[0] - high[0]) == pytest.approx(0.157, abs=1e-3)


def test_the_earth_curves_away() -> None:
    """s²/2R: over 1 km the ground falls away by 7.9 cm, and a level ray never comes down."""
    ray = np.array([[0.0, 1.0, -1e-9]])
    centre = np.array([[*(float(v) for v in MAP.to_map(LAT, LON)), 10.0]])
    hits = first_hit(PlaneTerrain(0.0), MAP, centre, MAP.local(LAT, LON), ray)
    assert hits.status[0] == SKY  # it rises above the ground that falls away
    down = np.array([[0.0, 1.0, -0.01]])
    hits = first_hit(PlaneTerrain(0.0), MAP, centre, MAP.local(LAT, LON), down)
    assert hits.range_m[0] - 1000.05 == pytest.approx(7.9, abs=0.2)  # 7.9 cm lower at 1 % slope


# ---- datums


def test_the_ellipsoid_lies_below_a_positive_geoid() -> None:
    """h = H + N. At 0° N, 0° E EGM96 lies 17.16 m above the ellipsoid."""
    assert geoid_m(np.array([0.0]), np.array([0.0]))[0] == pytest.approx(17.16, abs=0.02)
    up = to_ellipsoid_m(np.array([100.0]), "egm96", np.array([0.0]), np.array([0.0]))
    assert up[0] == pytest.approx(117.16, abs=0.02)


@pytest.mark.parametrize(
    ("column", "datum", "alt_m"),
    [
        pytest.param("alt_m_ellipsoid", "ellipsoid", 100.0, id="ellipsoid"),
        pytest.param("alt_m_geoid", "egm96", 100.0, id="geoid means EGM96"),
        pytest.param("alt_m_takeoff", "takeoff", 100.0, id="take-off"),
        pytest.param("alt_m_same", "same", 100.0, id="same"),
    ],
)
def test_columns_name_their_datum(column: str, datum: str, alt_m: float, tmp_path: Path) -> None:
    table = tmp_path / "poses.csv"
    table.write_text(
        f"frame,lat_deg,lon_deg,{column},yaw_deg,pitch_deg,roll_deg\na,0,9,100,0,-90,0\n"
    )
    poses = read_poses(table, Rig(CAMERA, DOWN))
    assert (poses.height_datum, float(poses.alt_m[0])) == (datum, alt_m)


def test_camera_columns_leave_the_mount_out_and_body_columns_apply_it(tmp_path: Path) -> None:
    rig = Rig(CAMERA, Mount("fixed", r_from_ypr(0.0, -np.pi / 2, np.radians(5.0))))
    final, body = tmp_path / "final.csv", tmp_path / "body.csv"
    head = "frame,lat_deg,lon_deg,alt_m_ellipsoid"
    final.write_text(f"{head},yaw_deg,pitch_deg,roll_deg\na,0,9,100,0,-90,0\n")
    body.write_text(f"{head},body_yaw_deg,body_pitch_deg,body_roll_deg\na,0,9,100,0,0,0\n")
    np.testing.assert_allclose(read_poses(final, rig).r_ned_cam[0], camera(0, -90, 0), atol=1e-12)
    np.testing.assert_allclose(read_poses(body, rig).r_ned_cam[0], camera(0, -90, 5), atol=1e-12)


def test_sigmas_are_rotations_about_world_axes() -> None:
    """1° of tilt moves a point 100 m below by 1.745 m; 1° of heading moves the nadir not at all."""
    for tilt, heading, expected in ((1.0, 0.0, 1.745), (0.0, 1.0, 0.0)):
        pose = Poses(
            ("a",), np.array([LAT]), np.array([LON]), np.array([100.0]), "ellipsoid",
            camera(0, -90, 0)[None], np.full((1, 3, 3), np.nan), np.zeros((1, 3)), np.zeros((1, 3)),
            np.zeros((1, 3)), np.radians([tilt]), np.radians([heading]), np.zeros((1, 3)),
            np.zeros(1), np.zeros(1), ((),),
        )  # fmt: skip
        out = geotag(
            pose, np.zeros(1, np.int64), np.array([MIDDLE]), 0.0, Rig(CAMERA, DOWN),
            PlaneTerrain(0.0), MAP,
        )  # fmt: skip
        np.testing.assert_allclose(
            np.sqrt(np.diag(out.cov_total_m2[0])), (expected, expected), atol=2e-3
        )


# ---- round trips

angle = st.floats(-179.9, 179.9)
tilt = st.floats(-89.9, 89.9)


@given(angle, tilt, angle)
def test_angles_come_back(yaw: float, pitch: float, roll: float) -> None:
    angles = np.radians([yaw, pitch, roll])
    np.testing.assert_allclose(ypr_from_r(r_from_ypr(*angles)), angles, atol=1e-7)
    np.testing.assert_allclose(ypr_from_r_ned_cam(r_ned_cam_from_ypr(*angles)), angles, atol=1e-7)


@given(st.floats(-80.0, 83.0), st.floats(-179.9, 179.9), st.floats(-100.0, 8000.0))
def test_geoid_heights_come_back_and_are_projs(lat: float, lon: float, alt_m: float) -> None:
    n_m = geoid_m(np.array([lat]), np.array([lon]))[0]
    up = to_ellipsoid_m(np.array([alt_m]), "egm96", np.array([lat]), np.array([lon]))[0]
    assert up - n_m == pytest.approx(alt_m, abs=1e-9)
    assert -107.0 < n_m < 86.0  # EGM96's own extremes


@given(st.floats(-80.0, 83.0), st.floats(-179.9, 179.9))
def test_map_positions_come_back_and_are_projs(lat: float, lon: float) -> None:
    frame = MapFrame.utm(lat, lon)
    x, y = frame.to_map(lat, lon)
    back = Transformer.from_crs(frame.crs, CRS.from_epsg(4326), always_xy=True).transform(x, y)
    np.testing.assert_allclose(back, (lon, lat), atol=1e-9)
