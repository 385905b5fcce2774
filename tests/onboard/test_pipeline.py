"""A whole flight through the live pipeline on loopback."""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from onboard.keep.flight import is_closed, read_header
from onboard.keep.read import FlightReader
from onboard.pipeline import Pipeline
from onboard.sources.telemetry_log import read_telemetry

spec = importlib.util.spec_from_file_location(
    "live_harness", Path(__file__).with_name("live_harness.py")
)
live = importlib.util.module_from_spec(spec)
sys.modules["live_harness"] = live
spec.loader.exec_module(live)
world, Flight, red_eyes = live.world, live.Flight, live.red_eyes


@dataclass
class Flown:
    """What a flight left."""

    pipeline: Pipeline
    aircraft: object
    folder: Path
    status: dict
    shot: int


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
