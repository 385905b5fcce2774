"""A recorded flight spoken over UDP: camera events matched, poses as in the log, tlog as heard."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from calibration.rig import load_rig
from onboard.config import VehicleSettings
from onboard.health import Health
from onboard.live_telemetry import LiveTelemetry
from onboard.sources.telemetry_log import read_telemetry

spec = importlib.util.spec_from_file_location(
    "tlog_player", Path(__file__).with_name("tlog_player.py")
)
player = importlib.util.module_from_spec(spec)
sys.modules["tlog_player"] = player
spec.loader.exec_module(player)

RIG = Path(__file__).resolve().parents[2] / "calibration" / "rigs" / "sim.toml"
FLIGHT = "flights/copter_survey_A.companion.tlog"


class Heard:
    """Live telemetry on a free port, its link and its log running."""

    def __init__(self, folder: Path):
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = VehicleSettings(link=f"udpin:127.0.0.1:{self.port}")
        self.telemetry = LiveTelemetry(settings, load_rig(RIG), Health())
        self.telemetry.tlog.start(folder / "telemetry.tlog")
        self.log = folder / "telemetry.tlog"
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self.telemetry.run, args=(self.stop,)),
            threading.Thread(target=self.telemetry.tlog.run, args=(self.stop,)),
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(10.0)

    def place_events_while(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            self.telemetry.place_events()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def flown(shared_data, tmp_path_factory):
    """The whole flight at forty times its speed."""
    folder = tmp_path_factory.mktemp("tlog")
    with Heard(folder) as heard:
        counts = heard.telemetry.link.counts
        speaker = player.TlogPlayer(
            shared_data / FLIGHT, heard.port, 40.0, received=lambda: counts.received
        )
        thread = threading.Thread(target=speaker.play)
        thread.start()
        heard.place_events_while(thread)
        time.sleep(0.6)
        heard.telemetry.place_events()
        speaker.close()
    return heard, speaker


@pytest.mark.real_data
def test_105_camera_events_are_matched_and_stale_repeats_dropped(flown):
    heard, _ = flown
    telemetry = heard.telemetry
    assert len(telemetry.events) == 105
    assert telemetry.events_placed == 105
    numbers = [event.img_idx for event in telemetry.events]
    assert numbers == sorted(set(numbers))


@pytest.mark.real_data
def test_nothing_was_lost_on_the_way(flown):
    heard, speaker = flown
    link = heard.telemetry.link
    assert link.counts.received == speaker.sent
    assert link.counts.unreadable == 0
    assert link.vehicle.reboots == 0
    assert {m.get_type() for m in speaker.heard} <= {"HEARTBEAT", "TIMESYNC", "COMMAND_LONG"}


@pytest.mark.real_data
def test_the_log_it_writes_gives_the_same_poses(flown, shared_data):
    heard, _ = flown
    ours = read_telemetry(heard.log)
    theirs = read_telemetry(shared_data / FLIGHT)
    rig = load_rig(RIG)
    stamps = np.array([event.t_boot_s for event in theirs.events])
    names = [str(i) for i in range(len(stamps))]
    a, b = ours.buffer.pose_at(stamps, names, rig), theirs.buffer.pose_at(stamps, names, rig)
    assert len(a) == len(b) == 105
    east = (a.lon_deg - b.lon_deg) * 88_000
    north = (a.lat_deg - b.lat_deg) * 111_000
    assert np.hypot(east, north).max() < 0.05
    assert np.abs(a.r_ned_cam - b.r_ned_cam).max() < 1e-3


@pytest.mark.real_data
def test_at_real_rate_the_clock_is_tied_and_rates_are_asked(shared_data, tmp_path):
    with Heard(tmp_path) as heard:
        speaker = player.TlogPlayer(shared_data / FLIGHT, heard.port, 1.0)
        speaker.play(end_s=4.0)
        boot_s, sigma_s = heard.telemetry.clock.boot_from_mono(time.monotonic_ns())
        newest_s = heard.telemetry.clock.newest_boot_s
        speaker.close()
    assert abs(boot_s - newest_s) < 0.5
    assert sigma_s < 0.1
    asked = [m for m in speaker.heard if m.get_type() == "COMMAND_LONG"]
    assert asked
    assert {m.command for m in asked} == {511}
    beats = [m for m in speaker.heard if m.get_type() == "HEARTBEAT"]
    assert 2 <= len(beats) <= 8
