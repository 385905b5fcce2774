"""Frames beside logs, tables, reconstructions and subtitles: which time, which pose, which way."""

from __future__ import annotations

import csv
import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyproj
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from pymavlink.dialects.v20 import ardupilotmega as m2

from calibration.errors import DatumError
from calibration.geodesy import MapFrame
from calibration.rig import Rig, load_rig
from calibration.rotations import ENU_FROM_NED, rot_log, ypr_from_r_ned_cam
from onboard.keep.files import keep_frame
from onboard.keep.flight import FlightHeader, create_flight
from onboard.keep.store import FlightStore
from onboard.records import FrameRecord
from onboard.sources.errors import (
    DamagedFrame,
    DamagedTelemetryError,
    FrameTimeError,
    SourceError,
    UnknownSourceError,
)
from onboard.sources.logged import LoggedSource
from onboard.sources.open import open_source
from onboard.sources.opensfm import read_reconstruction
from onboard.sources.srt import parse_srt, read_srt

BOOT_UTC_S = 1_790_000_000.0
RIGS = Path(__file__).parents[2] / "calibration/rigs"


def write_log(
    path: Path,
    exposures_s: list[float] = [],  # noqa: B006 - read only
    start_s: float = 100.0,
    stop_s: float = 160.0,
    delays: float = 0.05,
) -> None:
    """A vehicle flying north at 10 m/s; its boot is at BOOT_UTC_S, the link is late at random."""
    rng = np.random.default_rng(8)
    mav = m2.MAVLink(None, srcSystem=1, srcComponent=1)
    rows: list[tuple[float, Any]] = []
    for t in np.arange(start_s, stop_s, 0.2):
        ms = round(t * 1000)
        north = 468000000 + round((t - 100.0) * 10.0 / 111_170.0 * 1e7)
        rows.append((t, m2.MAVLink_attitude_message(ms, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0)))
        rows.append(
            (
                t,
                m2.MAVLink_global_position_int_message(
                    ms, north, -919000000, 300000, 0, 1000, 0, 0, 0
                ),
            )
        )
    for i, t in enumerate(exposures_s):
        feedback = m2.MAVLink_camera_feedback_message(
            round(t * 1e6), 1, 0, i + 1, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, i + 1
        )
        rows += [(t + 0.02, feedback), (t + 0.5, feedback)]
    with path.open("wb") as out:
        for t, msg in sorted(rows, key=lambda row: row[0]):
            late = 0.004 + rng.exponential(delays)
            stamp = round((BOOT_UTC_S + t + late) * 1e6)
            out.write(struct.pack(">Q", stamp) + bytes(msg.pack(mav)))


def write_frame(path: Path, t_utc_s: float = math.nan, subsecond: bool = False) -> None:
    exif = Image.Exif()
    if math.isfinite(t_utc_s):
        from datetime import UTC, datetime

        at = datetime.fromtimestamp(t_utc_s, UTC)
        tags = {Base.DateTimeOriginal: at.strftime("%Y:%m:%d %H:%M:%S")}
        if subsecond:
            tags[Base.SubsecTimeOriginal] = f"{at.microsecond // 1000:03d}"
        exif.get_ifd(IFD.Exif).update(tags)
    Image.new("RGB", (64, 48), (90, 120, 70)).save(path, exif=exif)


def stamps(folder: Path) -> tuple[np.ndarray, LoggedSource]:
    source = open_source(folder)
    assert isinstance(source, LoggedSource)
    return source.times.t_boot_s, source


EXPOSURES = [110.0, 112.0, 114.5, 116.1, 119.0, 121.3]


@pytest.mark.parametrize("above", [False, True], ids=["beside", "folder above"])
@pytest.mark.parametrize("column", ["t_boot_s", "t_utc_s"])
def test_times_csv_comes_first(tmp_path: Path, above: bool, column: str) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    write_log(tmp_path / "flight.tlog", EXPOSURES)
    offset = 0.0 if column == "t_boot_s" else BOOT_UTC_S
    lines = [f"frame,{column}"]
    for i, t in enumerate(EXPOSURES):
        write_frame(frames / f"IMG_{i}.jpg")
        lines.append(f"IMG_{i}{'.jpg' if i % 2 else ''}, {t + 1.0 + offset:.3f}")
    write_frame(frames / "IMG_9.jpg")
    (tmp_path if above else frames).joinpath("times.csv").write_text("\n".join(lines))
    t, source = stamps(tmp_path)
    assert t[:6] == pytest.approx(np.array(EXPOSURES) + 1.0, abs=0.01)
    assert [f[:2] for f in source.flagged] == [("IMG_9.jpg", "no_time")]
    assert any("times.csv" in note for note in source.notes)
    assert len(source.poses(None)) == 6
    t_again, _ = stamps(frames)
    assert t_again[:6] == pytest.approx(t[:6])


def test_camera_events_of_the_same_count(tmp_path: Path) -> None:
    write_log(tmp_path / "flight.tlog", EXPOSURES)
    for i in range(6):
        write_frame(tmp_path / f"IMG_{i:04d}.jpg")
    t, source = stamps(tmp_path)
    assert t == pytest.approx(EXPOSURES, abs=1e-6)
    poses = source.poses(None)
    north_m = (poses.lat_deg - 46.8) * 111_170.0
    assert north_m == pytest.approx((np.array(EXPOSURES) - 100.0) * 10.0, abs=0.2)
    assert any("camera events (6" in note for note in source.notes)


def test_camera_events_by_spacing_where_there_are_more(tmp_path: Path) -> None:
    write_log(tmp_path / "flight.tlog", [*EXPOSURES, 125.0, 127.0])
    camera_clock_off_s = 3600.0 * 7 + 13.0
    for i, t in enumerate(EXPOSURES[2:]):
        write_frame(tmp_path / f"IMG_{i:04d}.jpg", BOOT_UTC_S + t + camera_clock_off_s)
    t, source = stamps(tmp_path)
    assert t == pytest.approx(EXPOSURES[2:], abs=1e-6)
    assert any("spacing agrees" in note for note in source.notes)


def test_camera_events_whose_spacing_differs_are_not_taken(tmp_path: Path) -> None:
    write_log(tmp_path / "flight.tlog", EXPOSURES)
    wrong = [110.0, 118.0, 119.0, 130.0, 140.0, 150.0]
    for i, t in enumerate(wrong):
        write_frame(tmp_path / f"IMG_{i:04d}.jpg", BOOT_UTC_S + t + 0.25, subsecond=True)
    t, source = stamps(tmp_path)
    assert t == pytest.approx(np.array(wrong) + 0.25, abs=0.02)
    assert any("EXIF" in note for note in source.notes)


def test_exif_in_local_time_finds_its_zone(tmp_path: Path) -> None:
    write_log(tmp_path / "flight.tlog")
    for i, t in enumerate(EXPOSURES):
        local = BOOT_UTC_S + t + 9.5 * 3600 + 0.125
        write_frame(tmp_path / f"IMG_{i:04d}.jpg", local, subsecond=True)
    t, source = stamps(tmp_path)
    assert t == pytest.approx(np.array(EXPOSURES) + 0.125, abs=0.02)
    assert any("+9.50 h" in note for note in source.notes)


def test_utc_in_names_by_the_running_minimum(tmp_path: Path) -> None:
    write_log(tmp_path / "flight.tlog", delays=0.5)
    from datetime import UTC, datetime

    for t in EXPOSURES:
        at = datetime.fromtimestamp(BOOT_UTC_S + t, UTC)
        write_frame(tmp_path / f"{at:%Y%m%d%H%M%S}{at.microsecond // 10000:02d}Z.jpg")
    t, source = stamps(tmp_path)
    assert t == pytest.approx(EXPOSURES, abs=0.03)
    assert any("file name" in note for note in source.notes)


def test_frames_outside_the_log_are_flagged(tmp_path: Path) -> None:
    write_log(tmp_path / "flight.tlog")
    rows = ["frame,t_boot_s", "a.jpg,120", "b.jpg,161.0", "c.jpg,400"]
    (tmp_path / "times.csv").write_text("\n".join(rows))
    for name in "abc":
        write_frame(tmp_path / f"{name}.jpg")
    source = open_source(tmp_path)
    poses = source.poses(None)
    assert poses.frame == ("a.jpg", "b.jpg")
    found = {(f.frame, f.reason) for f in source.flagged}
    assert found == {("b.jpg", "extrapolated"), ("c.jpg", "no_telemetry")}
    assert len(source.poses(None)) == 2
    assert len(source.flagged) == 2


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("frame,time\na,1", "needs the columns"),
        ("frame,t_boot_s\na.jpg,soon", "line 2: t_boot_s = 'soon'"),
        ("", "needs the columns"),
    ],
)
def test_bad_times_are_named(tmp_path: Path, content: str, match: str) -> None:
    write_log(tmp_path / "flight.tlog")
    write_frame(tmp_path / "a.jpg")
    (tmp_path / "times.csv").write_text(content)
    with pytest.raises(FrameTimeError, match=match):
        open_source(tmp_path)


def test_exif_times_reach_a_bin_through_its_gps_time(tmp_path: Path) -> None:
    gps_s = BOOT_UTC_S - 315964800.0 + 18.0
    rows = [
        "FMT, 1, 30, ATT, QccC, TimeUS,Roll,Pitch,Yaw",
        "FMT, 2, 30, POS, QLLf, TimeUS,Lat,Lng,Alt",
        "FMT, 3, 30, GPS, QBIHLLf, TimeUS,Status,GMS,GWk,Lat,Lng,Alt",
    ]
    for t in np.arange(100.0, 160.0, 0.25):
        us, week = round(t * 1e6), int((gps_s + t) // 604800)
        ms = round((gps_s + t - week * 604800) * 1000)
        rows += [f"ATT, {us}, 0, 0, 10", f"POS, {us}, 46.8, -91.9, 300"]
        rows += [f"GPS, {us}, 3, {ms}, {week}, 46.8, -91.9, 301"]
    (tmp_path / "flight.log").write_text("\n".join(rows))
    write_frame(tmp_path / "a.jpg", BOOT_UTC_S + 120.25 - 7 * 3600, subsecond=True)
    source = LoggedSource([tmp_path / "a.jpg"], tmp_path / "flight.log", "x")
    assert source.times.t_boot_s == pytest.approx([120.25], abs=2e-3)
    assert any("GPS time" in note for note in source.notes)
    assert len(source.poses(None)) == 1


def test_frames_without_any_time(tmp_path: Path) -> None:
    write_log(tmp_path / "flight.tlog")
    write_frame(tmp_path / "a.jpg")
    with pytest.raises(FrameTimeError, match=r"no times\.csv, 0 camera events") as caught:
        open_source(tmp_path)
    assert "times.csv" in caught.value.hint


def test_the_real_companion_computer(shared_data: Path) -> None:
    folder = shared_data / "imagery/cuav_cmac_2018"
    rig = load_rig(RIGS / "cuav_picam_v2.toml")
    source = open_source(folder, rig)
    poses = source.poses(rig)
    assert len(poses) == 12
    assert source.flagged == []
    assert any("UTC stamp in the file name" in note for note in source.notes)
    steps = np.diff(poses.t_boot_s)
    assert np.all((steps > 0.6) & (steps < 1.1))
    north = np.diff(poses.lat_deg) * 110_950.0
    east = np.diff(poses.lon_deg) * 90_900.0
    speed = np.hypot(north, east) / steps
    assert speed == pytest.approx(np.hypot(*poses.v_ned_mps[1:, :2].T), rel=0.1)
    _, pitch, _ = np.degrees(ypr_from_r_ned_cam(poses.r_ned_cam))
    assert pitch.max() < -60.0
    one = open_source(folder / "2018080501005597Z.jpg").poses(rig)
    i = poses.frame.index("2018080501005597Z.jpg")
    assert one.lat_deg[0] == pytest.approx(poses.lat_deg[i], abs=1e-9)


def test_a_log_alone_shows_its_events(shared_data: Path) -> None:
    source = open_source(shared_data / "flights/copter_survey_A.gcs.tlog")
    assert len(list(source.frames())) == 105
    assert len(source.poses(None)) == 105
    with pytest.raises(DamagedFrame, match="no file"):
        source.load_pixels(next(iter(source.frames())))


def test_odm_reconstruction_lies_on_its_utm_grid(shared_data: Path) -> None:
    folder = shared_data / "imagery/orthority_odm_tuniu"
    poses = open_source(folder, alt_datum="same").poses(None)
    to_utm = pyproj.Transformer.from_crs(4326, 32651, always_xy=True)
    x, y = to_utm.transform(poses.lon_deg, poses.lat_deg)
    frame = MapFrame(pyproj.CRS(32651))
    gamma = frame.local(poses.lat_deg, poses.lon_deg).convergence_rad
    with (folder / "odm_xyz_opk.csv").open() as lines:
        rows = {r["filename"]: r for r in csv.DictReader(lines, delimiter=" ", quotechar="'")}
    for i, name in enumerate(poses.frame):
        row = {
            k: float(v) for k, v in rows[Path(name).stem].items() if k not in ("filename", "camera")
        }
        assert (x[i], y[i]) == pytest.approx((row["x"], row["y"]), abs=0.01)
        assert poses.alt_m[i] == pytest.approx(row["z"], abs=0.01)
        omega, phi, kappa = np.radians([row["omega"], row["phi"], row["kappa"]])
        turn = np.linalg.norm(
            rot_log(_from_opk(omega, phi, kappa).T @ _grid(poses.r_ned_cam[i], gamma[i]))
        )
        assert np.degrees(turn) < 0.01
    with (folder / "odm_lla_rpy.csv").open() as lines:
        gps = {r["filename"]: r for r in csv.DictReader(lines, delimiter=" ")}
    for i, name in enumerate(poses.frame):
        north = (poses.lat_deg[i] - float(gps[name]["latitude"])) * 110_800.0
        east = (poses.lon_deg[i] - float(gps[name]["longitude"])) * 101_200.0
        assert math.hypot(north, east) < 0.1
    yaw, pitch, _ = np.degrees(ypr_from_r_ned_cam(poses.r_ned_cam))
    said = np.array([float(gps[name]["yaw"]) for name in poses.frame])
    assert np.abs((yaw - said + 180) % 360 - 180).max() < 2.5
    assert pitch == pytest.approx(np.full(4, -60.0), abs=1.5)


def _from_opk(omega: float, phi: float, kappa: float) -> np.ndarray:
    """Photogrammetric angles: camera (x right, y up, z back) → grid, Rx(ω) Ry(φ) Rz(κ)."""
    co, so, cp, sp, ck, sk = (f(a) for a in (omega, phi, kappa) for f in (math.cos, math.sin))
    rx = np.array([[1, 0, 0], [0, co, -so], [0, so, co]])
    ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    rz = np.array([[ck, -sk, 0], [sk, ck, 0], [0, 0, 1]])
    return np.asarray(rx @ ry @ rz @ np.diag([1.0, -1.0, -1.0]))


def _grid(r_ned_cam: np.ndarray, gamma: float) -> np.ndarray:
    c, s = math.cos(gamma), math.sin(gamma)
    return np.asarray(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ ENU_FROM_NED @ r_ned_cam)


def test_odm_shots_say_the_same_as_the_reconstruction(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "imagery/orthority_odm_tuniu/opensfm/reconstruction.json"
    expected = read_reconstruction(path, None, "same")
    shots = json.loads(path.read_text())[0]["shots"]
    features = [
        {
            "type": "Feature",
            "properties": {"filename": f"{name}.tif", "rotation": shots[name]["rotation"]},
            "geometry": {
                "type": "Point",
                "coordinates": [expected.lon_deg[i], expected.lat_deg[i], expected.alt_m[i]],
            },
        }
        for i, name in enumerate(expected.frame)
    ]
    geojson = tmp_path / "shots.geojson"
    geojson.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    poses = read_reconstruction(geojson, None, "same")
    assert poses.frame == tuple(f"{name}.tif" for name in expected.frame)
    assert poses.lat_deg == pytest.approx(expected.lat_deg)
    assert poses.r_ned_cam == pytest.approx(expected.r_ned_cam, abs=1e-7)


def test_an_opensfm_reconstruction_lies_on_its_tangent_plane(tmp_path: Path) -> None:
    reference = {"latitude": 46.80123, "longitude": -91.94567, "altitude": 180.0}
    shots = {
        "a.jpg": {"rotation": [math.pi, 0.0, 0.0], "translation": [0.0, 0.0, 50.0]},
        "b.jpg": {"rotation": [math.pi, 0.0, 0.0], "translation": [-300.0, 400.0, 50.0]},
    }
    path = tmp_path / "reconstruction.json"
    path.write_text(json.dumps([{"reference_lla": reference, "shots": shots}]))
    poses = read_reconstruction(path, None, "ellipsoid")
    assert poses.alt_m[0] == pytest.approx(230.0, abs=1e-6)
    geod = pyproj.Geod(ellps="WGS84")
    azimuth, _, metres = geod.inv(
        poses.lon_deg[0], poses.lat_deg[0], poses.lon_deg[1], poses.lat_deg[1]
    )
    assert metres == pytest.approx(500.0, abs=0.05)
    assert azimuth == pytest.approx(math.degrees(math.atan2(300.0, 400.0)), abs=0.01)
    _, pitch, _ = np.degrees(ypr_from_r_ned_cam(poses.r_ned_cam))
    assert pitch == pytest.approx([-90.0, -90.0], abs=0.01)
    with pytest.raises(DatumError, match="what its heights are above"):
        read_reconstruction(path, None)
    path.write_text(json.dumps([{"shots": shots}]))
    with pytest.raises(SourceError, match="reference"):
        read_reconstruction(path, None, "same")


def test_a_pose_table_places_frames_by_name_and_stem(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_frame(tmp_path / name)
    table = tmp_path / "poses.csv"
    table.write_text(
        "frame,lat_deg,lon_deg,alt_m_ellipsoid,yaw_deg,pitch_deg,roll_deg\n"
        "b.jpg,46.1,-92,150,10,-90,0\na,46.2,-92,160,20,-90,0\n"
    )
    for source in (open_source(tmp_path), open_source(tmp_path, poses_csv=table)):
        poses = source.poses(None)
        assert poses.frame == ("a.jpg", "b.jpg")
        assert poses.lat_deg == pytest.approx([46.2, 46.1])
        assert [f[:2] for f in source.flagged] == [("c.jpg", "no_pose")]


DIALECTS = {
    "matrice_300.srt": (381, 36.6146, -6.1120, math.nan, 0.3, False),
    "mavic_2_style.SRT": (468, -20.2533, 149.0251, math.nan, math.nan, False),
    "mavic_air2.srt": (25, 41.420684, 2.162162, 27.3, math.nan, False),
    "mavic_mini.SRT": (117, 48.0771, -121.7458, math.nan, 200.70, False),
    "mavic_pro.SRT": (468, -20.2533, 149.0251, math.nan, 1.9, False),
    "old_format.SRT": (468, -20.2533, 149.0251, math.nan, 1.9, False),
    "p4_rtk.SRT": (55, -34.237922, -58.851745, math.nan, 85.8, True),
    "broken_incomplete.SRT": (20, -34.7383, -58.4563, math.nan, 20.1, False),
    "broken_incomplete2.SRT": (6, -34.869950, -57.823395, 74.725998, math.nan, False),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dji_subtitles(shared_data: Path, name: str) -> None:
    count, lat, lon, alt, relative, gimbal = DIALECTS[name]
    rows, _ = read_srt(shared_data / "imagery/dji_srt" / name)
    first = rows[0]
    assert abs(len(rows) - count) <= 1
    assert (first.lat_deg, first.lon_deg) == (lat, lon)
    if name != "matrice_300.srt":
        assert first.alt_m == pytest.approx(alt, nan_ok=True)
    assert first.alt_m_takeoff == pytest.approx(relative, nan_ok=True)
    assert math.isfinite(first.ypr_deg[0]) is gimbal
    t = np.array([r.t_s for r in rows])
    assert np.isfinite(t).all()
    assert np.all(np.diff(t) >= 0)


def test_subtitles_with_gimbal_place_frames(shared_data: Path) -> None:
    source = open_source(shared_data / "imagery/dji_srt/p4_rtk.SRT")
    poses = source.poses(None)
    assert len(poses) == 55
    assert poses.height_datum == "takeoff"
    yaw, pitch, _ = np.degrees(ypr_from_r_ned_cam(poses.r_ned_cam))
    assert (yaw[0], pitch[0]) == pytest.approx((110.4, -24.4))


@pytest.mark.parametrize("name", ["broken_empty.SRT", "broken_empty2.SRT"])
def test_empty_subtitles_are_a_clear_error(shared_data: Path, name: str) -> None:
    with pytest.raises(DamagedTelemetryError, match="no subtitle"):
        open_source(shared_data / "imagery/dji_srt" / name)


def test_subtitles_without_position(shared_data: Path) -> None:
    source = open_source(shared_data / "imagery/dji_srt/mavic_air.SRT", alt_datum="same")
    assert len(source.poses(None)) == 0
    assert {f.reason for f in source.flagged} == {"no_gps"}


def test_newer_subtitles() -> None:
    rows, skipped = parse_srt(
        '1\n00:00:00,000 --> 00:00:00,033\n<font size="28">FrameCnt: 1, DiffTime: 33ms\n'
        "2024-05-01 10:11:12.345\n[iso: 100] [latitude: 45.5] [longitude: 7.1] "
        "[rel_alt: 30.1 abs_alt: 512.3] [gb_yaw: 12.3 gb_pitch: -90.0 gb_roll: 0.0] </font>\n\n2\n"
    )
    assert skipped == 1
    row = rows[0]
    assert (row.alt_m, row.alt_m_takeoff, row.ypr_deg) == (512.3, 30.1, (12.3, -90.0, 0.0))
    assert row.t_local_s % 60 == pytest.approx(12.345)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for i in range(50):
        out.write(np.full((48, 64, 3), (5 * i, 20, 200), np.uint8))
    out.release()
    return path


def test_a_video_with_a_log(clip: Path) -> None:
    write_log(clip.with_name("flight.tlog"))
    with pytest.raises(FrameTimeError, match=r"when clip\.avi starts"):
        open_source(clip)
    clip.with_name("times.csv").write_text("frame,t_boot_s\nclip.avi,120.0\n")
    source = open_source(clip, video_step_s=1.0)
    frames = list(source.frames())
    assert [f.t_boot_s for f in frames] == pytest.approx([120, 121, 122, 123, 124])
    assert len(source.poses(None)) == 5
    for i in (3, 1, 4):
        pixels = source.load_pixels(frames[i]).pixels
        assert pixels is not None
        assert pixels[20, 20].astype(int) == pytest.approx([200, 20, 50 * i], abs=12)


def test_a_video_with_subtitles(clip: Path) -> None:
    body = [
        f"{i + 1}\n00:00:0{i},000 --> 00:00:0{i + 1},000\n"
        f"GPS (7.0, {45 + i * 1e-4}, 12), H {30 + i}m, "
        f"G.PRY (-90.0, 0.0, {179 + i if i < 2 else 179 + i - 360})\n"
        for i in range(5)
    ]
    clip.with_suffix(".SRT").write_text("\n".join(body))
    source = open_source(clip, video_step_s=0.5)
    poses = source.poses(None)
    assert len(poses) == 10
    assert poses.lat_deg[1] == pytest.approx(45.00005)
    assert poses.alt_m[1] == pytest.approx(30.5)
    yaw, _, _ = np.degrees(ypr_from_r_ned_cam(poses.r_ned_cam))
    assert yaw[3] % 360 == pytest.approx(180.5)


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("flights", SourceError),
        ("geology/cloncurry_iocg", UnknownSourceError),
        ("nowhere", UnknownSourceError),
        ("README.md", UnknownSourceError),
    ],
)
def test_what_cannot_be_read_says_so(shared_data: Path, where: str, error: type) -> None:
    with pytest.raises(error) as caught:
        open_source(shared_data / where)
    assert caught.value.hint  # type: ignore[attr-defined]


def test_several_logs_are_not_guessed_between(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "imagery/cuav_cmac_2018"
    shutil.copy(source / "flight.tlog", tmp_path / "one.tlog")
    shutil.copy(source / "flight.tlog", tmp_path / "two.tlog")
    write_frame(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match=r"2 telemetry logs: one\.tlog, two\.tlog"):
        open_source(tmp_path)


def test_rigs_clock_offset_moves_the_pose(shared_data: Path) -> None:
    from dataclasses import replace

    from calibration.rig import Clock

    folder = shared_data / "imagery/cuav_cmac_2018"
    rig: Rig = load_rig(RIGS / "cuav_picam_v2.toml")
    late = replace(rig, clock=Clock(offset_s=rig.clock.offset_s - 0.3))
    a, b = open_source(folder).poses(rig), open_source(folder).poses(late)
    moved = np.hypot((a.lat_deg - b.lat_deg) * 110_950, (a.lon_deg - b.lon_deg) * 90_900)
    assert moved == pytest.approx(0.3 * np.hypot(*a.v_ned_mps[:, :2].T), rel=0.1)


@pytest.mark.parametrize("where", ["", "frames"], ids=["folder", "its frames"])
def test_a_flight_folder_is_a_source(tmp_path: Path, shared_data: Path, where: str) -> None:
    folder = shared_data / "imagery/cuav_cmac_2018"
    rig = load_rig(RIGS / "cuav_picam_v2.toml")
    source = open_source(folder)
    assert isinstance(source, LoggedSource)
    flown = source.poses(rig)
    flight = create_flight(tmp_path, FlightHeader("f1", crs_wkt="", rig_hash=rig.hash))
    with FlightStore(flight) as store:
        store.add_ties(source.log.clock.ties())
        for i, frame in enumerate(source.frames()):
            assert frame.path is not None
            pose = flown.take([i]) if i != 5 else None
            path, digest = keep_frame(flight, frame.name, frame.path.read_bytes(), pose)
            store.commit_frame(FrameRecord(frame, pose, path, digest))
    again = open_source(flight / where)
    poses = again.poses(None)
    assert again.kind == "a flight folder"
    kept = [i for i in range(12) if i != 5]
    assert poses.frame == flown.take(kept).frame
    assert poses.lat_deg == pytest.approx(flown.lat_deg[kept])
    assert poses.r_ned_cam == pytest.approx(flown.r_ned_cam[kept])
    assert [(f.frame, f.reason) for f in again.flagged] == [(flown.frame[5], "no_telemetry")]
    pixels = again.load_pixels(next(iter(again.frames()))).pixels
    assert pixels is not None
    assert pixels.shape == (1232, 1640, 3)
