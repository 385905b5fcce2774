"""The live link against a played autopilot on loopback."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from gossan.errors import HardwareError, SettingsError
from onboard.mavlink import Landed, MavlinkLink
from onboard.mavlink_wire import check_link, open_wire


class Autopilot:
    """A scripted autopilot behind one wire: what it hears, and what it says next."""

    def __init__(self, system: int = 1, component: int = 1):
        self.packer = mav.MAVLink(None, srcSystem=system, srcComponent=component)
        self.parser = mav.MAVLink(None)
        self.parser.robust_parsing = True
        self.heard: list[mav.MAVLink_message] = []
        self.waiting: list[bytes] = []

    # the wire's side
    def read(self, timeout_s: float) -> bytes:
        return self.waiting.pop(0) if self.waiting else b""

    def write(self, data: bytes) -> None:
        self.heard += self.parser.parse_buffer(data) or []

    def close(self) -> None: ...

    # the script's side
    def say(self, message: mav.MAVLink_message, source: tuple[int, int] = (1, 1)) -> None:
        self.packer.srcSystem, self.packer.srcComponent = source
        self.waiting.append(bytes(message.pack(self.packer)))
        self.packer.seq = (self.packer.seq + 1) % 256

    def names(self) -> list[str]:
        return [m.get_type() for m in self.heard]


def heartbeat(armed: bool, autopilot: int = mav.MAV_AUTOPILOT_ARDUPILOTMEGA, kind: int = 2):
    mode = mav.MAV_MODE_FLAG_SAFETY_ARMED if armed else 0
    return mav.MAVLink_heartbeat_message(kind, autopilot, mode, 0, mav.MAV_STATE_ACTIVE, 3)


@pytest.fixture
def rig():
    pilot = Autopilot()
    taken: list[tuple[str, int]] = []
    raw: list[tuple[int, bytes]] = []
    link = MavlinkLink(
        "udpin:127.0.0.1:1",
        lambda m, t: taken.append((m.get_type(), t)),
        lambda t, b: raw.append((t, b)),
        {"ATTITUDE": 20.0},
        opener=lambda _: pilot,
    )
    link._wire = pilot
    return pilot, link, taken, raw


def run(link: MavlinkLink, steps: int = 5) -> None:
    for _ in range(steps):
        link.step(0.0)


def test_announces_as_the_vehicles_computer_and_keeps_time(rig):
    pilot, link, _, raw = rig
    run(link, 1)
    assert pilot.names() == ["HEARTBEAT"]
    pilot.say(heartbeat(False), (42, 1))
    run(link)
    assert (link.sender.system_id, link.vehicle.system_id) == (42, 42)
    assert "TIMESYNC" in pilot.names()
    sync = next(m for m in pilot.heard if m.get_type() == "TIMESYNC")
    assert sync.tc1 == 0
    assert 0 <= time.monotonic_ns() - sync.ts1 < 60e9
    assert (sync.get_srcSystem(), sync.get_srcComponent()) == (42, 191)
    assert len(raw) == len(pilot.heard) + 1


def test_asks_for_rates_and_believes_the_ack(rig):
    pilot, link, _, _ = rig
    pilot.say(heartbeat(False))
    run(link)
    asked = [m for m in pilot.heard if m.get_type() == "COMMAND_LONG"]
    assert [(m.command, m.param1, m.param2, m.target_system) for m in asked] == [
        (511, 30.0, 50000.0, 1)
    ]
    pilot.say(mav.MAVLink_command_ack_message(511, mav.MAV_RESULT_ACCEPTED))
    run(link)
    assert link.rates.streams["ATTITUDE"].acked


@pytest.mark.parametrize(
    ("message", "source"),
    [
        pytest.param(
            heartbeat(True, mav.MAV_AUTOPILOT_INVALID, 6), (255, 190), id="ground-station"
        ),
        pytest.param(heartbeat(True, mav.MAV_AUTOPILOT_INVALID, 18), (1, 191), id="companion"),
        pytest.param(heartbeat(True, mav.MAV_AUTOPILOT_INVALID, 26), (1, 154), id="gimbal"),
        pytest.param(heartbeat(True), (9, 1), id="another-vehicle"),
    ],
)
def test_only_the_autopilot_arms(rig, message, source):
    pilot, link, _, _ = rig
    pilot.say(heartbeat(False))
    pilot.say(message, source)
    run(link)
    assert link.vehicle.armed is False
    pilot.say(heartbeat(True))
    run(link)
    assert link.vehicle.armed is True
    assert link.vehicle.flying


def test_timesync_answers_of_others_are_counted_not_used(rig):
    pilot, link, taken, _ = rig
    pilot.say(heartbeat(False))
    for source in ((255, 190), (1, 154)):
        pilot.say(mav.MAVLink_timesync_message(5_000_000_000, 1), source)
    pilot.say(mav.MAVLink_timesync_message(7_000_000_000, 1), (1, 1))
    run(link)
    assert [name for name, _ in taken].count("TIMESYNC") == 1
    assert link.counts.foreign_timesync == 2


def test_reboot_forgets_the_rates(rig):
    pilot, link, _, _ = rig
    pilot.say(heartbeat(False))
    pilot.say(mav.MAVLink_attitude_message(60_000, 0, 0, 0, 0, 0, 0))
    run(link)
    pilot.say(mav.MAVLink_command_ack_message(511, mav.MAV_RESULT_ACCEPTED))
    pilot.say(mav.MAVLink_timesync_message(1_500_000_000, 1))
    run(link)
    assert link.vehicle.reboots == 1
    assert not link.rates.streams["ATTITUDE"].acked


def test_landed_state_and_lost_messages(rig):
    pilot, link, _, _ = rig
    pilot.say(heartbeat(True))
    pilot.say(mav.MAVLink_extended_sys_state_message(0, 2))
    run(link)
    assert link.vehicle.landed is Landed.IN_AIR
    pilot.packer.seq = (pilot.packer.seq + 250) % 256
    pilot.say(mav.MAVLink_extended_sys_state_message(0, 1))
    run(link)
    assert link.vehicle.landed is Landed.ON_GROUND
    assert link.counts.lost == 250


def test_outbox_refuses_the_newest_and_counts(rig):
    pilot, link, _, _ = rig
    pilot.say(heartbeat(False))
    taken = [link.post(lambda s, i=i: s.statustext(6, str(i))) for i in range(70)]
    assert taken.count(True) == 64
    assert link.counts.unsent == 6
    run(link)
    assert [m.text for m in pilot.heard if m.get_type() == "STATUSTEXT"][:2] == ["0", "1"]


def test_udp_both_ways():
    link = MavlinkLink("udpin:127.0.0.1:0", lambda *_: None, opener=lambda _: wire)
    from onboard.mavlink_wire import UdpWire

    wire = UdpWire("127.0.0.1", 0, listens=True)
    stop = threading.Event()
    thread = threading.Thread(target=link.run, args=(stop,))
    thread.start()
    pilot = Autopilot()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(5.0)
        peer.sendto(heartbeat(False).pack(pilot.packer), ("127.0.0.1", wire.port))
        pilot.write(peer.recv(1000))
    stop.set()
    thread.join(5.0)
    assert pilot.names()[0] in ("HEARTBEAT", "TIMESYNC")
    assert link.vehicle.system_id == 1


@pytest.mark.parametrize(
    "text", ["", "udp", "udpin:14550", "can:0:1", "udpin:0.0.0.0:x", "tcp:host:70000"]
)
def test_refuses_what_is_no_connection_string(text):
    with pytest.raises(SettingsError):
        check_link(text)


def test_a_missing_device_is_a_hardware_error():
    with pytest.raises(HardwareError, match="ttyNONE"):
        open_wire("serial:/dev/ttyNONE:115200")
