import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.simulator.autopilot import Autopilot, BootTime
from onboard.simulator.errors import SimulatorLinkError
from onboard.simulator.flight import stage_flight
from onboard.simulator.flight_plan import FlightPlan
from onboard.simulator.link import Link
from onboard.simulator.live import LiveSettings, run_camera
from onboard.simulator.telemetry import Telemetry
from onboard.simulator.world import centre_xy_m


class HeldClock(BootTime):
    """A boot clock that stands still until it is set."""

    def __init__(self) -> None:
        super().__init__(0)
        object.__setattr__(self, "_t", 0.0)

    def set(self, t_boot_s: float) -> None:
        object.__setattr__(self, "_t", t_boot_s)

    def now_s(self) -> float:
        return float(self._t)  # type: ignore[attr-defined]


class Peer:
    """The other side of a link: a companion (1/191) or a ground station (255/190)."""

    def __init__(self, system: int, component: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.05)
        self.packer = mav.MAVLink(None, srcSystem=system, srcComponent=component)
        self.parser = mav.MAVLink(None)
        self.autopilot: tuple[str, int] | None = None

    @property
    def address(self) -> str:
        return f"udp:127.0.0.1:{self.socket.getsockname()[1]}"

    def send(self, message: mav.MAVLink_message) -> None:
        assert self.autopilot is not None
        self.socket.sendto(message.pack(self.packer), self.autopilot)

    def heard(self) -> list[mav.MAVLink_message]:
        found: list[mav.MAVLink_message] = []
        while True:
            try:
                data, self.autopilot = self.socket.recvfrom(4096)
            except TimeoutError:
                return found
            found += self.parser.parse_buffer(data) or []


class Stage:
    """An autopilot whose clock the test drives, between a companion and a ground station."""

    def __init__(self, telemetry: Telemetry, stop_telemetry_at_s: float | None = None) -> None:
        self.companion, self.ground = Peer(1, 191), Peer(255, 190)
        self.links = [Link(self.companion.address), Link(self.ground.address)]
        self.clock = HeldClock()
        self.autopilot = Autopilot(telemetry, self.clock, *self.links, stop_telemetry_at_s)
        self.run(0.0, 0.1)
        self.companion.heard()
        self.ground.heard()

    def run(self, start_s: float, end_s: float) -> None:
        steps = round((end_s - start_s) / 0.02)
        for k in range(steps + 1):
            self.clock.set(start_s + 0.02 * k)
            self.autopilot.step(self.links)

    def ask(self, *messages: mav.MAVLink_message, at_s: float = 0.2) -> list[mav.MAVLink_message]:
        for message in messages:
            self.companion.send(message)
        time.sleep(0.05)
        self.run(at_s, at_s)
        return self.companion.heard()

    def close(self) -> None:
        for link in self.links:
            link.close()
        self.companion.socket.close()
        self.ground.socket.close()


def interval(name: str, rate_hz: float) -> mav.MAVLink_message:
    number = getattr(mav, f"MAVLINK_MSG_ID_{name}")
    return mav.MAVLink_command_long_message(
        1, 1, mav.MAV_CMD_SET_MESSAGE_INTERVAL, 0, number, 1e6 / rate_hz, 0, 0, 0, 0, 0
    )


@pytest.fixture(scope="module")
def telemetry() -> Telemetry:
    plan = FlightPlan(centre_xy_m(), lines=1, line_m=64.0)
    return stage_flight(31, plan=plan, painted=False).telemetry


@pytest.fixture
def stage(telemetry: Telemetry) -> Iterator[Stage]:
    stage = Stage(telemetry)
    yield stage
    stage.close()


def test_the_companion_port_is_silent_but_for_heartbeat_until_asked(stage: Stage) -> None:
    stage.run(0.2, 5.2)
    kinds = Counter(m.get_type() for m in stage.companion.heard())
    assert kinds == {"HEARTBEAT": 5}


def test_a_stream_flows_at_the_rate_asked_for_and_on_that_link_only(stage: Stage) -> None:
    acks = stage.ask(interval("ATTITUDE", 20.0))
    assert (acks[0].get_type(), acks[0].command, acks[0].result) == ("COMMAND_ACK", 511, 0)
    stage.run(0.22, 4.2)
    flow = [m for m in stage.companion.heard() if m.get_type() == "ATTITUDE"]
    assert 78 <= len(flow) <= 82
    assert flow[-1].time_boot_ms == pytest.approx(4200, abs=60)
    assert "ATTITUDE" not in {m.get_type() for m in stage.ground.heard()}
    sequence = [m.get_seq() for m in flow]
    assert all(b != a for a, b in pairwise(sequence))


def test_an_unknown_stream_is_refused(stage: Stage) -> None:
    (ack,) = stage.ask(interval("GIMBAL_DEVICE_ATTITUDE_STATUS", 10.0))
    assert ack.result == mav.MAV_RESULT_FAILED


@pytest.mark.parametrize(
    "message",
    [
        mav.MAVLink_command_long_message(1, 1, mav.MAV_CMD_DO_SET_MODE, 0, 1, 4, 0, 0, 0, 0, 0),
        mav.MAVLink_set_mode_message(1, 1, 4),
        mav.MAVLink_param_set_message(1, 1, b"WPNAV_SPEED", 100.0, 9),
    ],
    ids=["command", "mode", "parameter"],
)
def test_whoever_tries_to_command_it_is_counted(stage: Stage, message: mav.MAVLink_message) -> None:
    answers = stage.ask(message)
    assert sum(stage.autopilot.heard.refused.values()) == 1
    assert all(a.result == mav.MAV_RESULT_DENIED for a in answers if a.get_type() == "COMMAND_ACK")


def test_timesync_is_answered_with_boot_time(stage: Stage) -> None:
    (answer,) = stage.ask(mav.MAVLink_timesync_message(0, 123456789), at_s=7.0)[:1]
    assert (answer.tc1, answer.ts1) == (7_000_000_000, 123456789)
    assert (answer.get_srcSystem(), answer.get_srcComponent()) == (1, 1)


def test_what_the_companion_says_reaches_the_ground_station_as_1_191(stage: Stage) -> None:
    stage.ask(
        mav.MAVLink_statustext_message(4, b"iron_oxide 93% 37.53012 -117.19034"),
        mav.MAVLink_named_value_float_message(100, b"gos_found", 2.0),
    )
    said = {m.get_type(): m for m in stage.ground.heard() if m.get_srcComponent() == 191}
    assert said["STATUSTEXT"].text == "iron_oxide 93% 37.53012 -117.19034"
    assert said["NAMED_VALUE_FLOAT"].get_srcSystem() == 1
    assert stage.autopilot.heard.texts == ["iron_oxide 93% 37.53012 -117.19034"]


def test_what_the_ground_station_broadcasts_reaches_the_companion(stage: Stage) -> None:
    stage.ground.send(mav.MAVLink_heartbeat_message(6, 8, 0, 0, 4, 3))
    time.sleep(0.05)
    stage.run(0.2, 0.2)
    sources = [(m.get_type(), m.get_srcSystem()) for m in stage.companion.heard()]
    assert ("HEARTBEAT", 255) in sources


def test_camera_events_come_unasked_and_repeat_stale_once_an_interval_is_asked_for(
    stage: Stage,
) -> None:
    first, second = stage.autopilot.telemetry.motion.exposures_s[:2]
    stage.run(float(first) - 0.5, float(second) + 0.5)
    events = [m.img_idx for m in stage.companion.heard() if m.get_type() == "CAMERA_FEEDBACK"]
    assert events == [1, 2]
    now = float(second) + 0.52
    stage.ask(interval("CAMERA_FEEDBACK", 5.0), at_s=now)
    stage.run(now, now + 1.0)
    stale = [m.img_idx for m in stage.companion.heard() if m.get_type() == "CAMERA_FEEDBACK"]
    assert len(stale) >= 4
    assert set(stale) == {2}


def test_a_ground_station_gets_what_it_asks_for_at_start_up(stage: Stage) -> None:
    stage.ground.send(mav.MAVLink_param_request_list_message(1, 1))
    stage.ground.send(mav.MAVLink_request_data_stream_message(1, 1, 0, 4, 1))
    time.sleep(0.05)
    stage.run(0.2, 2.2)
    kinds = Counter(m.get_type() for m in stage.ground.heard())
    assert kinds["PARAM_VALUE"] == 1
    assert 7 <= kinds["ATTITUDE"] <= 9
    assert not stage.autopilot.heard.refused


def test_telemetry_can_be_made_to_stop(telemetry: Telemetry) -> None:
    stage = Stage(telemetry, stop_telemetry_at_s=3.0)
    stage.run(0.2, 6.0)
    beats = [m for m in stage.companion.heard() if m.get_type() == "HEARTBEAT"]
    assert 2 <= len(beats) <= 3
    stage.close()


@pytest.mark.parametrize("address", ["tcp:127.0.0.1:5760", "udp:14550", "udp:127.0.0.1:x"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(SimulatorLinkError, match="no link"):
        Link(address)


def test_a_live_flight_starts_speaks_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    peer = Peer(1, 191)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "gossan", "onboard", "simulate", "--live", "--json",
            "--out", str(tmp_path), "--seed", "5", "--lines", "1", "--size", "48",
            "--mavlink", peer.address, "--lead", "2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    heard: list[mav.MAVLink_message] = []
    while time.monotonic() < deadline and len(heard) < 3:
        heard += peer.heard()
    given = {p.name for p in tmp_path.iterdir()}
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    peer.socket.close()
    assert {m.get_type() for m in heard} == {"HEARTBEAT"}
    assert {"dem.tif", "rig.toml", "plan.geojson", "priors", "truth", "frames"} <= given
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["landed"] is False
    assert not (tmp_path / "truth" / "ground.npy").exists()


def test_live_frames_appear_whole_under_the_stamps_of_the_capture_clock(tmp_path: Path) -> None:
    plan = FlightPlan(centre_xy_m(), lines=1, line_m=16.0, height_m=30.0)
    settings = LiveSettings(tmp_path, tmp_path / "frames", 5, "test", plan, "udp:127.0.0.1:1")
    settings.frames.mkdir()
    settings.raster_path.parent.mkdir()
    before = signal.getsignal(signal.SIGINT)
    try:
        run_camera(settings, [1_000_000_000, 3_000_000_000])
    finally:
        signal.signal(signal.SIGINT, before)
    names = sorted(p.name for p in settings.frames.iterdir())
    assert names == ["cam_1000000000.jpg", "cam_3000000000.jpg"]
    for name in names:
        assert cv2.imread(str(settings.frames / name)).shape == (960, 1280, 3)


def test_the_capture_clock_is_the_true_exposure_less_the_true_offset() -> None:
    plan = FlightPlan(centre_xy_m(), lines=1, line_m=64.0)
    staged = stage_flight(31, plan=plan, painted=False)
    late = staged.motion.exposures_s - staged.stamps_s
    assert abs(late - staged.errors.clock_offset_s).max() < 0.004
    boot = BootTime(10**12)
    again = [boot.boot_s(boot.mono_ns(float(t))) for t in staged.stamps_s]
    assert again == pytest.approx(staged.stamps_s, abs=1e-8)
