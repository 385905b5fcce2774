"""The daemon as a process: ready, watched, killed in flight, started again, ended."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onboard.keep.flight import is_closed
from onboard.keep.read import FlightReader

spec = importlib.util.spec_from_file_location(
    "live_world", Path(__file__).with_name("live_world.py")
)
world = importlib.util.module_from_spec(spec)
sys.modules["live_world"] = world
spec.loader.exec_module(world)

ROOT = Path(__file__).resolve().parents[2]


class Daemon:
    """``gossan onboard run`` on the small world."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        self.port = world.free_port()
        self.config = world.write_settings(folder, self.port, '[model]\nname = "none"\n')
        self.options = options
        self.aircraft = world.Aircraft(self.port)
        self.camera = world.Camera(folder / "camera", self.aircraft)
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.bind(str(folder / "notify"))
        self.ear.settimeout(60.0)
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "WATCHDOG_USEC": "3000000",
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("WATCHDOG_PID", None)
        command = [sys.executable, "-m", "gossan", "onboard", "run", "--config", str(self.config)]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def await_notice(self, text: bytes) -> None:
        while text not in self.ear.recv(1000):
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10.0)

    def status(self) -> dict:
        try:
            return json.loads((self.folder / "flights" / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    def wait(self, done, limit_s: float = 40.0) -> None:
        end = time.monotonic() + limit_s
        while not done(self.status()):
            assert time.monotonic() < end, (self.folder / "log.txt").read_text()[-3000:]
            time.sleep(0.1)

    def flight(self) -> Path:
        (folder,) = [p.parent for p in (self.folder / "flights").glob("*/flight.toml")]
        return folder

    def end(self) -> None:
        self.aircraft.stop()
        self.ear.close()
        if self.process.poll() is None:
            self.kill()


@pytest.fixture
def daemon(tmp_path):
    made = Daemon(tmp_path, "--once")
    made.start()
    yield made
    made.end()


def committed(folder: Path) -> dict[str, str]:
    """Every kept file that a committed row names, with its hash."""
    with FlightReader(folder) as reader:
        return {row["path"]: row["sha256"] for row in reader.files()}


def test_ready_watchdog_and_sigterm(daemon):
    daemon.await_notice(b"READY=1")
    daemon.await_notice(b"WATCHDOG=1")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.await_notice(b"STOPPING=1")
    assert daemon.process.wait(30.0) == 0
    assert daemon.status()["running"] is False


def test_killed_three_times_in_flight_loses_no_committed_row(daemon):
    rng = random.Random(20)
    daemon.await_notice(b"READY=1")
    daemon.aircraft.start()
    daemon.wait(lambda s: s.get("vehicle", {}).get("clock_sigma_s") is not None)
    daemon.aircraft.take_off()
    daemon.wait(lambda s: s.get("phase") == "recording")
    shot, safe = 0, {}
    for _ in range(3):
        shot += daemon.camera.fly(1.0 + rng.random(), rate_hz=5.0)
        daemon.kill()
        now = committed(daemon.flight())
        assert now.items() >= safe.items()
        safe = now
        daemon.start()
        daemon.await_notice(b"READY=1")
    shot += daemon.camera.fly(1.5, rate_hz=5.0)
    daemon.wait(lambda s: s.get("flight") and s["flight"]["kept"] + s["flight"]["frames"] > 0)
    daemon.aircraft.land()
    daemon.process.wait(60.0)
    folder = daemon.flight()
    assert is_closed(folder)
    files = committed(folder)
    assert files.items() >= safe.items()
    for path, digest in files.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
    with FlightReader(folder) as reader:
        records = reader.frames()
    assert len(records) == shot
    assert len({r.frame.seq for r in records}) == shot
    placed = sum(r.pose is not None for r in records)
    assert placed >= 0.9 * shot


def test_settings_that_cannot_be_used_end_it_with_a_hint(tmp_path):
    path = tmp_path / "onboard.toml"
    path.write_text("[rig]\nfile = 'missing.toml'\n[camera]\nsource = 'folder:x'\n")
    done = subprocess.run(
        [sys.executable, "-m", "gossan", "onboard", "run", "--config", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "missing.toml" in done.stderr
    assert "what to do:" in done.stderr


def test_status_says_when_there_is_none(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gossan", "onboard", "status", "--root", str(tmp_path), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "status.json" in done.stderr
