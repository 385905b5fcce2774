"""Geotags against finite differences, Monte Carlo and numbers by hand, where the truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibration.camera import Camera
from calibration.geodesy import MapFrame, offset_enu
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import ENU_FROM_NED, r_from_ypr, r_ned_cam_from_ypr, rot_exp
from onboard.errors import PoseError
from onboard.place.ellipses import ce90_m, ellipse
from onboard.place.geotag import CAUSES, geotag, row_time_s
from onboard.place.surface import GridTerrain, PlaneTerrain, Terrain
from onboard.records import Floats, GroundPoints, Poses

LAT, LON = 46.1, 7.4
MAP = MapFrame.utm(LAT, LON)
X0, Y0 = (float(v) for v in MAP.to_map(LAT, LON))
UV = np.array(
    [[640.0, 480.0], [0.0, 0.0], [1279.0, 0.0], [1279.0, 959.0], [0.0, 959.0], [900, 300]]
)


def make_rig(**changes: Any) -> Rig:
    camera = Camera("opencv", 1280, 960, 1050.0, 1045.0, 641.0, 477.0, (-0.08, 0.03, 6e-4, -4e-4))
    return replace(Rig(camera, Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0))), **changes)


def make_poses(yaw: Any, pitch: Any, roll: Any, alt_m: float = 1100.0, **changes: Any) -> Poses:
    angles = np.radians(np.broadcast_arrays(*np.atleast_1d(yaw, pitch, roll)))
    n = angles.shape[1]
    base = Poses(
        frame=tuple(f"f{i}.jpg" for i in range(n)),
        lat_deg=np.full(n, LAT),
        lon_deg=np.full(n, LON),
        alt_m=np.full(n, alt_m),
        height_datum="ellipsoid",
        r_ned_cam=r_ned_cam_from_ypr(*angles),
        r_ned_body=np.full((n, 3, 3), np.nan),
        v_ned_mps=np.full((n, 3), np.nan),
        omega_ned_rps=np.full((n, 3), np.nan),
        sigma_enu_m=np.zeros((n, 3)),
        sigma_tilt_rad=np.zeros(n),
        sigma_heading_rad=np.zeros(n),
        bias_enu_m=np.zeros((n, 3)),
        bias_heading_rad=np.zeros(n),
        t_boot_s=np.full(n, np.nan),
        flags=((),) * n,
    )
    return replace(base, **changes)


def make_grid(height: Any, size_m: float = 600.0, post_m: float = 2.0, **more: Any) -> GridTerrain:
    """Posts of ``height(x, y)``, x and y in metres from the world's middle."""
    n = int(size_m / post_m) + 1
    axis = (np.arange(n) - (n - 1) / 2) * post_m
    x, y = np.meshgrid(axis, -axis)
    z = np.asarray(height(x, y), dtype=np.float64) + np.zeros_like(x)
    return GridTerrain(z, X0 + axis[0], Y0 - axis[0], post_m, -post_m, **more)


def slope(x: Floats, y: Floats) -> Floats:
    return 1000.0 + 0.25 * x - 0.12 * y


TERRAINS = {"plane": PlaneTerrain(1000.0), "slope": make_grid(slope)}
VIEWS = {"nadir": (40.0, -90.0, 0.0), "oblique": (200.0, -62.0, 5.0)}


def place(
    poses: Poses, rig: Rig, terrain: Terrain, uv: Floats = UV, sigma_px: float = 0.0
) -> GroundPoints:
    return geotag(poses, np.zeros(len(uv), np.int64), uv, sigma_px, rig, terrain, MAP, "f")


def moved(poses: Poses, enu: Floats) -> Poses:
    lat, lon, alt = offset_enu(poses.lat_deg, poses.lon_deg, poses.alt_m, enu)
    return replace(poses, lat_deg=lat, lon_deg=lon, alt_m=alt)


def turned(poses: Poses, enu: Floats) -> Poses:
    return replace(poses, r_ned_cam=rot_exp(ENU_FROM_NED @ enu * 1.0) @ poses.r_ned_cam)


def shift_m(plus: GroundPoints, minus: GroundPoints) -> Floats:
    """Half the difference of two placements in true east, north."""
    map_shift = np.stack([plus.x_m - minus.x_m, plus.y_m - minus.y_m], axis=1) / 2.0
    to_enu = MAP.enu_from_map_rotation(MAP.local(LAT, LON))
    return (to_enu @ map_shift[..., None])[..., 0]


def with_camera(rig: Rig, name: str, by: float) -> Rig:
    camera = rig.camera
    if name in camera.terms:
        terms = list(camera.distortion)
        terms[camera.terms.index(name)] += by
        return replace(rig, camera=replace(camera, distortion=tuple(terms)))
    return replace(rig, camera=replace(camera, **{name: getattr(camera, name) + by}))


V, OMEGA = np.array([[9.0, -7.0, 1.5]]), np.array([[0.05, -0.3, 0.2]])


def systematic(name: str, poses: Poses, rig: Rig, terrain: Terrain) -> tuple[Any, Any, float]:
    """The set-up that states one bias, how to apply ±1 σ of it for real, and its σ."""
    axis3 = np.eye(3)
    if name in ("east", "north", "up"):
        e = 0.05 * axis3[("east", "north", "up").index(name)]
        stated = replace(poses, bias_enu_m=e[None].copy())
        return (stated, rig, terrain), lambda s: (moved(poses, s * e[None]), rig, terrain), 0.05
    if name == "heading":
        stated = replace(poses, bias_heading_rad=np.array([1e-3]))
        return (
            (stated, rig, terrain),
            lambda s: (turned(poses, np.array([0, 0, s * 1e-3])), rig, terrain),
            1e-3,
        )
    if name.startswith("boresight"):
        i = ("right", "down", "forward").index(name.split("_")[1])
        stated_rig = replace(rig, mount=replace(rig.mount, sigma_rad=1e-3 * axis3[i]))
        return (
            (poses, stated_rig, terrain),
            lambda s: (
                replace(poses, r_ned_cam=poses.r_ned_cam @ rot_exp(s * 1e-3 * axis3[i])),
                rig,
                terrain,
            ),
            1e-3,
        )
    if name.startswith("lever"):
        i = ("forward", "right", "down").index(name.split("_")[1])
        stated_rig = replace(rig, mount=replace(rig.mount, lever_arm_sigma_m=0.05 * axis3[i]))
        arm = 0.05 * ENU_FROM_NED @ poses.r_ned_body[0] @ axis3[i]
        return (
            (poses, stated_rig, terrain),
            lambda s: (moved(poses, s * arm[None]), rig, terrain),
            0.05,
        )
    if name == "clock":
        stated_rig = replace(rig, clock=Clock(sigma_s=0.002))
        moving = replace(poses, v_ned_mps=V, omega_ned_rps=OMEGA)

        def later(s: float) -> Any:
            there = moved(poses, s * 0.002 * V @ ENU_FROM_NED.T)
            r = rot_exp(s * 0.002 * OMEGA[0]) @ poses.r_ned_cam
            return replace(there, r_ned_cam=r), rig, terrain

        return (moving, stated_rig, terrain), later, 0.002
    if name == "level":
        if isinstance(terrain, PlaneTerrain):
            stated_ground: Terrain = replace(terrain, level_sigma_m=0.05)
            return (
                (poses, rig, stated_ground),
                lambda s: (poses, rig, PlaneTerrain(terrain.alt_m + s * 0.05)),
                0.05,
            )
        assert isinstance(terrain, GridTerrain)
        stated_ground = replace(terrain, level_sigma_m=0.05)
        return (
            (poses, rig, stated_ground),
            lambda s: (poses, rig, replace(terrain, z=terrain.z + s * 0.05)),
            0.05,
        )
    sigma = 1e-4 if name in rig.camera.terms else 0.05
    stated_rig = replace(rig, covariance=np.array([[sigma**2]]), covariance_order=(name,))
    return (
        (poses, stated_rig, terrain),
        lambda s: (poses, with_camera(rig, name, s * sigma), terrain),
        sigma,
    )


STATES = [
    "east", "north", "up", "heading", "boresight_right", "boresight_down", "boresight_forward",
    "lever_forward", "lever_right", "lever_down", "clock", "level", "fx_px", "fy_px", "cx_px",
    "cy_px", "k1", "k2", "p1", "p2", "k3", "k4", "k6", "s1", "s4",
]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS, ids=VIEWS)
@pytest.mark.parametrize("ground", TERRAINS, ids=TERRAINS)
@pytest.mark.parametrize("state", STATES, ids=STATES)
def test_sensitivities_equal_finite_differences(state: str, ground: str, view: str) -> None:
    body = r_from_ypr(*np.radians([[30.0], [4.0], [-12.0]]))
    poses = make_poses(*VIEWS[view], r_ned_body=body)
    stated, applied, _ = systematic(state, poses, make_rig(), TERRAINS[ground])
    points = place(*stated)
    assert len(points.bias_names) == 1
    assert points.bias_names[0].endswith("focal" if state == "fx_px" else state.removesuffix("_px"))
    expected = shift_m(place(*applied(1.0)), place(*applied(-1.0)))
    size = np.abs(expected).max()
    assert size > 1e-5
    np.testing.assert_allclose(points.sensitivity_m[:, :, 0], expected, atol=2e-3 * size)
    np.testing.assert_allclose(points.cov_random_m2, 0.0, atol=1e-12)


@pytest.mark.parametrize("view", VIEWS, ids=VIEWS)
@pytest.mark.parametrize("ground", TERRAINS, ids=TERRAINS)
def test_random_covariance_equals_finite_differences(ground: str, view: str) -> None:
    rig, terrain = make_rig(), TERRAINS[ground]
    bare = make_poses(*VIEWS[view])
    poses = replace(
        bare,
        sigma_enu_m=np.array([[0.02, 0.03, 0.05]]),
        sigma_tilt_rad=np.array([1e-3]),
        sigma_heading_rad=np.array([2e-3]),
    )
    pairs = [(moved(bare, s * m), moved(bare, -s * m)) for s, m in zip(
        (0.02, 0.03, 0.05), np.eye(3)[:, None], strict=True)]  # fmt: skip
    pairs += [(turned(bare, s * m), turned(bare, -s * m)) for s, m in zip(
        (1e-3, 1e-3, 2e-3), np.eye(3), strict=True)]  # fmt: skip
    columns = [shift_m(place(a, rig, terrain), place(b, rig, terrain)) for a, b in pairs]
    for axis in np.eye(2):
        ahead = place(bare, rig, terrain, UV + 0.05 * axis)
        columns.append(shift_m(ahead, place(bare, rig, terrain, UV - 0.05 * axis)))
    expected = sum(c[:, :, None] * c[:, None, :] for c in columns)
    got = place(poses, rig, terrain, sigma_px=0.05)
    assert got.bias_names == ()
    np.testing.assert_allclose(got.cov_random_m2, expected, rtol=5e-3, atol=1e-5)


def test_shutter_row_takes_the_pose_of_its_own_row() -> None:
    rig = make_rig(clock=Clock(readout_s=0.03))
    poses = replace(make_poses(20.0, -80.0, 0.0), v_ned_mps=V, omega_ned_rps=OMEGA)
    points = place(poses, rig, TERRAINS["slope"])
    for i, t in enumerate(row_time_s(UV[:, 1], rig)):
        there = moved(make_poses(20.0, -80.0, 0.0), t * V @ ENU_FROM_NED.T)
        there = replace(there, r_ned_cam=rot_exp(t * OMEGA[0]) @ there.r_ned_cam)
        one = place(there, make_rig(), TERRAINS["slope"], UV[i : i + 1])
        miss = np.hypot(points.x_m[i] - one.x_m[0], points.y_m[i] - one.y_m[0])
        assert miss < 2e-4
    assert row_time_s(np.array([479.5]), rig) == pytest.approx(0.0)


def test_systematic_and_random_make_the_total_and_the_shares() -> None:
    rig = make_rig(mount=replace(make_rig().mount, sigma_rad=np.full(3, 5e-3)))
    poses = replace(
        make_poses(0.0, -90.0, 0.0),
        sigma_enu_m=np.array([[0.3, 0.3, 0.3]]),
        sigma_heading_rad=np.array([np.radians(2.0)]),
        bias_enu_m=np.array([[0.4, 0.4, 0.0]]),
    )
    points = place(poses, rig, PlaneTerrain(1000.0), np.array([[641.0, 477.0]]))
    # at the centre of a nadir frame, by hand: heading moves nothing, 1 mrad of tilt 0.1 m
    assert points.cov_total_m2[0, 0, 0] == pytest.approx(0.3**2 + 0.4**2 + 0.5**2, rel=1e-3)
    assert points.cov_random_m2[0, 0, 0] == pytest.approx(0.3**2, rel=1e-3)
    shares = dict(zip(CAUSES, points.cause_share[0], strict=True))
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["position"] == pytest.approx(0.25 / 0.5, rel=1e-3)
    assert shares["boresight"] == pytest.approx(0.25 / 0.5, rel=1e-3)
    assert points.bias_names[:2] == ("flight/f/east", "flight/f/north")
    assert points.bias_names[2] == f"rig/{rig.hash[:8]}/boresight_right"


def rough(x: Floats, y: Floats) -> Floats:
    return 1000.0 + 12.0 * np.sin(x / 11.0) * np.cos(y / 13.0) + 6.0 * np.sin((x + y) / 5.0)


def test_rough_ground_gets_sigma_points_that_hold_the_truth() -> None:
    """The share of true points inside 90 % ellipses, for sigma points, over many poses."""
    terrain = make_grid(rough, size_m=900.0)
    rng = np.random.default_rng(5)
    n = 1500
    truth = make_poses(rng.uniform(0, 360, n), rng.uniform(-60, -35, n), np.zeros(n), 1110.0)
    sigma_tilt, sigma_m = np.radians(0.7), 1.2
    told = moved(truth, rng.normal(0, sigma_m, (n, 3)))
    wobble = rng.normal(0, sigma_tilt, (n, 3))
    told = replace(
        told,
        r_ned_cam=rot_exp(wobble) @ told.r_ned_cam,
        sigma_enu_m=np.full((n, 3), sigma_m),
        sigma_tilt_rad=np.full(n, sigma_tilt),
        sigma_heading_rad=np.full(n, sigma_tilt),
    )
    uv, rows = np.tile(UV[:1], (n, 1)), np.arange(n)
    where = geotag(truth, rows, uv, 0.0, make_rig(), terrain, MAP)
    points = geotag(told, rows, uv, 0.0, make_rig(), terrain, MAP)
    seen = np.isfinite(where.x_m) & np.isfinite(points.x_m)
    assert seen.mean() > 0.95
    flagged = np.array(["rough" in flags for flags in points.flags])
    assert flagged[seen].mean() > 0.8
    off = np.stack([where.x_m - points.x_m, where.y_m - points.y_m], axis=1)[seen]
    to_enu = MAP.enu_from_map_rotation(MAP.local(LAT, LON))
    off = (to_enu @ off[..., None])[..., 0]
    inside = np.einsum("ni,nij,nj->n", off, np.linalg.inv(points.cov_total_m2[seen]), off) < 4.605
    assert 0.86 < inside.mean() < 0.94


@pytest.mark.parametrize(
    ("flag", "uv", "view", "ground"),
    [
        ("no_pose", [[640.0, 480.0]], VIEWS["nadir"], "plane"),
        ("no_ray", [[1.0e6, 480.0]], VIEWS["nadir"], "plane"),
        ("sky", [[640.0, 0.0]], (0.0, 20.0, 0.0), "slope"),
        ("outside_dem", [[640.0, 480.0]], (0.0, -10.0, 0.0), "slope"),
        ("outside_image", [[1290.0, 480.0]], VIEWS["nadir"], "plane"),
        ("below_ground", [[640.0, 480.0]], VIEWS["nadir"], "hill"),
        ("void", [[640.0, 480.0]], VIEWS["nadir"], "void"),
        ("grazing", [[640.0, 480.0]], (0.0, -2.0, 0.0), "plane"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_points_that_are_doubtful_or_not_placed_say_why(
    flag: str, uv: list[list[float]], view: tuple[float, float, float], ground: str
) -> None:
    hole = make_grid(slope)
    hole.z[140:160, 140:160] = np.nan
    grounds: dict[str, Terrain] = {
        **TERRAINS,
        "hill": make_grid(lambda x, y: 1200.0 + 0 * x),
        "void": replace(hole, z=hole.z),
    }
    index = np.array([-1 if flag == "no_pose" else 0])
    rig = with_camera(make_rig(), "k1", -0.25)  # no inverse beyond a radius of 1.1
    points = geotag(make_poses(*view), index, np.array(uv), 1.0, rig, grounds[ground], MAP)
    assert flag in points.flags[0]
    is_placed = flag in ("outside_image", "grazing")
    assert np.isfinite(points.lat_deg[0]) == is_placed
    assert np.isfinite(points.cov_random_m2).all() == is_placed


def test_flags_of_the_pose_are_carried_to_its_points() -> None:
    poses = make_poses([0.0, 90.0], -90.0, 0.0)
    poses = replace(poses, flags=(("extrapolated",), ()))
    points = geotag(poses, np.array([1, 0, 1]), UV[:3], 0.0, make_rig(), PlaneTerrain(1000.0), MAP)
    assert points.flags == ((), ("extrapolated",), ())


def test_a_table_larger_than_one_batch_is_placed_like_its_parts() -> None:
    rng = np.random.default_rng(0)
    uv = rng.uniform([0, 0], [1279, 959], (70_000, 2))
    poses = replace(make_poses(10.0, -85.0, 1.0), bias_enu_m=np.array([[1.0, 1.0, 1.0]]))
    whole = place(poses, make_rig(), PlaneTerrain(1000.0), uv)
    tail = place(poses, make_rig(), PlaneTerrain(1000.0), uv[-10:])
    np.testing.assert_array_equal(whole.x_m[-10:], tail.x_m)
    np.testing.assert_array_equal(whole.sensitivity_m[-10:], tail.sensitivity_m)


def test_heights_of_unlike_datums_are_refused() -> None:
    poses = replace(make_poses(0.0, -90.0, 0.0), height_datum="takeoff")
    with pytest.raises(PoseError, match="takeoff") as error:
        place(poses, make_rig(), PlaneTerrain(0.0, "ellipsoid"))
    assert "--alt-datum" in error.value.hint


@pytest.mark.parametrize(
    ("sx", "sy", "expected"),
    [(1.0, 1.0, 2.145966), (1.0, 0.0, 1.644854), (3.0, 3.0, 6.437898)],
    ids=["circle", "line", "scaled"],
)
def test_ce90_of_circle_and_line(sx: float, sy: float, expected: float) -> None:
    assert float(ce90_m(np.diag([sx**2, sy**2]))) == pytest.approx(expected, abs=1e-5)


def test_ce90_circle_holds_ninety_percent() -> None:
    rng = np.random.default_rng(1)
    cov = np.array([[4.0, 1.2], [1.2, 0.9]])
    draws = rng.multivariate_normal([0, 0], cov, 400_000)
    inside = np.hypot(*draws.T) < float(ce90_m(cov))
    assert inside.mean() == pytest.approx(0.9, abs=0.002)


def test_ellipse_axes_and_azimuth() -> None:
    turn = np.array([[np.sin(0.5), -np.cos(0.5)], [np.cos(0.5), np.sin(0.5)]])
    major, minor, azimuth = ellipse(turn @ np.diag([9.0, 1.0]) @ turn.T)
    assert (float(major), float(minor)) == pytest.approx((3 * 2.145966, 2.145966), rel=1e-5)
    assert float(azimuth) == pytest.approx(np.degrees(0.5))
