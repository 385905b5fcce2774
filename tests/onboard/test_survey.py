"""What is done with one placed frame: the same in flight and in replay."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import Polygon

from calibration.rig import load_rig
from calibration.rotations import A_BODY_CAM, r_from_ypr
from gossan.errors import GossanError, SettingsError
from onboard.config import AlertSettings
from onboard.records import Frame, Poses
from onboard.scan import Scanner
from onboard.survey import SurveyProcessor
from onboard.survey_scene import Ground, make_scene, map_near, outline_deg, read_plan
from onboard.tell.policy import AlertPolicy

spec = importlib.util.spec_from_file_location(
    "live_world", Path(__file__).with_name("live_world.py")
)
world = importlib.util.module_from_spec(spec)
sys.modules["live_world"] = world
spec.loader.exec_module(world)


def pose_at(name: str, east_m: float) -> Poses:
    one = np.ones((1, 3))
    r_body = np.eye(3)[None]
    r_cam = (r_from_ypr(0.0, -np.pi / 2, 0.0) @ A_BODY_CAM)[None]
    return Poses(
        frame=(name,),
        lat_deg=np.array([world.LAT]),
        lon_deg=np.array([world.LON + east_m / world.M_PER_DEG_E]),
        alt_m=np.array([world.ground_ellipsoid_m() + world.AGL]),
        height_datum="ellipsoid",
        r_ned_cam=r_cam,
        r_ned_body=r_body,
        v_ned_mps=0.0 * one,
        omega_ned_rps=0.0 * one,
        sigma_enu_m=0.2 * one,
        sigma_tilt_rad=np.array([0.002]),
        sigma_heading_rad=np.array([0.002]),
        bias_enu_m=0.3 * one,
        bias_heading_rad=np.array([0.002]),
        t_boot_s=np.array([100.0 + east_m]),
        flags=((),),
    )


def picture(east_m: float) -> np.ndarray:
    rng = np.random.default_rng(int(east_m * 10))
    base = rng.integers(90, 150, (world.HEIGHT, world.WIDTH), dtype=np.uint8)
    image = np.repeat(base[..., None], 3, axis=2)
    u = (world.WIDTH - 1) / 2 + world.FOCAL * (world.TARGET_EN[0] - east_m) / world.AGL
    v = (world.HEIGHT - 1) / 2 - world.FOCAL * world.TARGET_EN[1] / world.AGL
    half = round(world.FOCAL * world.PATCH_M / world.AGL / 2)
    image[round(v) - half : round(v) + half, round(u) - half : round(u) + half] = (220, 40, 30)
    return image


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    path = tmp_path_factory.mktemp("rig") / "rig.toml"
    path.write_text(world.RIG)
    return load_rig(path)


def processor(rig, predictor=None, plan=None) -> SurveyProcessor:
    takeoff = (world.ground_ellipsoid_m(), "ellipsoid")
    scene = make_scene(rig, map_near(world.LAT, world.LON), Ground(sigma_m=0.5), takeoff, plan)
    scanner = Scanner(world.RedPredictor() if predictor is None else predictor, 0.2)
    return SurveyProcessor(scene, scanner, AlertPolicy(AlertSettings()), "f1")


def fly(survey: SurveyProcessor, n: int = 4):
    steps = []
    for i in range(n):
        east = 2.0 * i + 3.0
        frame = Frame(f"f{i}", i, pixels=picture(east))
        steps.append(survey.process(frame, pose_at(frame.name, east), i))
    return steps


def test_two_looks_make_one_alert_where_the_patch_is(rig):
    survey = processor(rig)
    steps = fly(survey)
    assert [len(step.record.alerts) for step in steps] == [0, 1, 0, 0]
    (track,) = survey.tracker.confirmed
    lat, lon = world.target_lat_lon()
    north = (track.lat_deg - lat) * world.M_PER_DEG_N
    east = (track.lon_deg - lon) * world.M_PER_DEG_E
    assert np.hypot(north, east) < 0.5
    assert track.looks == 4
    assert 6.0 < track.area_m2 < 13.0
    record = steps[1].record
    assert record.alerts[0].t_mono_ns == 1
    assert record.frame.pixels is None
    assert set(record.stage_ms) >= {"ortho", "inference", "geotag"}


def test_chips_show_the_track(rig):
    import cv2

    steps = fly(processor(rig))
    chips = [chip for step in steps for chip in step.chips.values()]
    assert chips
    image = cv2.imdecode(np.frombuffer(chips[-1], np.uint8), cv2.IMREAD_COLOR_RGB)
    h, w = image.shape[:2]
    middle = image[h // 2 - 2 : h // 2 + 2, w // 2 - 2 : w // 2 + 2].mean(axis=(0, 1))
    assert middle[0] > 150 > middle[1]


def test_a_frame_without_pose_is_kept_and_said(rig):
    step = processor(rig).process(Frame("f", 0, pixels=picture(3.0)), None, 0)
    assert step.record.dropped == ("scan: not placed",)
    assert step.record.detections is None


def test_a_frame_without_pixels_is_an_error(rig):
    with pytest.raises(GossanError, match="no pixels"):
        processor(rig).process(Frame("f", 0), pose_at("f", 0.0), 0)


def test_without_a_model_it_maps_and_finds_nothing(rig):
    survey = processor(rig)
    survey.scanner = Scanner(None, 0.2)
    steps = fly(survey)
    assert all(step.record.detections is None for step in steps)
    assert all(not step.record.footprint.scanned for step in steps)
    assert survey.coverage.area_m2() > 1000
    assert survey.tracker.tracks == []


def test_coverage_of_a_plan(rig):
    east = 20.0 / world.M_PER_DEG_E
    north = 10.0 / world.M_PER_DEG_N
    plan = Polygon(
        [
            (world.LON, world.LAT - north),
            (world.LON + east, world.LAT - north),
            (world.LON + east, world.LAT + north),
            (world.LON, world.LAT + north),
        ]
    )
    survey = processor(rig, plan=plan)
    fly(survey, 1)
    assert survey.coverage.percent() == pytest.approx(100.0, abs=0.5)
    far = processor(rig, plan=Polygon([(x + 0.01, y) for x, y in plan.exterior.coords]))
    fly(far, 1)
    assert far.coverage.percent() == 0.0
    assert len(far.coverage.gaps()) == 1


def test_restored_it_goes_on_as_if_never_interrupted(rig):
    whole = processor(rig)
    steps = fly(whole, 4)
    again = processor(rig)
    first = [step.record for step in steps[:2]]
    again.restore(
        [r.detections for r in first],
        [r.footprint for r in first],
        [t for r in first for t in r.tracks],
        [a for r in first for a in r.alerts],
    )
    again.policy = AlertPolicy(AlertSettings(), 2, [1])
    for i in (2, 3):
        east = 2.0 * i + 3.0
        frame = Frame(f"f{i}", i, pixels=picture(east))
        step = again.process(frame, pose_at(frame.name, east), i)
        assert step.record.alerts == ()
    (a,), (b,) = whole.tracker.confirmed, again.tracker.confirmed
    assert (a.track_id, a.looks, a.lat_deg, a.lon_deg) == (
        b.track_id,
        b.looks,
        b.lat_deg,
        b.lon_deg,
    )
    assert again.coverage.area_m2() == pytest.approx(whole.coverage.area_m2())


def test_plans_are_read_and_refused(tmp_path):
    path = tmp_path / "plan.geojson"
    ring = "[[[0,0],[1,0],[1,1],[0,0]]]"
    path.write_text(
        '{"type":"FeatureCollection","features":[{"type":"Feature","properties":{},"geometry":'
        f'{{"type":"Polygon","coordinates":{ring}}}}}]}}'
    )
    assert read_plan(path).area == pytest.approx(0.5)
    assert outline_deg(read_plan(path))[1] == (0.0, 1.0)
    for text in ("{", '{"type":"Point","coordinates":[0,0]}', "[1]", '{"type":"Nonsense"}'):
        path.write_text(text)
        with pytest.raises(SettingsError, match="plan"):
            read_plan(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_plan(tmp_path / "none.geojson")


def test_a_missing_dem_is_refused(rig):
    with pytest.raises(GossanError, match=r"none\.tif"):
        make_scene(rig, map_near(1.0, 1.0), Ground(Path("none.tif"), "ellipsoid"), (0.0, "same"))


def test_process_does_not_change_its_frame(rig):
    frame = Frame("f", 0, pixels=picture(3.0))
    before = replace(frame, pixels=frame.pixels.copy())
    processor(rig).process(frame, pose_at("f", 3.0), 0)
    assert (frame.pixels == before.pixels).all()
