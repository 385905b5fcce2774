"""Post-processed trajectories as RTKLIB writes them, laid under frames by time or by order."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from calibration.rig import load_rig
from onboard.sources.errors import SourceError
from onboard.sources.exif import utc_of_name
from onboard.sources.gps_time import leap_s, utc_from_week
from onboard.sources.logged import LoggedSource
from onboard.sources.open import open_source
from onboard.sources.trajectory_file import read_trajectory

HEADER = """% program   : RTKPOST ver.2.4.3
% (lat/lon/height=WGS84/ellipsoidal,Q=1:fix,2:float,5:single,ns=# of satellites)
%  GPST                  latitude(deg) longitude(deg)  height(m)   Q  ns   sdn(m)   sde(m)   sdu(m)
"""
RIGS = Path(__file__).parents[2] / "calibration/rigs"


def gpst(t_unix_s: float) -> str:
    moment = datetime.fromtimestamp(t_unix_s + leap_s(t_unix_s), UTC)
    return (moment + timedelta(microseconds=500)).strftime("%Y/%m/%d %H:%M:%S.%f")[:-3]


def write(path: Path, rows: list[tuple[float, float, float, float]], q: int = 1) -> Path:
    lines = [
        f"{gpst(t)}   {lat:.9f} {lon:.9f} {alt:10.4f}   {q}  14   0.0110   0.0120   0.0250"
        for t, lat, lon, alt in rows
    ]
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("when", "ahead_s"),
    [((2008, 12, 31), 14), ((2009, 1, 1), 15), ((2016, 12, 31), 17), ((2017, 1, 1), 18)],
)
def test_leap_seconds(when: tuple[int, int, int], ahead_s: float) -> None:
    assert leap_s(datetime(*when, tzinfo=UTC).timestamp()) == ahead_s


def test_weeks_count_from_1980() -> None:
    """GPS week 2000 began on 2018-05-06 at 00:00:00 GPS, 18 s before midnight UTC."""
    began = datetime(2018, 5, 6, tzinfo=UTC).timestamp() - 18
    assert utc_from_week(2000, 0.0) == began


def test_formats_of_one_solution_agree(tmp_path: Path) -> None:
    t0 = datetime(2026, 8, 1, 10, 0, tzinfo=UTC).timestamp()
    rows = [(t0 + i, 46.8 + 1e-5 * i, -92.0, 200.0 + i) for i in range(5)]
    plain = read_trajectory(write(tmp_path / "a.pos", rows))
    assert plain.t_unix_s == pytest.approx([row[0] for row in rows], abs=2e-3)
    assert plain.sigma_enu_m[0] == pytest.approx([0.012, 0.011, 0.025])
    to_xyz = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    body = []
    for t, lat, lon, alt in rows:
        x, y, z = to_xyz.transform(lon, lat, alt)
        week, second = divmod(t + 18 - 315964800, 604800)
        body.append(f"{week:.0f} {second:.3f} {x:.4f} {y:.4f} {z:.4f} 1 9 0.01 0.02 0.03")
    head = "%  GPST  x-ecef(m)  y-ecef(m)  z-ecef(m)  Q  ns  sdx(m)  sdy(m)  sdz(m)\n"
    (tmp_path / "b.pos").write_text(head + "\n".join([*body, "2040 1.0 cut"]))
    cartesian = read_trajectory(tmp_path / "b.pos")
    assert cartesian.lat_deg == pytest.approx(plain.lat_deg, abs=1e-9)
    assert cartesian.alt_m == pytest.approx(plain.alt_m, abs=1e-3)
    assert cartesian.t_unix_s == pytest.approx(plain.t_unix_s, abs=2e-3)
    assert "1 lines could not be read" in cartesian.summary()
    assert "100 % fixed" in cartesian.summary()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no line that names"),
        (HEADER, "holds no position"),
        (HEADER.replace("ellipsoidal", "geodetic"), "above a geoid"),
        (HEADER.replace("GPST", "JST "), "its times are JST"),
        (HEADER.replace("(deg)", "(d'\")"), "no line that names"),
    ],
)
def test_what_cannot_be_used_says_so(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "x.pos").write_text(text)
    with pytest.raises(SourceError, match=match) as error:
        read_trajectory(tmp_path / "x.pos")
    assert error.value.hint


def test_a_real_flight_gets_its_positions_by_time(shared_data: Path, tmp_path: Path) -> None:
    """Its own track as the trajectory, 30 m higher and with a gap: the frames follow it."""
    cmac = shared_data / "imagery/cuav_cmac_2018"
    rig = load_rig(RIGS / "cuav_picam_v2.toml")
    source = open_source(cmac)
    assert isinstance(source, LoggedSource)
    own = source.poses(rig)
    t_s = np.arange(own.t_boot_s[0] - 5, own.t_boot_s[-1] + 5, 0.2)
    track = source.log.buffer.pose_at(t_s, [str(t) for t in t_s], None)
    first_utc_s = utc_of_name(own.frame[0]) + rig.clock.offset_s  # no UTC in this log
    utc_s = first_utc_s + track.t_boot_s - own.t_boot_s[0]
    gap = (track.t_boot_s > own.t_boot_s[6] - 1.5) & (track.t_boot_s < own.t_boot_s[6] + 1.5)
    rows = [
        (utc_s[i], track.lat_deg[i], track.lon_deg[i], track.alt_m[i] + 30.0)
        for i in np.flatnonzero(~gap)
    ]
    flown = open_source(cmac, rig, write(tmp_path / "flight.pos", rows))
    poses = flown.poses(rig)
    lost = [f.frame for f in flown.flagged if f.reason == "not_in_trajectory"]
    assert own.frame[6] in lost
    assert len(poses) + len(lost) == 12
    kept = [own.frame.index(name) for name in poses.frame]
    assert poses.height_datum == "ellipsoid"
    assert (poses.lat_deg - own.lat_deg[kept]) * 111_000 == pytest.approx(0.0, abs=0.15)
    assert poses.alt_m - own.alt_m[kept] == pytest.approx(30.0, abs=0.1)
    assert poses.r_ned_cam == pytest.approx(own.r_ned_cam[kept])
    assert poses.sigma_enu_m[0] == pytest.approx([0.012, 0.011, 0.025])
    assert any("100 % fixed" in note for note in flown.notes)


def test_one_row_for_each_photo_needs_no_times(shared_data: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((shared_data / "imagery/brighton_beach/images").glob("*.JPG"))[:4]:
        shutil.copyfile(path, photos / path.name)
    t0 = datetime(2016, 6, 23, 21, 32, tzinfo=UTC).timestamp()
    rows = [(t0 + i, 46.84 + 1e-4 * i, -91.99, 170.0 + i) for i in range(4)]
    source = open_source(photos, None, write(tmp_path / "events.pos", rows))
    poses = source.poses(None)
    assert poses.lat_deg == pytest.approx([row[1] for row in rows])
    assert poses.alt_m == pytest.approx([row[3] for row in rows])
    own = open_source(photos, alt_datum="same").poses(None)
    assert poses.r_ned_cam == pytest.approx(own.r_ned_cam)
    write(tmp_path / "events.pos", [*rows, (t0 + 9, 46.85, -91.99, 170.0)])
    with pytest.raises(SourceError, match="5 positions for 4 frames"):
        open_source(photos, None, tmp_path / "events.pos").poses(None)
