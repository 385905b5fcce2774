"""A simulated flight in real time: the autopilot in this process, the camera in one of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from onboard.simulator.autopilot import Autopilot, BootTime
from onboard.simulator.flight import Staged, stage_flight, write_flight_truth, write_givens
from onboard.simulator.flight_plan import FlightPlan
from onboard.simulator.link import Link
from onboard.simulator.motion import TAIL_S
from onboard.simulator.sensor import jpeg

log = logging.getLogger(__name__)

FRAME_LATENCY_S = 0.12
"""From the stamp of a frame to its file."""

READY_S = 3.0
"""From the end of the preparations to the autopilot's boot."""


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """What a live flight is to be.

    Attributes:
        out: Folder of what the aircraft is given, and of the truth.
        frames: Folder where frames appear.
        seed: Which world and flight.
        family: Of the world.
        plan: The survey.
        companion: Address of the companion's MAVLink link.
        ground: Address of the ground station's link; empty for none.
        lead_s: Time on the ground between boot and take-off, about.
        linger_s: Time it goes on speaking after it has landed.
        stop_telemetry_at_s: Time since boot from which the companion hears nothing.
        feedback_pin: See Telemetry.
    """

    out: Path
    frames: Path
    seed: int
    family: str
    plan: FlightPlan
    companion: str
    ground: str = ""
    lead_s: float = 20.0
    linger_s: float = 10.0
    stop_telemetry_at_s: float | None = None
    feedback_pin: bool = False

    @property
    def raster_path(self) -> Path:
        """Where the painted ground lies while the flight lasts."""
        return self.out / "truth" / "ground.npy"


def fly_live(settings: LiveSettings, note: Callable[[str], None]) -> dict[str, Any]:
    """Flies in real time until it has landed, or SIGTERM; returns what passed.

    What the aircraft is given (DEM, rig, plan, prior geology) is written before the first
    HEARTBEAT is sent.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    companion = Link(settings.companion)
    ground = Link(settings.ground) if settings.ground else None
    settings.frames.mkdir(parents=True, exist_ok=True)
    settings.raster_path.parent.mkdir(parents=True, exist_ok=True)
    settings.raster_path.unlink(missing_ok=True)
    staged = _stage(settings, note)
    write_givens(settings.out, staged)
    boot = BootTime(time.monotonic_ns() + round(READY_S * 1e9))
    mono_ns = [boot.mono_ns(float(t)) for t in staged.stamps_s]
    planted = write_flight_truth(settings.out, staged, [frame_name(t) for t in mono_ns])
    ends_s = float(staged.motion.t_boot_s[-1]) - TAIL_S
    spawn = multiprocessing.get_context("spawn")
    camera = spawn.Process(target=run_camera, args=(settings, mono_ns), name="camera")
    camera.start()
    autopilot = Autopilot(staged.telemetry, boot, companion, ground, settings.stop_telemetry_at_s)
    note(f"boot: {len(mono_ns)} exposures, {ends_s:.0f} s")
    try:
        autopilot.run(stop, ends_s)
    finally:
        _end(camera, stop.is_set())
        companion.close()
        if ground is not None:
            ground.close()
        settings.raster_path.unlink(missing_ok=True)
    return {
        "out": str(settings.out),
        "seed": settings.seed,
        "landed": not stop.is_set(),
        "frames": len(list(settings.frames.glob("cam_*.jpg"))),
        "exposures": len(mono_ns),
        "planted": planted,
        "refused": autopilot.heard.refused,
        "forwarded": autopilot.heard.forwarded,
        "texts": autopilot.heard.texts,
    }


def frame_name(t_mono_ns: int) -> str:
    """Returns the name of a live frame: its stamp by the capture clock, host monotonic ns."""
    return f"cam_{t_mono_ns}.jpg"


def run_camera(settings: LiveSettings, stamps_mono_ns: list[int]) -> None:
    """Writes each frame when it is due, as a file that appears whole (a process's main)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    staged = _stage(settings, lambda _: None)
    rng = np.random.default_rng([settings.seed, 0xCA])
    for t_boot_s, t_mono_ns in zip(staged.motion.exposures_s, stamps_mono_ns, strict=True):
        image = staged.camera.render(float(t_boot_s), rng)
        data = jpeg(image, staged.camera.sensor.jpeg_quality)
        due_ns = t_mono_ns + round(FRAME_LATENCY_S * 1e9)
        while time.monotonic_ns() < due_ns:
            time.sleep(min(0.2, max(0.0, (due_ns - time.monotonic_ns()) * 1e-9)))
            if os.getppid() != parent:
                return
        hidden = settings.frames / f".{frame_name(t_mono_ns)}.part"
        hidden.write_bytes(data)
        hidden.rename(settings.frames / frame_name(t_mono_ns))


def _stage(settings: LiveSettings, note: Callable[[str], None]) -> Staged:
    return stage_flight(
        settings.seed,
        settings.family,
        settings.plan,
        settings.raster_path,
        settings.feedback_pin,
        settings.lead_s,
        settings.linger_s + 2 * TAIL_S,
        note,
    )


def _end(camera: BaseProcess, now: bool) -> None:
    """Waits for the camera's last frame, or ends it now."""
    if not now:
        camera.join(timeout=30)
    if camera.is_alive():
        camera.terminate()
        camera.join(timeout=5)
