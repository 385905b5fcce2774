"""A whole flight through the live pipeline on loopback, and flights in which things break."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from onboard.config import OnboardSettings, load_onboard
from onboard.eyes import Eyes
from onboard.keep.flight import is_closed, read_header
from onboard.keep.read import FlightReader
from onboard.pipeline import Phase, Pipeline
from onboard.scan import Scanner
from onboard.sources.telemetry_log import read_telemetry

spec = importlib.util.spec_from_file_location(
    "live_world", Path(__file__).with_name("live_world.py")
)
world = importlib.util.module_from_spec(spec)
sys.modules["live_world"] = world
spec.loader.exec_module(world)
Aircraft, Camera, RedPredictor = world.Aircraft, world.Camera, world.RedPredictor


@dataclass
class Flown:
    """What a flight left."""

    pipeline: Pipeline
    aircraft: object
    folder: Path
    status: dict
    shot: int


def red_eyes():
    return Eyes(Scanner(RedPredictor(), 0.2), "f" * 64, "red 1", "test"), None


class Flight:
    """Runs a pipeline in this process against the small world."""

    def __init__(self, folder: Path, extra: str = "", open_eyes=red_eyes, record: str = ""):
        self.port = world.free_port()
        self.settings: OnboardSettings = load_onboard(
            world.write_settings(folder, self.port, extra)
        )
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


@pytest.fixture(scope="module")
def flown(tmp_path_factory) -> Flown:
    with Flight(tmp_path_factory.mktemp("flight")) as flight:
        flight.camera.shoot()
        time.sleep(0.3)
        flight.launch()
        shot = flight.camera.fly(5.0)
        time.sleep(1.0)
        flight.land()
    return Flown(flight.pipeline, flight.aircraft, flight.folder, flight.status, shot)


def test_every_frame_in_flight_is_kept_and_placed(flown):
    with FlightReader(flown.folder) as reader:
        records = reader.frames()
    assert len(records) == flown.shot
    assert [r.frame.seq for r in records] == list(range(flown.shot))
    assert all(r.pose is not None and r.kept_path for r in records)
    assert all((flown.folder / r.kept_path).is_file() for r in records)
    assert all(r.footprint is not None and r.footprint.scanned for r in records)
    assert all(r.dropped == () for r in records)


def test_the_patch_is_one_track_where_it_is(flown):
    with FlightReader(flown.folder) as reader:
        tracks = [t for t in reader.tracks() if t.state == "confirmed"]
    (track,) = tracks
    lat, lon = world.target_lat_lon()
    error_m = np.hypot(
        (track.lat_deg - lat) * world.M_PER_DEG_N, (track.lon_deg - lon) * world.M_PER_DEG_E
    )
    assert error_m < 1.5
    assert track.looks >= 4


def test_the_alert_is_spoken_after_it_is_stored(flown):
    with FlightReader(flown.folder) as reader:
        (alert,) = reader.alerts()
    assert alert.told is not None
    assert alert.told > alert.t_mono_ns
    assert alert.text in flown.aircraft.texts
    assert len(alert.text) <= 50


def test_it_only_spoke_what_is_allowed(flown):
    assert set(flown.aircraft.heard) == {
        "HEARTBEAT",
        "TIMESYNC",
        "COMMAND_LONG",
        "STATUSTEXT",
        "NAMED_VALUE_FLOAT",
        "CAMERA_IMAGE_CAPTURED",
    }
    assert flown.aircraft.heard.count("CAMERA_IMAGE_CAPTURED") == flown.shot


def test_the_flight_is_closed_and_complete(flown):
    assert is_closed(flown.folder)
    header = read_header(flown.folder)
    assert "UTM zone 11N" in header.crs_wkt
    assert (header.model_name, header.utc_quality) == ("red 1", "gps")
    assert header.started_utc.startswith("2026-09-21")
    for name in ("poses.csv", "coverage.geojson", "rig.toml", "telemetry.tlog", "manifest.json"):
        assert (flown.folder / name).stat().st_size > 0
    assert list((flown.folder / "chips").glob("000001_*.jpg"))
    with FlightReader(flown.folder) as reader:
        assert len(reader.ties()) >= 1


def test_the_tlog_holds_the_flight_with_its_lead_in(flown):
    telemetry = read_telemetry(flown.folder / "telemetry.tlog")
    with FlightReader(flown.folder) as reader:
        stamps = reader.poses().t_boot_s
    first, last = telemetry.buffer.span_s()
    assert first < stamps.min()
    assert last > stamps.max()


def test_status_tells_the_last_flight(flown):
    last = flown.status["last_flight"]
    assert (last["frames"], last["placed"], last["scanned"]) == (flown.shot,) * 3
    assert last["alerts"] == 1
    assert flown.status["counts"].get("captured.dropped", 0) == 0
    assert flown.status["counts"]["capture.outside_flight"] == 1
    assert flown.status["vehicle"]["utc_quality"] == "gps"


def broken_eyes():
    class Fails(RedPredictor):
        def predict(self, image, seen):
            raise RuntimeError("the GPU fell off")

    return Eyes(Scanner(Fails(), 0.2), "f" * 64, "red 1", "test"), None


def test_recording_outlives_inference_frames_dem_and_telemetry(tmp_path):
    extra = '[terrain]\ndem = "missing.tif"\n[model]\nname = "none"\n'
    with Flight(tmp_path, extra, broken_eyes) as flight:
        flight.launch()
        shot = flight.camera.fly(1.5)
        bad = flight.camera.shoot(broken=True)
        time.sleep(0.5)
        flight.aircraft.silent = True
        time.sleep(4.0)
        lost = [flight.camera.shoot() for _ in range(2)]
        time.sleep(3.0)
        status = flight.status
        assert status["vehicle"]["link"] == "lost"
        assert status["phase"] == "recording"
        assert "no_dem" in status["degraded"]
        assert status["counts"]["scan.failed"] >= shot
        assert status["counts"]["keep.not_placed"] == 2
        flight.aircraft.silent = False
        time.sleep(1.0)
        flight.land()
    with FlightReader(flight.folder) as reader:
        records = {r.frame.name: r for r in reader.frames()}
        codes = {event.code for event in reader.health()}
    assert len(records) == shot + 3
    assert all((flight.folder / r.kept_path).is_file() for r in records.values())
    assert {"no_dem", "scan_failed", "placed_late"} <= codes
    assert "unreadable" in records[bad.name].frame.flags
    for path in lost:
        pose = records[path.name].pose
        assert pose.flags == (("telemetry_gap",),)
        assert pose.sigma_enu_m[0, 0] > 1.0
    scanned = [r for n, r in records.items() if n not in {p.name for p in (bad, *lost)}]
    assert all("GPU fell off" in str(r.dropped) for r in scanned)


def test_a_model_of_another_hash_records_and_says_so(tmp_path):
    from onboard.eyes import open_eyes_or_blind

    eyes, problem = open_eyes_or_blind(
        load_onboard(world.write_settings(tmp_path, 1, "[model]\nname='/nowhere'\n")).model
    )
    assert problem is not None
    assert eyes.scanner.predictor is None
    with Flight(tmp_path, "[model]\nname='/nowhere'\n", None) as flight:
        flight.launch()
        shot = flight.camera.fly(1.0)
        flight.wait(lambda: flight.pipeline.health.degraded.get("no_model") is not None)
        flight.land()
    with FlightReader(flight.folder) as reader:
        assert reader.counts()["poses"] == shot
        assert reader.counts()["detections"] == 0
        assert "no_model" in {event.code for event in reader.health()}


def test_an_interrupted_flight_is_taken_up(tmp_path):
    with Flight(tmp_path) as flight:
        flight.launch()
        first = flight.camera.fly(2.0)
        time.sleep(1.5)
        flight.stop.set()
        flight.thread.join(30.0)
        folder = flight.folder
        assert not is_closed(folder)
        again = Flight.__new__(Flight)
        again.__dict__.update(flight.__dict__)
        again.stop = threading.Event()
        again.pipeline = Pipeline(again.settings, again.stop, open_eyes=red_eyes, once=True)
        again.thread = threading.Thread(target=again.pipeline.run)
        again.thread.start()
        assert (
            again.pipeline.phase is Phase.RECORDING
            or again.wait(lambda: again.pipeline.phase is Phase.RECORDING) is None
        )
        again.wait(lambda: np.isfinite(again.pipeline.telemetry.buffer.newest_s()))
        second = again.camera.fly(1.5)
        time.sleep(1.0)
        again.land()
    with FlightReader(folder) as reader:
        records = reader.frames()
        alerts = reader.alerts()
    assert len(records) == first + second
    assert [r.frame.seq for r in records] == list(range(first + second))
    assert len(alerts) == 1
    assert is_closed(folder)


def test_alert_rows_are_committed_before_the_voice_speaks(tmp_path):
    """Promise 2: another connection sees the row at the moment the voice is asked."""
    seen = []

    class Witness:
        interval_s = 0.0

        def __init__(self, folder):
            self.folder = folder

        def say(self, severity, text, alerts, tracks):
            uri = f"file:{self.folder / 'flight.db'}?mode=ro"
            with sqlite3.connect(uri, uri=True) as db:
                rows = [r[0] for r in db.execute("SELECT text FROM alerts")]
            seen.append(all(alert.text in rows for alert in alerts))
            return True

    with Flight(tmp_path) as flight:
        flight.pipeline.writer._voices = lambda f: [Witness(f.folder)]
        flight.launch()
        flight.camera.fly(3.0)
        time.sleep(1.0)
        flight.land()
    assert seen
    assert all(seen)
