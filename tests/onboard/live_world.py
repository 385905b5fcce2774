"""A small live world: an autopilot on UDP, a camera that writes files, a red patch."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

from calibration.geodesy import geoid_m
from models.decode import Region, Regions

LAT, LON, GROUND_AMSL = 37.53, -117.19, 1500.0
AGL = 40.0
SPEED_E = 4.0
FOCAL, WIDTH, HEIGHT = 260.0, 320, 240
TARGET_EN = (9.0, 4.0)
"""The patch, metres east and north of take-off."""
PATCH_M = 3.0
M_PER_DEG_N = 110984.0
M_PER_DEG_E = 88386.0

RIG = f"""
[camera]
model = "opencv"
width_px = {WIDTH}
height_px = {HEIGHT}
fx_px = {FOCAL}
fy_px = {FOCAL}
cx_px = {(WIDTH - 1) / 2}
cy_px = {(HEIGHT - 1) / 2}
[mount]
type = "fixed"
yaw_deg = 0.0
pitch_deg = -90.0
roll_deg = 0.0
[defaults]
sigma_tilt_deg = 0.1
sigma_heading_deg = 0.1
bias_e_m = 0.3
bias_n_m = 0.3
bias_u_m = 0.3
bias_heading_deg = 0.1
sigma_e_m = 0.2
sigma_n_m = 0.2
sigma_u_m = 0.2
"""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Aircraft:
    """Speaks as ArduPilot on a companion link: heartbeats, and streams once they are asked for."""

    def __init__(self, port: int):
        self.port = port
        self.armed = False
        self.in_air = False
        self.silent = False
        self.boot_ns = time.monotonic_ns() - 100_000_000_000
        self.texts: list[str] = []
        self.heard: list[str] = []
        self.asked: set[int] = set()
        self._packer = mav.MAVLink(None, srcSystem=1, srcComponent=1)
        self._parser = mav.MAVLink(None)
        self._parser.robust_parsing = True
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._start_ns = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._socket.close()

    def take_off(self) -> None:
        self._start_ns = time.monotonic_ns()
        self.armed = self.in_air = True

    def land(self) -> None:
        self.armed = self.in_air = False

    def east_m(self, t_ns: int) -> float:
        return max(t_ns - self._start_ns, 0) * 1e-9 * SPEED_E if self._start_ns else 0.0

    def _boot_ms(self, t_ns: int) -> int:
        return (t_ns - self.boot_ns) // 1_000_000

    def _say(self, message: mav.MAVLink_message) -> None:
        if self.silent:
            return
        packed = message.pack(self._packer)
        self._packer.seq = (self._packer.seq + 1) % 256
        try:
            self._socket.sendto(packed, ("127.0.0.1", self.port))
        except ConnectionRefusedError:
            return

    def _run(self) -> None:
        """Answers within milliseconds, as a real one does, and speaks twenty times a second."""
        tick = 0
        while not self._stop.wait(0.005):
            self._listen()
            if tick % 10 == 0:
                self._speak(tick // 10)
            tick += 1

    def _speak(self, turn: int) -> None:
        now = time.monotonic_ns()
        ms = self._boot_ms(now)
        if turn % 10 == 0:
            mode = 128 if self.armed else 0
            self._say(mav.MAVLink_heartbeat_message(2, 3, mode, 0, 4, 3))
        if not self.asked:
            return
        self._say(mav.MAVLink_attitude_quaternion_message(ms, 1, 0, 0, 0, 0, 0, 0))
        if turn % 2 == 0:
            lat, lon = self.lat_lon(now)
            v_e = int(SPEED_E * 100) if self._start_ns else 0
            alt_mm = int((GROUND_AMSL + AGL) * 1000)
            self._say(
                mav.MAVLink_global_position_int_message(
                    ms, lat, lon, alt_mm, int(AGL * 1000), 0, v_e, 0, 0
                )
            )
        if turn % 4 == 0:
            lat, lon = self.lat_lon(now)
            alt_mm = int((GROUND_AMSL + AGL) * 1000)
            self._say(
                mav.MAVLink_gps_raw_int_message(ms * 1000, 6, lat, lon, alt_mm, 0, 0, 0, 0, 12)
            )
            self._say(mav.MAVLink_extended_sys_state_message(0, 2 if self.in_air else 1))
            self._say(mav.MAVLink_system_time_message(1_790_000_000_000_000 + ms * 1000, ms))

    def lat_lon(self, t_ns: int) -> tuple[int, int]:
        return round(LAT * 1e7), round((LON + self.east_m(t_ns) / M_PER_DEG_E) * 1e7)

    def _listen(self) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            for message in self._parser.parse_buffer(data) or []:
                self._answer(message)

    def _answer(self, message: mav.MAVLink_message) -> None:
        kind = message.get_type()
        self.heard.append(kind)
        if kind == "STATUSTEXT":
            self.texts.append(message.text)
        elif kind == "TIMESYNC" and message.tc1 == 0:
            now = time.monotonic_ns() - self.boot_ns
            self._say(mav.MAVLink_timesync_message(now, message.ts1))
        elif kind == "COMMAND_LONG":
            self.asked.add(int(message.param1))
            self._say(mav.MAVLink_command_ack_message(message.command, 0))


class Camera:
    """Writes cam_<t_mono_ns>.jpg files of what lies below the aircraft."""

    def __init__(self, folder: Path, aircraft: Aircraft):
        self.folder = folder
        self.aircraft = aircraft
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(1)
        base = rng.integers(90, 150, (HEIGHT, WIDTH), dtype=np.uint8)
        self._ground = np.repeat(base[..., None], 3, axis=2)

    def shoot(self, broken: bool = False) -> Path:
        t_ns = time.monotonic_ns()
        image = self._ground.copy()
        east, north = TARGET_EN
        u = (WIDTH - 1) / 2 + FOCAL * (east - self.aircraft.east_m(t_ns)) / AGL
        v = (HEIGHT - 1) / 2 - FOCAL * north / AGL
        half = round(FOCAL * PATCH_M / AGL / 2)
        x, y = round(u), round(v)
        image[max(y - half, 0) : max(y + half, 0), max(x - half, 0) : max(x + half, 0)] = (
            220,
            40,
            30,
        )
        path = self.folder / f"cam_{t_ns}.jpg"
        part = path.with_suffix(".part")
        data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
        part.write_bytes(b"\xff\xd8 broken" if broken else data)
        part.replace(path)
        return path

    def fly(self, seconds: float, rate_hz: float = 4.0) -> int:
        end, n = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self.shoot()
            n += 1
            time.sleep(1.0 / rate_hz)
        return n


class RedPredictor:
    """Stands in for a network: finds the red patch."""

    hash = "f" * 64
    provider = "test"

    def __init__(self):
        head = SimpleNamespace(stride=4)
        self.manifest = SimpleNamespace(
            name="red", version="1", gsd_m=0.2, bands=("r", "g", "b"), heads={"red": head}
        )

    def predict(self, image, seen):
        red = (image[..., 0] > 170) & (image[..., 1] < 90) & seen
        rows = []
        if red.sum() > 20:
            y, x = np.nonzero(red)
            x0, x1, y0, y1 = x.min(), x.max(), y.min(), y.max()
            edge = x0 < 2 or y0 < 2 or x1 > image.shape[1] - 3 or y1 > image.shape[0] - 3
            corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)
            rows.append(
                Region(
                    "iron_oxide", "red", 0.95, (float(x.mean()), float(y.mean())),
                    (float(x0), float(y0), float(x1), float(y1)), float(red.sum()), corners,
                    False, bool(edge),
                )
            )  # fmt: skip

        return SimpleNamespace(regions=Regions.from_rows(rows, True))


def target_lat_lon() -> tuple[float, float]:
    east, north = TARGET_EN
    return LAT + north / M_PER_DEG_N, LON + east / M_PER_DEG_E


def ground_ellipsoid_m() -> float:
    return GROUND_AMSL + float(geoid_m(LAT, LON))


def write_settings(
    folder: Path, port: int, extra: str = "", watermarks: tuple[float, float] = (0, 0)
) -> Path:
    """Writes rig and settings; returns the settings' path."""
    (folder / "rig.toml").write_text(RIG)
    path = folder / "onboard.toml"
    path.write_text(
        f"""
[vehicle]
link = "udpin:127.0.0.1:{port}"
[camera]
source = "folder:{folder / "camera"}"
rate_hz = 0
[rig]
file = "rig.toml"
[storage]
root = "flights"
low_free_mb = {watermarks[0]}
critical_free_mb = {watermarks[1]}
{extra}
"""
    )
    return path
