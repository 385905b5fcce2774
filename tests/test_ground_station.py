"""Alerts as a crew reads them: MAVProxy as the ground station of the simulated autopilot."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flights import track
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink_send import MavlinkSender
from onboard.simulator.autopilot import Autopilot, BootTime
from onboard.simulator.flight import stage_flight
from onboard.simulator.flight_plan import FlightPlan
from onboard.simulator.link import Link
from onboard.simulator.world import centre_xy_m
from onboard.tell.mavlink import StatustextVoice, post_values
from onboard.tell.policy import alert_text

PEERS = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Companion:
    """The daemon's end of the link: speaks through the allow-list once the autopilot is heard."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(10.0)
        self.address = f"udp:127.0.0.1:{self.socket.getsockname()[1]}"

    def meet(self) -> MavlinkSender:
        _, autopilot = self.socket.recvfrom(4096)
        return MavlinkSender(lambda packed: self.socket.sendto(packed, autopilot))


@pytest.fixture
def autopilot() -> Iterator[tuple[Companion, int]]:
    """A simulated autopilot that routes between a companion and a ground station's port."""
    plan = FlightPlan(centre_xy_m(), lines=1, line_m=64.0)
    telemetry = stage_flight(31, plan=plan, painted=False).telemetry
    companion, port = Companion(), free_port()
    links = [Link(companion.address), Link(f"udp:127.0.0.1:{port}")]
    vehicle = Autopilot(telemetry, BootTime(time.monotonic_ns()), *links)
    stop = threading.Event()

    def fly() -> None:
        while not stop.wait(0.02):
            vehicle.step(links)

    thread = threading.Thread(target=fly)
    thread.start()
    yield companion, port
    stop.set()
    thread.join()
    for link in links:
        link.close()
    companion.socket.close()


@pytest.fixture
def station(autopilot: tuple[Companion, int], tmp_path: Path) -> Iterator[Path]:
    """MAVProxy on the ground station's port; yields the file it prints into."""
    program = PEERS / "mavproxy.py"
    if not program.is_file():
        pytest.skip(f"no MAVProxy at {program.relative_to(PEERS.parents[1])}: CI installs it there")
    command = [
        str(PEERS / "python"), str(program), f"--master=udpin:127.0.0.1:{autopilot[1]}",
        "--target-system=1", "--target-component=0", "--non-interactive", "--nowait",
        "--default-modules=log", f"--state-basedir={tmp_path}", "--logfile=gcs.tlog",
    ]  # fmt: skip
    printed = tmp_path / "printed.txt"
    with printed.open("w") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1", "MAVLINK20": "1"},
        )  # fmt: skip
        yield printed
        process.terminate()
        process.wait(20)


def wait_for(printed: Path, text: str, say: object = None, seconds: float = 60.0) -> str:
    """Returns what was printed once a text is in it; ``say`` is repeated until then."""
    end = time.monotonic() + seconds
    while text not in printed.read_text(errors="replace"):
        assert time.monotonic() < end, f"no {text!r} in:\n{printed.read_text(errors='replace')}"
        if callable(say):
            say()
        time.sleep(0.5)
    return printed.read_text(errors="replace")


def test_a_crew_reads_the_alert_in_its_ground_station(
    autopilot: tuple[Companion, int], station: Path
) -> None:
    sender = autopilot[0].meet()

    def post(send: object) -> bool:
        assert callable(send)
        send(sender)
        return True

    voice = StatustextVoice(post, lambda: True, interval_s=0.0)
    wait_for(
        station, "Gossan ready", lambda: voice.say(mav.MAV_SEVERITY_INFO, "Gossan ready", [], [])
    )
    text = alert_text(track(12, 20.0, 20.0))
    assert text.startswith("IRON OXIDE 12 4m2 37.53")
    sender.heartbeat()
    post_values(post, 1000, {"gs_alerts": 1.0})
    assert voice.say(mav.MAV_SEVERITY_WARNING, text, [], [])
    said = wait_for(station, text)
    line = next(line for line in said.splitlines() if text in line)
    assert line.strip().startswith("AP: "), "shown as a message of the vehicle"
    assert "Traceback" not in said
    assert "Error" not in said
