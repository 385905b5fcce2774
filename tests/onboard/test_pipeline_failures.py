"""Flights in which things break: recording goes on, and what was lost is counted and said."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from onboard.config import load_onboard
from onboard.eyes import Eyes
from onboard.keep.flight import is_closed
from onboard.keep.read import FlightReader
from onboard.pipeline import Phase, Pipeline
from onboard.scan import Scanner

spec = importlib.util.spec_from_file_location(
    "live_harness", Path(__file__).with_name("live_harness.py")
)
live = importlib.util.module_from_spec(spec)
sys.modules["live_harness"] = live
spec.loader.exec_module(live)
world, Flight, red_eyes = live.world, live.Flight, live.red_eyes


def broken_eyes():
    class Fails(world.RedPredictor):
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
        assert {"no_dem", "link_lost"} <= set(status["degraded"])
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
    assert {"no_dem", "scan_failed", "placed_late", "link_lost", "link_lost_over"} <= codes
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


@pytest.fixture
def small_disk(tmp_path):
    """A 20 MB disk at ``flights``."""
    root = tmp_path / "flights"
    root.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(root)])
    if done.returncode != 0:
        pytest.skip("this machine refuses to mount a tmpfs")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.mark.root
def test_a_full_disk_stops_frames_not_rows_and_alerts(tmp_path, small_disk):
    (small_disk / "filler").write_bytes(b"x" * 13_400_000)
    with Flight(tmp_path, "", watermarks=(6.5, 5.5)) as flight:
        flight.launch()
        shot = flight.camera.fly(6.0, rate_hz=6.0)
        time.sleep(2.5)
        status = flight.status
        flight.land()
        with FlightReader(flight.folder) as reader:
            records, alerts = reader.frames(), reader.alerts()
            codes = {event.code for event in reader.health()}
    assert len(records) == shot
    kept = [r for r in records if r.kept_path]
    assert 0 < len(kept) < shot
    assert len(alerts) == 1
    assert alerts[0].told is not None
    assert [
        (r.frame.seq, r.frame.flags, r.pose, r.kept_path) for r in records if not r.footprint
    ] == []
    assert all(("keep: disk" in r.dropped) is not bool(r.kept_path) for r in records)
    assert codes & {"disk_low", "disk_lower", "disk_critical"}
    assert sum(status["flight"]["not_kept"].values()) == shot - len(kept)


def test_frames_on_disk_without_a_row_are_stored_and_placed_after_landing(tmp_path):
    """The camera gave them once only; the power failed between file and row."""
    with Flight(tmp_path) as flight:
        flight.launch()
        shot = flight.camera.fly(2.0)
        time.sleep(1.5)
        flight.stop.set()
        flight.thread.join(30.0)
        folder = flight.folder
        with sqlite3.connect(folder / "flight.db") as db:
            names = [r[0] for r in db.execute("SELECT name FROM frames ORDER BY seq LIMIT 2")]
            for table, key in (("frames", "name"), ("poses", "frame"), ("files", "path")):
                for name in names:
                    value = f"frames/{name}" if table == "files" else name
                    db.execute(f"DELETE FROM {table} WHERE {key} = ?", (value,))
        db.close()
        for path in (tmp_path / "camera").glob("cam_*.jpg"):
            path.unlink()
        again = Flight.__new__(Flight)
        again.__dict__.update(flight.__dict__)
        again.stop = threading.Event()
        again.pipeline = Pipeline(again.settings, again.stop, open_eyes=red_eyes, once=True)
        again.thread = threading.Thread(target=again.pipeline.run)
        again.thread.start()
        again.wait(lambda: np.isfinite(again.pipeline.telemetry.buffer.newest_s()))
        again.land()
    with FlightReader(folder) as reader:
        records = {r.frame.name: r for r in reader.frames()}
    assert len(records) == shot
    for name in names:
        assert records[name].pose is not None
        assert records[name].footprint is not None


def test_recording_from_start_to_end_closes_its_flight(tmp_path):
    with Flight(tmp_path, '[survey]\nrecord = "start"\n') as flight:
        flight.wait(lambda: flight.pipeline.phase is Phase.RECORDING)
        shot = flight.camera.fly(1.0)
        time.sleep(1.0)
        flight.stop.set()
        flight.thread.join(30.0)
    assert is_closed(flight.folder)
    with FlightReader(flight.folder) as reader:
        assert len(reader.frames()) == shot
