"""Runs the live pipeline in this process against the small world."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

from onboard.config import OnboardSettings, load_onboard
from onboard.eyes import Eyes
from onboard.pipeline import Phase, Pipeline
from onboard.scan import Scanner

spec = importlib.util.spec_from_file_location(
    "live_world", Path(__file__).with_name("live_world.py")
)
world = importlib.util.module_from_spec(spec)
sys.modules["live_world"] = world
spec.loader.exec_module(world)
Aircraft, Camera, RedPredictor = world.Aircraft, world.Camera, world.RedPredictor


def red_eyes():
    return Eyes(Scanner(RedPredictor(), 0.2), "f" * 64, "red 1", "test"), None


class Flight:
    """Runs a pipeline in this process against the small world."""

    def __init__(self, folder: Path, extra: str = "", open_eyes=red_eyes, watermarks=(0, 0)):
        self.port = world.free_port()
        path = world.write_settings(folder, self.port, extra, watermarks)
        self.settings: OnboardSettings = load_onboard(path)
        self.aircraft = Aircraft(self.port)
        self.camera = Camera(folder / "camera", self.aircraft)
        self.stop = threading.Event()
        self.pipeline = Pipeline(self.settings, self.stop, open_eyes=open_eyes, once=True)
        self.thread = threading.Thread(target=self.pipeline.run)

    def __enter__(self):
        self.thread.start()
        self.aircraft.start()
        self.wait(lambda: self.pipeline.telemetry.clock.boot_from_mono(time.monotonic_ns())[1] < 1)
        self.wait(lambda: np.isfinite(self.pipeline.telemetry.buffer.newest_s()))
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(60.0)
        self.aircraft.stop()

    def wait(self, done, limit_s: float = 30.0) -> None:
        end = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.02)

    def launch(self) -> None:
        self.aircraft.take_off()
        self.wait(lambda: self.pipeline.phase is Phase.RECORDING)

    def land(self) -> None:
        self.aircraft.land()
        self.wait(lambda: self.pipeline.flights_closed != [], 60.0)
        self.thread.join(30.0)

    @property
    def folder(self) -> Path:
        (folder,) = [p.parent for p in self.settings.storage.root.glob("*/flight.toml")]
        return folder

    @property
    def status(self) -> dict:
        return json.loads((self.settings.storage.root / "status.json").read_text())
