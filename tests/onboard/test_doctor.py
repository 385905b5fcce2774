"""The doctor: what it finds, whose fault it is, what to do."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gossan.checks import Check
from onboard import doctor as room
from onboard.cli.doctor import doctor
from onboard.config import load_onboard
from onboard.doctor import check_all, check_installation

spec = importlib.util.spec_from_file_location(
    "live_world", Path(__file__).with_name("live_world.py")
)
world = importlib.util.module_from_spec(spec)
sys.modules["live_world"] = world
spec.loader.exec_module(world)


def by_name(checks) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture
def quick(monkeypatch):
    """Short waits."""
    monkeypatch.setattr(room, "CAMERA_S", 1.0)
    monkeypatch.setattr(room, "LINK_S", 1.0)


def test_the_installation_alone():
    done = CliRunner().invoke(doctor, ["--json"])
    payload = json.loads(done.stdout)
    assert done.exit_code == 0
    assert payload["ready"] is True
    assert {c["name"] for c in payload["checks"]} == {
        "python", "packages", "engine", "models", "host clock",
    }  # fmt: skip


def test_without_an_engine_it_warns(monkeypatch):
    real = room.find_spec
    monkeypatch.setattr(room, "find_spec", lambda n: None if n == "onnxruntime" else real(n))
    found = by_name(check_installation())
    assert found["engine"].level == "warn"
    assert "gossan[cpu]" in found["engine"].todo


def test_a_clock_of_1970_is_told(monkeypatch):
    monkeypatch.setattr(room.time, "time", lambda: 1000.0)
    assert by_name(check_installation())["host clock"].level == "warn"


def test_nothing_at_the_vehicle(tmp_path, quick):
    port = world.free_port()
    extra = '[terrain]\ndem = "missing.tif"\ndatum = "egm96"\n[model]\nname = "nonsuch"\n'
    path = world.write_settings(tmp_path, port, extra)
    found = by_name(check_all(load_onboard(path)))
    assert {name for name, c in found.items() if c.level == "fail"} == {
        "model", "terrain", "camera", "link",
    }  # fmt: skip
    assert all(c.todo for c in found.values() if c.level == "fail")
    assert found["link"].kind == found["camera"].kind == "hardware"
    done = CliRunner().invoke(doctor, ["--config", str(path)])
    assert done.exit_code == 3
    assert "no heartbeat" in done.output


def test_everything_at_the_vehicle(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "LINK_S", 10.0)
    port = world.free_port()
    plan = tmp_path / "plan.geojson"
    ring = [[world.LON, world.LAT], [world.LON + 0.001, world.LAT], [world.LON, world.LAT + 0.001]]
    plan.write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))
    extra = '[survey]\nplan = "plan.geojson"\n[model]\nname = "none"\n'
    settings = load_onboard(world.write_settings(tmp_path, port, extra))
    aircraft = world.Aircraft(port)
    world.Camera(tmp_path / "camera", aircraft).shoot()
    aircraft.start()
    try:
        found = by_name(check_all(settings))
    finally:
        aircraft.stop()
    assert {n: c.detail for n, c in found.items() if c.level == "fail"} == {}
    assert "320 x 240" in found["camera"].detail
    assert found["clocks"].level == "ok", found["clocks"]
    assert found["GPS time"].detail == "gps"
    assert found["link"].detail == "vehicle 1, disarmed"
    assert set(aircraft.heard) <= {"HEARTBEAT", "TIMESYNC", "COMMAND_LONG"}


def test_a_frame_of_the_wrong_size_or_black_is_told(tmp_path, quick):
    import cv2
    import numpy as np

    settings = load_onboard(world.write_settings(tmp_path, 1, '[model]\nname = "none"\n'))
    folder = tmp_path / "camera"
    folder.mkdir()
    cv2.imwrite(str(folder / "cam_1.jpg"), np.full((100, 100, 3), 99, np.uint8))
    rig, _ = room._check_rig(settings)
    assert room._check_camera(settings, rig).level == "fail"
    cv2.imwrite(str(folder / "cam_1.jpg"), np.zeros((world.HEIGHT, world.WIDTH, 3), np.uint8))
    black = room._check_camera(settings, rig)
    assert (black.level, "dark" in black.detail) == ("warn", True)


def test_a_dem_that_ends_inside_the_plan_fails(tmp_path, quick):
    import numpy as np
    import rasterio
    from affine import Affine

    dem = tmp_path / "dem.tif"
    profile = {"driver": "GTiff", "width": 40, "height": 40, "count": 1, "dtype": "float32"}
    with rasterio.open(
        dem, "w", crs="EPSG:32611", transform=Affine(5, 0, 483000, 0, -5, 4154000), **profile
    ) as raster:
        raster.write(np.full((1, 40, 40), 1400.0, np.float32))
    plan = tmp_path / "plan.geojson"
    ring = [[-117.192, 37.529], [-117.18, 37.529], [-117.18, 37.533], [-117.192, 37.533]]
    plan.write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))
    extra = '[terrain]\ndem="dem.tif"\ndatum="egm96"\n[survey]\nplan="plan.geojson"\n'
    settings = load_onboard(world.write_settings(tmp_path, 1, extra))
    check = room._check_terrain(settings)
    assert check.level == "fail"
    assert "% of the plan" in check.detail
