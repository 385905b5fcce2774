"""The pose buffer: Hermite against known motion, gaps, extrapolation, heights, mounts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.camera import Camera
from calibration.geodesy import geoid_m
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import A_BODY_CAM, quat_from_r, r_from_quat, r_from_ypr, rot_log
from onboard.place.hermite import Samples, hermite, hermite_attitude, rate_trust
from onboard.place.trajectory import PoseBuffer
from onboard.place.vehicle_state import metres_per_degree
from onboard.records import Floats

LAT, LON = 46.8, -91.9
CAMERA = Camera("opencv", 1640, 1232, 1300.0, 1300.0, 819.5, 615.5)
NADIR = Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0))


def attitude(t: Floats) -> tuple[Floats, Floats]:
    """A wobbling, turning vehicle: rotation body → NED and exact body rates."""
    amp, freq = np.radians([12.0, 8.0, 10.0]), np.array([0.9, 1.1, 0.7]) * 2 * np.pi * 0.35
    yaw, pitch, roll = (a * np.sin(w * t) for a, w in zip(amp, freq, strict=True))
    yaw = yaw + 0.2 * t
    dy, dp, dr = (a * w * np.cos(w * t) for a, w in zip(amp, freq, strict=True))
    dy = dy + 0.2
    rates = np.stack(
        [
            dr - dy * np.sin(pitch),
            dp * np.cos(roll) + dy * np.sin(roll) * np.cos(pitch),
            -dp * np.sin(roll) + dy * np.cos(roll) * np.cos(pitch),
        ],
        axis=-1,
    )
    return r_from_ypr(yaw, pitch, roll), rates


def position(t: Floats) -> tuple[Floats, Floats]:
    """North, east, up offsets in metres and velocity north, east, down."""
    neu = np.stack([15 * t, 4 * np.sin(0.6 * t), 80 + 2 * np.sin(0.4 * t)], axis=-1)
    v = np.stack([15 + 0 * t, 2.4 * np.cos(0.6 * t), -0.8 * np.cos(0.4 * t)], axis=-1)
    return neu, v


def filled(
    hz: float = 4.0,
    span: tuple[float, float] = (0.0, 40.0),
    skip: tuple[float, float] = (-1, -1),
    horizon_s: float | None = None,
    datum: str = "ellipsoid",
) -> PoseBuffer:
    buffer = PoseBuffer(horizon_s)
    north, east = metres_per_degree(np.array(LAT), np.array(0.0))
    for t in np.arange(*span, 1.0 / hz):
        if skip[0] < t < skip[1]:
            continue
        r, w = attitude(np.array(t))
        neu, v = position(np.array(t))
        buffer.add_attitude(100 + t, r, w)
        buffer.add_position(100 + t, LAT + neu[0] / north, LON + neu[1] / east, neu[2], datum, v)
    return buffer


def metres_off(buffer: PoseBuffer, t: Floats, rig: Rig) -> tuple[Floats, Floats]:
    """Returns position errors in metres and attitude errors in degrees at times from the start."""
    poses = buffer.pose_at(100 + t, [str(i) for i in range(len(t))], rig)
    at = t + rig.clock.offset_s
    neu, _ = position(at)
    north, east = metres_per_degree(np.array(LAT), np.array(0.0))
    off = np.stack(
        [
            (poses.lat_deg - LAT) * north - neu[:, 0],
            (poses.lon_deg - LON) * east - neu[:, 1],
            poses.alt_m - neu[:, 2],
        ],
        axis=-1,
    )
    r_true = NADIR.r_ned_cam(attitude(at)[0])
    turned = rot_log(poses.r_ned_cam @ np.swapaxes(r_true, 1, 2))
    return np.linalg.norm(off, axis=1), np.degrees(np.linalg.norm(turned, axis=1))


def test_hermite_places_between_4_hz_samples() -> None:
    t = np.random.default_rng(1).uniform(1, 38, 200)
    metres, degrees = metres_off(filled(), t, Rig(CAMERA, NADIR))
    assert metres.max() < 0.005
    assert np.sqrt((degrees**2).mean()) < 0.02
    buffer = filled()
    no_rates = PoseBuffer()
    run = buffer._epochs[0].euler
    for ti, row in zip(run.t, run.x, strict=True):
        no_rates.add_attitude(ti, row[:4])
    for ti, row in zip(buffer._epochs[0].position.t, buffer._epochs[0].position.x, strict=True):
        no_rates.add_position(ti, row[0], row[1], row[2], "ellipsoid")
    metres_chord, degrees_chord = metres_off(no_rates, t, Rig(CAMERA, NADIR))
    assert degrees_chord.max() > 10 * degrees.max()
    assert metres_chord.max() > 5 * metres.max()


def test_the_clock_offset_is_applied_once() -> None:
    t = np.linspace(5, 30, 40)
    rig = Rig(CAMERA, NADIR, clock=Clock(offset_s=-0.3))
    metres, degrees = metres_off(filled(), t, rig)
    assert metres.max() < 0.005
    assert degrees.max() < 0.05
    poses = filled().pose_at(100 + t, [str(i) for i in range(40)], rig)
    assert poses.t_boot_s == pytest.approx(100 + t - 0.3)


def test_lever_arm_and_velocity() -> None:
    lever = np.array([0.3, -0.1, 0.5])
    t = np.linspace(5, 30, 20)
    names = [str(i) for i in range(20)]
    plain = filled().pose_at(100 + t, names, Rig(CAMERA, NADIR))
    with_arm = filled().pose_at(100 + t, names, Rig(CAMERA, replace(NADIR, lever_arm_m=lever)))
    north, east = metres_per_degree(np.array(LAT), np.array(80.0))
    got = np.stack(
        [
            (with_arm.lat_deg - plain.lat_deg) * north,
            (with_arm.lon_deg - plain.lon_deg) * east,
            plain.alt_m - with_arm.alt_m,
        ],
        axis=-1,
    )
    r, w = attitude(t)
    assert got == pytest.approx((r @ lever), abs=2e-3)
    _, v = position(t)
    assert plain.v_ned_mps == pytest.approx(v, abs=0.02)
    swing = (r @ np.cross(w, lever)[..., None])[..., 0]
    assert with_arm.v_ned_mps == pytest.approx(v + swing, abs=0.03)
    assert plain.omega_ned_rps == pytest.approx((r @ w[..., None])[..., 0], abs=0.01)


def test_a_gap_is_flagged_and_its_sigma_covers_the_error() -> None:
    buffer = filled(skip=(15.0, 18.2))
    t = np.array([10.0, 16.6])
    poses = buffer.pose_at(100 + t, ["a", "b"], Rig(CAMERA, NADIR))
    assert poses.flags == (("height_barometric",), ("telemetry_gap", "height_barometric"))
    assert poses.sigma_tilt_rad[1] > np.radians(2.5)
    assert poses.sigma_enu_m[1, 0] > poses.sigma_enu_m[0, 0] + 0.3
    metres, degrees = metres_off(buffer, t, Rig(CAMERA, NADIR))
    assert metres[1] < 3 * 0.85
    assert metres[1] > 10 * metres[0]
    assert degrees[1] > degrees[0]


def test_beyond_the_telemetry_is_extrapolated_for_two_seconds_only() -> None:
    buffer = filled(span=(0.0, 20.01))
    t = 100 + np.array([19.9, 20.5, 21.9, 22.1, 300.0, np.nan])
    names = list("abcdef")
    rig = Rig(CAMERA, NADIR)
    poses = buffer.pose_at(t, names, rig)
    assert poses.frame == ("a", "b", "c")
    assert ["extrapolated" in flags for flags in poses.flags] == [False, True, True]
    assert np.all(np.diff(poses.sigma_enu_m[:, 0]) > 0)
    assert np.all(np.diff(poses.sigma_tilt_rad) > 0)
    why = buffer.why_not(t, rig)
    assert why == ["", "", "", "no_telemetry", "no_telemetry", "no_time"]


def test_ready_waits_for_the_bracketing_message() -> None:
    buffer = filled(span=(0.0, 20.01))
    assert buffer.ready(119.9)
    assert not buffer.ready(120.1)
    assert not PoseBuffer().ready(1.0)
    assert buffer.newest_s() == pytest.approx(120.0)


def test_gnss_levels_the_barometer_and_says_so() -> None:
    n_m = float(geoid_m(LAT, LON))
    buffer = filled(datum="egm96")
    rng = np.random.default_rng(2)
    for t in np.arange(0.0, 40.0, 0.2):
        neu, _ = position(np.array(t))
        true_geoid = float(neu[2]) - 3.0 - 0.02 * t
        buffer.add_gps(100 + t, LAT, LON, true_geoid + rng.normal(0, 0.3), np.nan, 0.3, 0.5)
    t = np.array([20.0, 30.0])
    poses = buffer.pose_at(100 + t, ["a", "b"], Rig(CAMERA, NADIR))
    neu, _ = position(t)
    assert poses.height_datum == "ellipsoid"
    assert poses.alt_m == pytest.approx(neu[:, 2] - 3.0 - 0.02 * t + n_m, abs=0.25)
    assert any("levels" in note for note in buffer.notes)
    assert poses.flags == ((), ())
    total = np.hypot(poses.sigma_enu_m, poses.bias_enu_m)
    assert total[0] == pytest.approx([0.3, 0.3, 0.5])


@pytest.mark.parametrize(
    ("alt_ellipsoid", "expected_m", "noted"),
    [(75.0, 75.0, False), (106.0, 106.0, True)],
    ids=["receiver's own geoid", "repeats alt"],
)
def test_an_ellipsoidal_height_that_repeats_alt_is_not_believed(
    alt_ellipsoid: float, expected_m: float, noted: bool
) -> None:
    buffer = filled(datum="egm96")
    for t in np.arange(0.0, 40.0, 0.2):
        buffer.add_gps(100 + t, LAT, LON, 106.0, alt_ellipsoid)
    t = np.arange(5.0, 35.0, 0.5)
    poses = buffer.pose_at(100 + t, [str(i) for i in range(len(t))], Rig(CAMERA, NADIR))
    n_m = float(geoid_m(LAT, LON))
    expected = expected_m + (n_m if noted else 0.0)
    assert np.median(poses.alt_m) == pytest.approx(expected, abs=1.5)
    assert any("repeats alt" in note for note in buffer.notes) is noted


def test_quaternions_are_preferred_to_attitude() -> None:
    buffer = filled()
    trim = r_from_ypr(0.0, np.radians(2.0), 0.0)
    for t in np.arange(0.0, 40.0, 0.1):
        r, w = attitude(np.array(t))
        buffer.add_attitude(100 + t, quat_from_r(r @ trim), w, "quaternion")
    poses = buffer.pose_at([120.03], ["a"], Rig(CAMERA, NADIR))
    expected = attitude(np.array(20.03))[0] @ trim
    assert poses.r_ned_body[0] == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("earth", [True, False], ids=["yaw from north", "yaw from the nose"])
def test_a_gimbal_at_nadir(earth: bool) -> None:
    buffer = filled()
    for t in np.arange(0.0, 40.0, 0.1):
        yaw = 0.2 * t if earth else 0.0
        buffer.add_gimbal(100 + t, r_from_ypr(yaw, -np.pi / 2, 0.0), earth)
    rig = Rig(CAMERA, Mount("gimbal", np.eye(3)))
    t = np.linspace(5, 30, 20)
    poses = buffer.pose_at(100 + t, [str(i) for i in range(20)], rig)
    r, _ = attitude(t)
    yaw = 0.2 * t if earth else np.arctan2(r[:, 1, 0], r[:, 0, 0])
    expected = r_from_ypr(yaw, np.full(20, -np.pi / 2), np.zeros(20)) @ A_BODY_CAM
    turned = np.degrees(rot_log(poses.r_ned_cam @ np.swapaxes(expected, 1, 2)))
    assert np.abs(turned).max() < 0.1
    assert np.isfinite(poses.omega_ned_rps).all()
    missing = filled().pose_at([120.0], ["a"], rig)
    assert "no_gimbal_attitude" in missing.flags[0]


def test_a_reboot_forgets_in_flight_and_is_kept_in_a_log() -> None:
    live, log = filled(horizon_s=60.0), filled()
    for buffer in (live, log):
        buffer.note_epoch()
        assert not buffer.ready(120.0)
        assert len(buffer.pose_at([120.0], ["a"], None)) == 0
    assert (live.epochs, log.epochs) == (1, 2)
    assert len(log.pose_at([120.0], ["a"], None, epoch=0)) == 1


def test_a_live_buffer_stays_small() -> None:
    buffer = filled(hz=50, span=(0.0, 200.0), horizon_s=30.0)
    assert len(buffer._epochs[0].euler) < 30 * 50 * 2 + 256
    assert buffer.ready(280.0)


def test_samples_sort_what_comes_late() -> None:
    samples = Samples(1)
    order = np.random.default_rng(4).permutation(600)
    for i in order:
        samples.add(float(i), (float(i) * 2,))
    samples.add(17.0, (-1.0,))
    assert np.array_equal(samples.t, np.arange(600.0))
    assert samples.x[17, 0] == -1.0
    assert samples.x[599, 0] == 1198.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.floats(0.05, 1.0),
)
def test_attitude_hermite_meets_both_ends_and_turns_steadily(
    start: list[float], rate: list[float], span: float
) -> None:
    r0 = r_from_ypr(*start)
    w = np.array(rate)
    from calibration.rotations import rot_exp

    q = quat_from_r(np.stack([r0, r0 @ rot_exp(w * span)]))
    t = np.array([0.0, span])
    middle = np.array([0.0, 0.3 * span, span])
    got, omega = hermite_attitude(q, np.stack([w, w]), t, middle)
    expected = r0 @ rot_exp(w[None] * middle[:, None])
    assert r_from_quat(got) == pytest.approx(expected, abs=1e-7)
    assert omega == pytest.approx(np.stack([w] * 3), abs=1e-6)


def test_vector_hermite_is_exact_on_cubics() -> None:
    def cubic(t: Floats) -> Floats:
        return np.stack([t**3 - 2 * t, 4 - t**2], axis=-1)

    def slope(t: Floats) -> Floats:
        return np.stack([3 * t**2 - 2, -2 * t], axis=-1)

    t = np.array([0.0, 0.7, 2.0, 2.1])
    at = np.linspace(0.0, 2.1, 50)
    value, rate = hermite(cubic(t), slope(t), t, at)
    assert value == pytest.approx(cubic(at), abs=1e-12)
    assert rate == pytest.approx(slope(at), abs=1e-11)


def test_rates_are_trusted_as_far_as_the_samples_bear_them_out() -> None:
    t = np.arange(0.0, 60.0, 0.3)
    roll, rate = 0.2 * np.sin(t), 0.2 * np.cos(t)
    q = np.stack([np.cos(roll / 2), np.sin(roll / 2), 0 * t, 0 * t], axis=1)
    smooth = np.stack([rate, 0 * t, 0 * t], axis=1)
    assert rate_trust(q, smooth, t)[0] > 0.95
    shaken = smooth + np.random.default_rng(1).normal(0, 0.3, smooth.shape)
    assert rate_trust(q, shaken, t)[0] < 0.2
    middle = t[:-1] + 0.15
    for heard, limit_rad in ((smooth, 1e-4), (shaken, 5e-3)):
        between, _ = hermite_attitude(q, heard, t, middle)
        error = 2 * np.arcsin(between[:, 1]) - 0.2 * np.sin(middle)
        assert np.sqrt(np.mean(error**2)) < limit_rad
