import csv
import json
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from pymavlink.dialects.v20 import ardupilotmega as mav

from calibration.geodesy import ecef_from_geodetic, geoid_m, r_ecef_enu
from calibration.rig import load_rig
from calibration.rotations import ENU_FROM_NED, rot_log
from onboard.place.geotag import geotag
from onboard.place.terrain import open_dem
from onboard.records import CHI2_2_P90
from onboard.simulator.errors import SimulatorError
from onboard.simulator.errors_of_flight import draw_errors, true_camera, true_mount
from onboard.simulator.flight import (
    Staged,
    sim_rig,
    simulate_flight,
    stage_flight,
    write_givens,
)
from onboard.simulator.flight_plan import FlightPlan, plan_for_minutes
from onboard.simulator.motion import STEP_S, smooth_noise
from onboard.simulator.telemetry import Telemetry
from onboard.simulator.tlog import HOST_BEHIND_S, write_tlog
from onboard.simulator.truth import read_truth
from onboard.simulator.world import centre_xy_m
from onboard.sources.open import open_source

ONE_LINE = FlightPlan(centre_xy_m(), lines=1, line_m=64.0, spacing_m=40.0)


@pytest.fixture(scope="module")
def staged() -> Staged:
    return stage_flight(31, plan=FlightPlan(centre_xy_m(), lines=2, line_m=96.0), painted=False)


def true_uv(staged: Staged, exposure: int, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    """Pixels at which the true camera sees ground points, each at its own row's time."""
    t = float(staged.motion.exposures_s[exposure])
    camera = staged.errors.camera
    lat, lon = staged.map_frame.to_geographic(x_m, y_m)
    target = ecef_from_geodetic(lat, lon, staged.world.height_m(x_m, y_m))
    row = np.full(len(x_m), (camera.height_px - 1) / 2)
    for _ in range(4):
        late = (row / (camera.height_px - 1) - 0.5) * staged.rig.clock.readout_s
        poses = [staged.camera.pose(t + dt) for dt in late]
        uv = np.empty((len(x_m), 2))
        for i, pose in enumerate(poses):
            place = pose.lat_deg, pose.lon_deg
            off = target[i] - ecef_from_geodetic(*place, pose.alt_m_ellipsoid)
            ned = ENU_FROM_NED @ (r_ecef_enu(*place).T @ off)
            uv[i] = camera.project((pose.r_ned_cam.T @ ned)[None])[0]
        row = np.where(np.isfinite(uv[:, 1]), uv[:, 1], row)
    return uv


def test_a_plan_without_a_line_is_refused() -> None:
    with pytest.raises(SimulatorError, match="0 lines"):
        FlightPlan(centre_xy_m(), lines=0)


def test_minutes_decide_the_number_of_lines() -> None:
    short, long = (plan_for_minutes(centre_xy_m(), m) for m in (3.0, 8.0))
    assert short.lines < long.lines
    assert short.duration_s() <= 180


def test_the_aircraft_keeps_to_its_lines_and_stands_still_before_and_after(staged: Staged) -> None:
    motion, plan = staged.motion, staged.plan
    for number, (start, _) in enumerate(plan.line_ends_m, start=1):
        on = motion.line == number
        assert np.abs(motion.xyz_m[on, 1] - start[1]).max() < 3.0
    assert not motion.airborne[0]
    assert not motion.airborne[-1]
    np.testing.assert_allclose(motion.v_ned_mps[:50], 0, atol=1e-6)
    ground = staged.world.height_m(motion.xyz_m[-1:, 0], motion.xyz_m[-1:, 1])
    assert abs(motion.xyz_m[-1, 2] - ground[0]) < 0.3


def test_exposures_are_a_trigger_distance_apart(staged: Staged) -> None:
    plan = staged.plan
    assert len(staged.motion.exposures_s) == plan.lines * (int(plan.line_m / plan.trigger_m) + 1)
    xyz, _ = staged.motion.pose_at(staged.motion.exposures_s)
    per_line = len(xyz) // plan.lines
    steps = np.linalg.norm(np.diff(xyz[:per_line, :2], axis=0), axis=1)
    np.testing.assert_allclose(steps, plan.trigger_m, atol=0.5)


def test_velocity_attitude_and_rates_agree_with_each_other(staged: Staged) -> None:
    motion = staged.motion
    r = motion.r_ned_body
    np.testing.assert_allclose(
        r @ np.swapaxes(r, 1, 2), np.broadcast_to(np.eye(3), r.shape), atol=1e-9
    )
    turn = rot_log(np.swapaxes(r[1000:1500], 1, 2) @ r[1001:1501]) / STEP_S
    np.testing.assert_allclose(turn, motion.rates_rps[1000:1500], atol=0.05)
    flat = ecef_from_geodetic(motion.lat_deg, motion.lon_deg, motion.xyz_m[:, 2])
    moved = (flat[3000] - flat[2000]) @ r_ecef_enu(motion.lat_deg[0], motion.lon_deg[0])
    summed = motion.v_ned_mps[2000:3000].sum(axis=0) * STEP_S
    np.testing.assert_allclose(ENU_FROM_NED @ summed, moved, atol=0.2)


@pytest.mark.parametrize(("tau_s", "order"), [(0.45, 2), (0.35, 2), (2.0, 1)])
def test_smooth_noise_has_unit_variance(tau_s: float, order: int) -> None:
    noise = smooth_noise(np.random.default_rng(1), 200_000, tau_s, order)
    assert abs(noise.std() - 1) < 0.04


def test_looks_two_seconds_apart_are_nearly_independent() -> None:
    noise = smooth_noise(np.random.default_rng(1), 400_000, 0.45)
    lag = round(2.0 / STEP_S)
    assert abs(float((noise[lag:] * noise[:-lag]).mean())) < 0.12


def test_errors_have_the_sigma_that_the_rig_states(staged: Staged) -> None:
    rig, said = sim_rig(), sim_rig().defaults
    drawn = [draw_errors(rig, staged.motion, np.random.default_rng(k)) for k in range(60)]
    expected = {
        "bias_e": ([e.bias_enu_m[0] for e in drawn], said.bias_e_m),
        "bias_u": ([e.bias_enu_m[2] for e in drawn], said.bias_u_m),
        "heading": ([np.degrees(e.bias_heading_rad) for e in drawn], said.bias_heading_deg),
        "clock": ([e.clock_offset_s for e in drawn], rig.clock.sigma_s),
        "dem": ([e.dem_level_m for e in drawn], said.dem_level_m),
        "focal": ([e.camera.fx_px - rig.camera.fx_px for e in drawn], 1.5),
    }
    for name, (values, sigma) in expected.items():
        rms = float(np.sqrt(np.mean(np.square(values))))
        assert 0.72 < rms / sigma < 1.3, name
    sway = np.concatenate([e.turn_ned_rad for e in drawn[:8]])
    sigma = np.radians([said.sigma_tilt_deg, said.sigma_tilt_deg, said.sigma_heading_deg])
    np.testing.assert_allclose(sway.std(axis=0), sigma, rtol=0.12)
    turns = [rot_log(rig.mount.r_mount.T @ true_mount(rig, np.random.default_rng(k)).r_mount)
             for k in range(200)]  # fmt: skip
    np.testing.assert_allclose(np.std(turns, axis=0), rig.mount.sigma_rad, rtol=0.2)
    assert drawn[0].h_acc_m == pytest.approx(np.hypot(said.sigma_e_m, said.bias_e_m))


def test_a_rig_without_covariance_is_exact() -> None:
    rig = replace(sim_rig(), covariance=None, covariance_order=())
    assert true_camera(rig, np.random.default_rng(1)) == rig.camera


def test_each_pixel_sees_the_ground_that_projects_back_into_it(staged: Staged) -> None:
    xy = staged.camera.node_hits(float(staged.motion.exposures_s[4]), step=12)
    uv = true_uv(staged, 4, xy[..., 0].ravel(), xy[..., 1].ravel()).reshape(xy.shape)
    rows, columns = np.arange(xy.shape[0]) * 192.0, np.arange(xy.shape[1]) * 192.0
    np.testing.assert_allclose(uv[..., 0], np.broadcast_to(columns, xy.shape[:2]), atol=0.02)
    np.testing.assert_allclose(uv[..., 1], np.broadcast_to(rows[:, None], xy.shape[:2]), atol=0.02)


def test_without_rolling_shutter_the_first_row_would_land_elsewhere(staged: Staged) -> None:
    t = float(staged.motion.exposures_s[4])
    rolling = staged.camera.node_hits(t, step=30)
    staged.camera.readout_s, kept = 0.0, staged.camera.readout_s
    still = staged.camera.node_hits(t, step=30)
    staged.camera.readout_s = kept
    assert np.linalg.norm(rolling[0] - still[0], axis=1).max() > 0.04
    np.testing.assert_allclose(rolling[1], still[1], atol=0.02)


def test_heights_and_accuracies_mean_what_mavlink_says(staged: Staged) -> None:
    telemetry, motion = staged.telemetry, staged.motion
    t = float(motion.exposures_s[3])
    i = motion.index_at(t)
    fused = telemetry.message("GLOBAL_POSITION_INT", t)
    gps = telemetry.message("GPS_RAW_INT", t)
    geoid = float(geoid_m(motion.lat_deg[i], motion.lon_deg[i]))
    true_alt = float(motion.xyz_m[i, 2])
    assert abs(gps.alt_ellipsoid / 1000 - true_alt - staged.errors.bias_enu_m[2]) < 1.5
    assert abs((gps.alt_ellipsoid - gps.alt) / 1000 - geoid) < 0.01
    baro = fused.alt / 1000 + geoid - true_alt
    assert abs(baro - staged.errors.baro_m[i] - staged.errors.position_enu_m[i, 2]) < 0.01
    assert gps.h_acc / 1000 == pytest.approx(staged.errors.h_acc_m, abs=1e-3)
    assert abs(fused.lat / 1e7 - motion.lat_deg[i]) * 111e3 < 5


def test_system_time_and_fix_come_only_after_a_while(staged: Staged) -> None:
    assert staged.telemetry.message("SYSTEM_TIME", 1.0).time_unix_usec == 0
    assert staged.telemetry.message("GPS_RAW_INT", 1.0).fix_type < 2
    assert staged.telemetry.message("SYSTEM_TIME", 10.0).time_unix_usec > 1.5e15


@pytest.mark.parametrize("pin", [False, True], ids=["unix", "boot"])
def test_camera_feedback_is_unix_time_without_a_pin_and_boot_time_with_one(
    staged: Staged, pin: bool
) -> None:
    telemetry = Telemetry(staged.motion, staged.errors, 1.78e9, feedback_pin=pin)
    late = 4400.0  # past 2³² µs
    assert telemetry.camera_feedback(1, late).time_usec == (
        round(late * 1e6) & 0xFFFFFFFF if pin else round((1.78e9 + late) * 1e6)
    )


def test_landed_state_tells_the_story_of_the_flight(staged: Staged) -> None:
    motion = staged.motion
    flying = motion.t_boot_s[motion.airborne]
    times = (5.0, flying[0] + 1, float(motion.exposures_s[0]), flying[-1] - 1, flying[-1] + 3)
    states = [staged.telemetry.message("EXTENDED_SYS_STATE", t).landed_state for t in times]
    assert states == [1, 3, 2, 4, 1]
    armed = [bool(staged.telemetry.message("HEARTBEAT", t).base_mode & 128) for t in times]
    assert armed == [False, True, True, True, False]


def test_the_log_is_a_standard_tlog_of_mavlink_2(staged: Staged, tmp_path: Path) -> None:
    path = tmp_path / "flight.tlog"
    count = write_tlog(path, staged.telemetry, np.random.default_rng(1))
    data, at, kinds, stamps = path.read_bytes(), 0, {}, []
    parser = mav.MAVLink(None)
    while at < len(data):
        stamps.append(struct.unpack(">Q", data[at : at + 8])[0])
        assert data[at + 8] == 0xFD
        size = data[at + 9] + 12
        message = parser.decode(bytearray(data[at + 8 : at + 8 + size]))
        key = message.get_type(), message.get_srcComponent()
        kinds[key] = kinds.get(key, 0) + 1
        at += 8 + size
    assert sum(kinds.values()) == count
    assert stamps == sorted(stamps)
    assert kinds["CAMERA_FEEDBACK", 1] == len(staged.stamps_s)
    assert kinds["TIMESYNC", 191] == kinds["TIMESYNC", 1]
    seconds = staged.motion.t_boot_s[-1]
    assert kinds["ATTITUDE", 1] == pytest.approx(20 * seconds, rel=0.05)
    assert stamps[0] / 1e6 - staged.telemetry.t0_unix_s - HOST_BEHIND_S < 3


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flight")
    simulate_flight(out, 8, "test", ONE_LINE)
    return out


def test_a_flight_folder_has_what_a_companion_brings_home(flown: Path) -> None:
    frames = sorted((flown / "frames").glob("*.jpg"))
    with (flown / "times.csv").open() as file:
        times = list(csv.DictReader(file))
    assert [row["frame"] for row in times] == [f.name for f in frames]
    assert len(frames) == 5
    image = cv2.imread(str(frames[2]))
    assert image.shape == (960, 1280, 3)
    assert 40 < image.mean() < 190
    assert image.std() > 10
    assert load_rig(flown / "rig.toml").hash == sim_rig().hash
    with rasterio.open(flown / "dem.tif") as dem:
        assert dem.crs.to_epsg() == 32611
        assert dem.tags()["VERTICAL_DATUM"] == "ellipsoid"
        assert float(dem.tags()["DEM_SIGMA_M"]) == sim_rig().defaults.sigma_dem_m
    assert not (flown / "dem.tif.aux.xml").exists()
    plan = json.loads((flown / "plan.geojson").read_text())
    assert plan["features"][0]["properties"]["role"] == "planned_area"
    assert len(plan["features"]) == 1 + ONE_LINE.lines


def test_the_truth_lies_where_the_true_camera_saw_it(flown: Path) -> None:
    planted = read_truth(flown)
    staged = stage_flight(8, plan=ONE_LINE, painted=False)
    assert len(planted) >= 2
    for item in planted:
        assert item.visible_px == pytest.approx(item.area_m2 * (1 - item.occluded) / 0.01)
        x, y = (np.array([v]) for v in (item.x_m, item.y_m))
        inside = 0
        for k in range(len(staged.stamps_s)):
            u, v = true_uv(staged, k, x, y)[0]
            inside += bool(0 <= u <= 1279 and 0 <= v <= 959)
        assert abs(inside - item.frames) <= 1
        lat, lon = staged.map_frame.to_geographic(x, y)
        assert (lat[0], lon[0]) == pytest.approx((item.lat_deg, item.lon_deg), abs=1e-9)


def test_planted_colours_appear_in_the_frames_where_the_truth_says(flown: Path) -> None:
    staged = stage_flight(8, plan=ONE_LINE, painted=False)
    frames = sorted((flown / "frames").glob("*.jpg"))
    checked = 0
    for item in read_truth(flown):
        for k, path in enumerate(frames):
            u, v = true_uv(staged, k, np.array([item.x_m]), np.array([item.y_m]))[0]
            if item.visible_px < 100 or not (20 < u < 1260 and 20 < v < 940):
                continue
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(float)
            there = image[int(v) - 1 : int(v) + 3, int(u) - 1 : int(u) + 3].mean(axis=(0, 1))
            around = np.median(image[::7, ::7].reshape(-1, 3), axis=0)
            checked += 1
            match item.class_name:
                case "iron_oxide":
                    assert there[0] - there[2] > around[0] - around[2] + 15
                case "bleached_quartz":
                    assert there.sum() > around.sum() + 90
                case "dark_disturbed":
                    assert there.sum() < around.sum() - 60
    assert checked >= 3


def test_the_same_seed_gives_the_same_flight(flown: Path, tmp_path: Path) -> None:
    simulate_flight(tmp_path, 8, "test", ONE_LINE)
    for name in ("times.csv", "flight.tlog", "plan.geojson", "priors/occurrences.csv"):
        assert (tmp_path / name).read_bytes() == (flown / name).read_bytes(), name
    one, two = (sorted((d / "frames").glob("*.jpg"))[1].read_bytes() for d in (tmp_path, flown))
    assert one == two


def test_a_folder_without_truth_says_so(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="no planted truth"):
        read_truth(tmp_path)


@pytest.mark.slow
def test_an_honest_drone_finds_its_own_ellipses_honest(tmp_path: Path) -> None:
    """Points placed by the drone's own code from log, rig and given DEM: half lie in the 50 %."""
    squared = []
    for seed in range(200, 214):
        staged = stage_flight(seed, plan=ONE_LINE, painted=False)
        folder = tmp_path / str(seed)
        (folder / "frames").mkdir(parents=True)
        names = [f"frame_{k:04d}.jpg" for k in range(len(staged.stamps_s))]
        rows = [f"{n},{s:.6f}" for n, s in zip(names, staged.stamps_s, strict=True)]
        (folder / "times.csv").write_text("\n".join(["frame,t_boot_s", *rows]) + "\n")
        for name in names:
            cv2.imwrite(str(folder / "frames" / name), np.zeros((8, 8, 3), np.uint8))
        write_tlog(folder / "flight.tlog", staged.telemetry, np.random.default_rng(seed))
        write_givens(folder, staged)
        said = staged.rig.defaults
        poses = open_source(folder / "frames").poses(staged.rig)
        terrain = open_dem(
            folder / "dem.tif", staged.map_frame, None, said.sigma_dem_m,
            level_sigma_m=said.dem_level_m,
        )  # fmt: skip
        rng = np.random.default_rng(seed)
        for k in (0, 4):
            middle = staged.outlines_m[k].mean(axis=0)
            x, y = middle[:, None] + rng.uniform(-22, 22, (2, 1))
            uv = true_uv(staged, k, x, y) + rng.normal(0, staged.rig.sigma_px, (1, 2))
            at = geotag(poses, np.array([k]), uv, None, staged.rig, terrain, staged.map_frame)
            off = np.array([at.x_m[0] - x[0], at.y_m[0] - y[0]])
            squared.append(off @ np.linalg.inv(at.cov_total_m2[0]) @ off)
    inside_90 = float(np.mean(np.array(squared) < CHI2_2_P90))
    assert 0.5 < np.mean(squared) / 2 < 1.6
    assert inside_90 > 0.75
