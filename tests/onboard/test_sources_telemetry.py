"""One decoder for link and logs, and a reader that real, cut and spoilt logs cannot crash."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as m2

from calibration.geodesy import geoid_m
from calibration.rig import Mount, Rig
from calibration.rotations import r_from_quat, rot_log, ypr_from_r, ypr_from_r_ned_cam
from onboard.clocks import BootClock
from onboard.place.trajectory import PoseBuffer
from onboard.sources import telemetry_log
from onboard.sources.errors import DamagedTelemetryError
from onboard.sources.source import nadir_rig
from onboard.sources.telemetry import UINT32, CameraEvent, apply_message, stamp_to_boot
from onboard.sources.telemetry_log import read_telemetry, read_tlog

T0_US = 1_795_000_000_000_000


def wire(msg: Any, system: int = 1, component: int = 1) -> Any:
    """The message as a receiver sees it."""
    mav = m2.MAVLink(None, srcSystem=system, srcComponent=component)
    return m2.MAVLink(None).decode(bytearray(msg.pack(mav)))


class Ear:
    """Buffer, clock and events that messages are applied to."""

    def __init__(self) -> None:
        self.buffer, self.clock = PoseBuffer(), BootClock()
        self.events: list[CameraEvent] = []

    def hear(self, msg: Any, t_ns: int | None = None, system: int = 1, component: int = 1) -> None:
        apply_message(wire(msg, system, component), t_ns, self.buffer, self.clock, self.events)


def attitude(ms: int) -> Any:
    return m2.MAVLink_attitude_message(ms, 0.1, -0.05, 1.0, 0.01, 0.02, 0.03)


def fix(ms: int, lat: int = 468000000, lon: int = -919000000) -> Any:
    return m2.MAVLink_global_position_int_message(ms, lat, lon, 300000, 80000, 900, 0, 0, 0)


def feedback(us: int, image: int) -> Any:
    return m2.MAVLink_camera_feedback_message(
        us, 1, 0, image, 468000000, -919000000, 300.0, 80.0, 0.0, 0.0, 0.0, 0.0, 0, image
    )


@pytest.fixture
def ear() -> Ear:
    it = Ear()
    it.hear(m2.MAVLink_heartbeat_message(2, 3, 81, 0, 4, 3), 0)
    return it


@pytest.mark.parametrize(
    ("system", "component"), [(255, 190), (1, 191), (2, 1)], ids=["gcs", "companion", "other"]
)
def test_only_the_autopilot_is_heard(ear: Ear, system: int, component: int) -> None:
    for ms in (5000, 5100):
        ear.hear(attitude(ms), ms * 10**6, system, component)
        ear.hear(fix(ms), ms * 10**6, system, component)
    assert np.isnan(ear.buffer.newest_s())
    assert np.isnan(ear.clock.newest_boot_s)
    ear.hear(m2.MAVLink_timesync_message(9 * 10**9, 10**9), 10**9 + 5_000_000, system, component)
    assert ear.clock.ties() == []
    ear.hear(m2.MAVLink_timesync_message(9 * 10**9, 10**9), 10**9 + 5_000_000)
    assert len(ear.clock.ties()) == 1


def test_the_first_stream_tells_the_autopilot_where_no_heartbeat_does() -> None:
    it = Ear()
    it.hear(attitude(5000), 0, system=7)
    assert it.clock.autopilot == (7, 1)


def test_zero_positions_after_a_reboot_are_no_positions(ear: Ear) -> None:
    ear.hear(attitude(5000), 0)
    ear.hear(fix(5000, 0, 0), 0)
    assert np.isnan(ear.buffer.newest_s())
    ear.hear(fix(5100), 0)
    assert ear.buffer.newest_s() == pytest.approx(5.0)


def test_a_damaged_stamp_is_left_out_and_a_set_host_clock_is_believed(ear: Ear) -> None:
    for ms in range(5_000, 10_000, 200):
        ear.hear(attitude(ms), ms * 10**6)
        ear.hear(fix(ms), ms * 10**6)
    ear.hear(attitude(3_000_000_000), 10_000 * 10**6)
    ear.hear(attitude(10_000), 10_000 * 10**6)
    assert ear.clock.epoch == 0
    assert ear.clock.newest_boot_s == 10.0
    assert ear.clock.refused["boot_time_leaps"] == 1
    assert not ear.buffer.ready(20.0)
    back_ns = 3600 * 10**9
    for ms in range(10_200, 15_000, 200):
        ear.hear(attitude(ms), ms * 10**6 - back_ns)
        ear.hear(fix(ms), ms * 10**6 - back_ns)
    assert ear.clock.epoch == 0
    assert ear.buffer.ready(14.0)


def test_stamps_by_magnitude(ear: Ear) -> None:
    for ms in range(9_000_000, 9_003_000, 250):
        ear.hear(attitude(ms), ms * 10**6)
        ear.hear(m2.MAVLink_system_time_message(1_700_000_000_000_000 + ms * 1000, ms), ms * 10**6)
    exposure_s = 9002.4
    by_pin = round(exposure_s * 1e6) % int(UINT32)
    by_gps = 1_700_000_000_000_000 + round(exposure_s * 1e6)
    assert by_pin < 1e6 * exposure_s
    for i, stamp in enumerate((by_pin, by_gps)):
        ear.hear(feedback(stamp, i + 1), 0)
    assert [e.t_boot_s for e in ear.events] == pytest.approx([exposure_s, exposure_s], abs=2e-6)
    assert stamp_to_boot(5_000_000, BootClock()) == 5.0


def test_stale_repeats_are_one_event_and_a_new_boot_is_new(ear: Ear) -> None:
    ear.hear(attitude(60_000), 60 * 10**9)
    for _ in range(5):
        ear.hear(feedback(59_000_000, 4), 0)
    ear.hear(feedback(0, 0), 0)
    ear.hear(feedback(59_900_000, 6), 0)
    ear.hear(feedback(59_000_000, 4), 0)
    assert [e.img_idx for e in ear.events] == [4, 6]
    ear.hear(attitude(1_000), 70 * 10**9)
    assert ear.clock.epoch == 1
    ear.hear(feedback(900_000, 4), 0)
    assert [(e.img_idx, e.epoch) for e in ear.events] == [(4, 0), (6, 0), (4, 1)]


def test_zero_means_unknown_in_gps_raw(ear: Ear) -> None:
    for ms in range(5000, 10000, 200):
        ear.hear(attitude(ms), ms * 10**6)
        ear.hear(fix(ms), ms * 10**6)
        ear.hear(
            m2.MAVLink_gps_raw_int_message(
                ms * 1000, 3, 468000000, -919000000, 296000, 1, 1, 900, 0, 12, 0, 0, 0
            ),
            ms * 10**6,
        )
    poses = ear.buffer.pose_at([7.03], ["a"], None)
    assert poses.alt_m[0] == pytest.approx(296.0 + float(geoid_m(46.8, -91.9)), abs=0.01)
    assert poses.bias_enu_m[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("stem", "events", "first_s"),
    [("copter_survey_A", 105, 105.267), ("copter_survey_B2_terrain_fbpin", 108, 113.790)],
)
@pytest.mark.parametrize("link", ["companion", "gcs"])
def test_camera_events_of_recorded_flights(
    shared_data: Path, stem: str, events: int, first_s: float, link: str
) -> None:
    log = read_telemetry(shared_data / f"flights/{stem}.{link}.tlog")
    assert len(log.events) == events
    times = np.array([e.t_boot_s for e in log.events])
    assert times[0] == pytest.approx(first_s, abs=0.01)
    assert np.all(np.diff(times) > 0.3)
    poses = log.buffer.pose_at(times, [str(i) for i in range(events)], None)
    assert len(poses) == events
    assert not any("telemetry_gap" in f or "extrapolated" in f for f in poses.flags)
    assert any("repeats alt" in note for note in log.buffer.notes)


@pytest.mark.parametrize("link", ["companion", "gcs"])
def test_poses_against_the_simulators_truth(
    shared_data: Path, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator sends its true state right after ATTITUDE_QUATERNION, without a time."""
    folder = shared_data / "flights"
    monkeypatch.setattr(telemetry_log, "WANTED_IDS", telemetry_log.WANTED_IDS | {108})
    monkeypatch.setattr(
        telemetry_log, "HANDLERS", {**telemetry_log.HANDLERS, "SIM_STATE": lambda m, to: None}
    )
    t_s, truth = float("nan"), []
    for _, msg in read_tlog(folder / "copter_survey_A.companion.tlog"):
        if msg.get_type() == "ATTITUDE_QUATERNION":
            t_s = msg.time_boot_ms * 1e-3
        elif msg.get_type() == "SIM_STATE" and t_s > 120:
            lat, lon = msg.lat_int * 1e-7, msg.lon_int * 1e-7
            truth.append((t_s, msg.q1, msg.q2, msg.q3, msg.q4, lat, lon, msg.alt))
    table = np.array(truth[:3500:7])
    log = read_telemetry(folder / f"copter_survey_A.{link}.tlog")
    poses = log.buffer.pose_at(table[:, 0], [str(i) for i in range(len(table))], None)
    assert len(poses) == len(table)
    turned = rot_log(poses.r_ned_body @ np.swapaxes(r_from_quat(table[:, 1:5]), 1, 2))
    tilt_deg, yaw_deg = np.degrees(turned[:, :2]), np.degrees(turned[:, 2])
    assert np.sqrt((tilt_deg**2).mean()) < 0.12
    assert np.sqrt((yaw_deg**2).mean()) < 1.0
    north_m = (poses.lat_deg - table[:, 5]) * 110_990.0
    east_m = (poses.lon_deg - table[:, 6]) * 88_390.0
    up_m = poses.alt_m - table[:, 7] - geoid_m(table[:, 5], table[:, 6])
    assert np.sqrt((north_m**2).mean()) < 0.25
    assert np.sqrt((east_m**2).mean()) < 0.25
    assert abs(up_m.mean()) < 0.1  # the barometer alone is 2.6 m high
    assert up_m.std() < 0.2


def test_clocks_of_a_recorded_flight(shared_data: Path) -> None:
    log = read_telemetry(shared_data / "imagery/cuav_cmac_2018/flight.tlog")
    assert log.clock.refused["utc_not_sane"] == 546
    ties = log.clock.ties()
    t_boot_s, _ = log.clock.boot_from_mono(ties[10].t_mono_ns)
    lead = [tie.t_mono_ns * 1e-9 - tie.t_boot_s for tie in ties]
    assert ties[10].t_mono_ns * 1e-9 - t_boot_s <= min(lead[5:15]) + 1e-6
    assert max(lead) - min(lead) < 0.2


def spoil(data: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    for _ in range(20):
        at = int(rng.integers(0, len(out)))
        kind = rng.integers(0, 3)
        if kind == 0:
            out[at : at + int(rng.integers(1, 300))] = b""
        elif kind == 1:
            out[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 300)), dtype=np.uint8))
        else:
            out[at] ^= int(rng.integers(1, 256))
    return bytes(out[: int(rng.integers(len(out) // 2, len(out)))])


@pytest.mark.parametrize("seed", range(6))
def test_spoilt_logs_lose_little(shared_data: Path, tmp_path: Path, seed: int) -> None:
    data = (shared_data / "flights/uavlogviewer_vtol.tlog").read_bytes()[:400_000]
    (tmp_path / "whole.tlog").write_bytes(data)
    (tmp_path / "spoilt.tlog").write_bytes(spoil(data, seed))
    whole = [t for t, _ in read_tlog(tmp_path / "whole.tlog")]
    spoilt = [t for t, _ in read_tlog(tmp_path / "spoilt.tlog")]
    reached = [t for t in whole if t <= spoilt[-1]]
    assert len(set(reached) - set(spoilt)) < 40
    assert len(set(spoilt) - set(whole)) <= 2
    log = read_telemetry(tmp_path / "spoilt.tlog")
    assert log.messages == len(spoilt)
    assert 0 < log.skipped_bytes < 8000
    assert any("no message" in note for note in log.notes)


def test_mavlink_1_and_2_in_one_log(tmp_path: Path) -> None:
    from pymavlink.dialects.v10 import ardupilotmega as m1

    path = tmp_path / "mixed.tlog"
    with path.open("wb") as out:
        for i in range(40):
            dialect: Any = (m1, m2)[i % 2]
            msg = dialect.MAVLink_attitude_message(5000 + i * 250, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0)
            frame = msg.pack(dialect.MAVLink(None, srcSystem=1, srcComponent=1))
            out.write(struct.pack(">Q", T0_US + i * 250_000) + frame)
    log = read_telemetry(path)
    assert (log.messages, log.skipped_bytes) == (40, 0)


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"no log at all" * 50], ids=len)
def test_what_is_no_log_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tlog"
    path.write_bytes(content)
    with pytest.raises(DamagedTelemetryError, match=r"x\.tlog holds no telemetry") as caught:
        read_telemetry(path)
    assert caught.value.exit_code == 4


def test_dataflash_as_text(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    rows = [
        "FMT, 1, 30, ATT, QccC, TimeUS,Roll,Pitch,Yaw",
        "FMT, 2, 30, POS, QLLf, TimeUS,Lat,Lng,Alt",
    ]
    for i in range(40):
        rows += [
            f"ATT, {i * 250000 + 10**6}, 1.0, 2.0, {i}",
            f"POS, {i * 250000 + 10**6}, 46.8, -91.9, 300",
        ]
    path.write_text("\n".join([*rows, "ATT, spoilt", "POS, 1, 2, 3, x"]))
    log = read_telemetry(path)
    poses = log.buffer.pose_at([6.125], ["a"], None)
    assert log.messages == 80
    assert poses.alt_m[0] == pytest.approx(300.0 + float(geoid_m(46.8, -91.9)))


def test_dataflash(shared_data: Path) -> None:
    log = read_telemetry(shared_data / "flights/pymavlink_test.BIN")
    first, last = log.buffer.span_s()
    poses = log.buffer.pose_at([(first + last) / 2], ["a"], None)
    assert poses.lat_deg[0] == pytest.approx(-35.36263, abs=1e-5)
    with pytest.raises(DamagedTelemetryError, match="no telemetry that can be read"):
        read_telemetry(shared_data / "flights/ap_LogAnalyzer_robert_lefebvre_octo_PM.log")


def test_ulog(shared_data: Path, tmp_path: Path) -> None:
    """PX4's own fields are the check: its heading, and its receiver's fixes."""
    from pyulog import ULog

    path = shared_data / "flights/pyulog_sample_log_small.ulg"
    log = read_telemetry(path)
    own = {data.name: data.data for data in ULog(str(path)).data_list}
    local, fixes = own["vehicle_local_position"], own["vehicle_gps_position"]
    t_s = local["timestamp"][5:-5:20] * 1e-6
    poses = log.buffer.pose_at(t_s, [str(t) for t in t_s], None)
    yaw = ypr_from_r(poses.r_ned_body)[0]
    turned = np.angle(np.exp(1j * (yaw - local["heading"][5:-5:20])))
    assert np.degrees(np.abs(turned)).max() < 0.5
    at_fix = log.buffer.pose_at(fixes["timestamp"][2:-2] * 1e-6, map(str, range(28)), None)
    north_m = (at_fix.lat_deg - fixes["lat"][2:-2] * 1e-7) * 111_200.0
    shrink = np.cos(np.radians(at_fix.lat_deg))
    east_m = (at_fix.lon_deg - fixes["lon"][2:-2] * 1e-7) * 111_200.0 * shrink
    assert np.median(np.hypot(north_m, east_m)) < 1.5
    assert any("dropped out" in note for note in log.notes)
    utc_s, _ = log.clock.utc_from_boot(fixes["timestamp"][10] * 1e-6)
    assert utc_s == pytest.approx(fixes["time_utc_usec"][10] * 1e-6, abs=0.5)
    whole = path.read_bytes()
    (tmp_path / "cut.ulg").write_bytes(whole[: len(whole) // 2])
    cut = read_telemetry(tmp_path / "cut.ulg")
    assert 0 < cut.messages < log.messages
    for spoilt in (b"", b"ULog", whole[:15], bytes(4000)):
        (tmp_path / "bad.ulg").write_bytes(spoilt)
        with pytest.raises(DamagedTelemetryError) as error:
            read_telemetry(tmp_path / "bad.ulg")
        assert error.value.exit_code == 4


def test_ulog_of_newer_firmware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PX4 1.14 says fixes in degrees; camera events and the gimbal's attitude are taken."""
    t_us = np.arange(1, 400) * 50_000
    level = {"timestamp": t_us, "q[0]": 1.0, "q[1]": 0.0, "q[2]": 0.0, "q[3]": 0.0}
    down = {"q[0]": np.sqrt(0.5), "q[2]": -np.sqrt(0.5)}
    at = {"lat": 47.4, "lon": 8.5, "alt": 500.0, "vel_n": 5.0, "vel_e": 0.0, "vel_d": 0.0}
    fix = {"latitude_deg": 47.4, "longitude_deg": 8.5, "altitude_msl_m": 502.0}
    fix |= {"altitude_ellipsoid_m": 550.0, "eph": 0.4, "epv": 0.8, "fix_type": 6}
    topics = {
        "vehicle_attitude": level,
        "vehicle_global_position": {"timestamp": t_us, **at},
        "sensor_gps": {"timestamp": t_us, **fix, "time_utc_usec": 1.7e15 + t_us},
        "gimbal_device_attitude_status": {**level, **down, "device_flags": 16},
        "camera_trigger": {"timestamp": t_us[::40], "seq": np.arange(10), "feedback": 0},
        "camera_capture": {"timestamp": t_us[::40] + 9, "seq": np.arange(10)},
    }

    class Data:
        def __init__(self, name: str, columns: dict[str, object]) -> None:
            n = len(np.atleast_1d(columns["timestamp"]))
            self.name, self.multi_id = name, 0
            self.data = {k: np.broadcast_to(v, n).copy() for k, v in columns.items()}

    class Log:
        file_corruption, dropouts = False, ()

        def __init__(self, *_: object, **__: object) -> None:
            self.data_list = [Data(name, columns) for name, columns in topics.items()]

    monkeypatch.setattr("pyulog.ULog", Log)
    (tmp_path / "x.ulg").touch()
    log = read_telemetry(tmp_path / "x.ulg")
    assert [e.kind for e in log.events].count("feedback") == 10
    rig = Rig(nadir_rig().camera, Mount("gimbal", np.eye(3)))
    poses = log.buffer.pose_at([10.0], ["a"], rig)
    assert poses.alt_m[0] == pytest.approx(550.0, abs=0.01)
    assert np.degrees(ypr_from_r_ned_cam(poses.r_ned_cam)[1][0]) == pytest.approx(-90.0)
    assert poses.sigma_enu_m[0, 0] < 0.5
