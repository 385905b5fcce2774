from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio import Affine

from calibration.geodesy import MapFrame
from gossan.cli import gossan
from onboard.errors import DemError, TableError

LAT, LON = 46.1, 7.4
MAP = MapFrame.utm(LAT, LON)
X0, Y0 = (float(v) for v in MAP.to_map(LAT, LON))
RIG = """
[camera]
model = "opencv"
width_px = 1280
height_px = 960
fx_px = 1000.0
fy_px = 1000.0
cx_px = 639.5
cy_px = 479.5
sigma_px = 1.0
[mount]
type = "gimbal"
"""
POSES = f"""frame,lat_deg,lon_deg,alt_m_ellipsoid,yaw_deg,pitch_deg,roll_deg,sigma_e_m,sigma_n_m,\
sigma_u_m,sigma_tilt_deg,sigma_heading_deg
a.jpg,{LAT},{LON},1100,0,-90,0,0.5,0.5,0.5,0,0
"""


def files(folder: Path, points: str) -> dict[str, str]:
    for name, text in (("rig.toml", RIG), ("poses.csv", POSES), ("points.csv", points)):
        (folder / name).write_text(text)
    return {name: str(folder / name) for name in ("rig.toml", "poses.csv", "points.csv")}


def dem(folder: Path, crs: str = "EPSG:32632") -> Path:
    """Level ground at 1000 m with a step to 1020 m 30 m north of the camera."""
    y = Y0 + 200 - 2.0 * np.arange(201)
    z = np.tile(np.where(y > Y0 + 30, 1020.0, 1000.0)[:, None], (1, 201)).astype(np.float32)
    path = folder / "dem.tif"
    transform = Affine(2.0, 0.0, X0 - 201.0, 0.0, -2.0, Y0 + 201.0)
    profile = {"driver": "GTiff", "width": 201, "height": 201, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as data:
        data.write(z, 1)
    return path


def run(folder: Path, points: str, *options: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    given = files(folder, points)
    out = folder / "out.csv"
    command = ["onboard", "geotag", given["points.csv"], "--poses", given["poses.csv"]]
    command += ["--rig", given["rig.toml"], "--out", str(out), "--json", *options]
    result = CliRunner().invoke(gossan, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with out.open(newline="") as stream:
        return list(csv.DictReader(stream)), json.loads(result.stdout)


def test_rows_keep_their_order_columns_and_unplaced_ones(tmp_path: Path) -> None:
    points = "note,frame,x_px,y_px,ground_alt_m_ellipsoid\nfirst,a.jpg,639.5,479.5,1000\n"
    points += "lost,z.jpg,1,1,1000\nhigh,a.tif,639.5,479.5,1050\nbare,a.jpg,639.5,479.5,\n"
    rows, said = run(tmp_path, points)
    assert [row["note"] for row in rows] == ["first", "lost", "high", "bare"]
    assert float(rows[0]["lat_deg"]) == pytest.approx(LAT, abs=1e-9)
    assert float(rows[2]["alt_m_ellipsoid"]) == pytest.approx(1050.0)
    assert rows[1]["flags"] == "no_pose"
    assert rows[3]["flags"] == "void"
    for i in (1, 3):
        assert all(rows[i][c] == "" for c in ("lat_deg", "alt_m_ellipsoid", "var_e_m2", "ce90_m"))
    assert said["points"] == 4
    assert said["placed"] == 2
    assert said["flags"] == {"no_pose": 1, "void": 1}
    assert any("covariance" in note for note in said["notes"])
    assert any("no ground height" in note for note in said["notes"])


def test_own_heights_are_exact_unless_a_sigma_is_given(tmp_path: Path) -> None:
    points = "frame,x_px,y_px,sigma_px,ground_alt_m_ellipsoid\na.jpg,639.5,1479.5,0,1000\n"
    rows, _ = run(tmp_path, points)
    # 45° south: 0.5 m of height moves the point by 0.5 m more
    assert float(rows[0]["var_n_m2"]) == pytest.approx(0.25 + 0.25, rel=1e-3)
    rows, _ = run(tmp_path, points, "--dem-sigma", "2")
    assert float(rows[0]["var_n_m2"]) == pytest.approx(0.5 + 4.0, rel=1e-3)
    assert float(rows[0]["var_e_m2"]) == pytest.approx(0.25, rel=1e-3)


def test_a_dem_is_met_at_its_first_ground(tmp_path: Path) -> None:
    points = "frame,x_px,y_px\na.jpg,639.5,479.5\na.jpg,639.5,-20.5\n"
    options = ("--dem", str(dem(tmp_path)), "--dem-datum", "ellipsoid", "--dem-sigma", "0")
    rows, said = run(tmp_path, points, *options)
    assert float(rows[0]["alt_m_ellipsoid"]) == pytest.approx(1000.0, abs=1e-3)
    assert float(rows[1]["alt_m_ellipsoid"]) == pytest.approx(1020.0, abs=1e-3)
    _, y = MAP.to_map(float(rows[1]["lat_deg"]), float(rows[1]["lon_deg"]))
    assert float(y) - Y0 == pytest.approx(0.5 * 80.0, abs=0.05)
    assert said["causes"]["position"] > 0.9
    assert said["height_datum"] == "ellipsoid"


def test_level_ground_takes_the_poses_datum_and_says_so(tmp_path: Path) -> None:
    rows, said = run(tmp_path, "frame,x_px,y_px\na.jpg,639.5,479.5\n", "--ground-alt", "990")
    assert float(rows[0]["alt_m_ellipsoid"]) == pytest.approx(990.0)
    assert any("--ground-alt" in note for note in said["notes"])


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ([], TableError, "--ground-alt"),
        (["--dem", "none.tif"], DemError, "--dem"),
        (["--dem", "DEM"], DemError, "--dem-datum"),
    ],
    ids=["no ground", "no file", "no datum"],
)
def test_missing_ground_is_an_error_that_says_what_to_do(
    options: list[str], error: type[Exception], word: str, tmp_path: Path
) -> None:
    given = files(tmp_path, "frame,x_px,y_px\na.jpg,1,1\n")
    options = [str(dem(tmp_path)) if option == "DEM" else option for option in options]
    command = ["onboard", "geotag", given["points.csv"], "--poses", given["poses.csv"]]
    command += ["--rig", given["rig.toml"], "--out", str(tmp_path / "o.csv"), *options]
    result = CliRunner().invoke(gossan, command)
    assert isinstance(result.exception, error)
    assert word in result.exception.hint  # type: ignore[attr-defined]


def test_two_kinds_of_ground_are_a_usage_error(tmp_path: Path) -> None:
    given = files(tmp_path, "frame,x_px,y_px\na.jpg,1,1\n")
    command = ["onboard", "geotag", given["points.csv"], "--poses", given["poses.csv"]]
    command += ["--rig", given["rig.toml"], "--out", str(tmp_path / "o.csv")]
    result = CliRunner().invoke(gossan, [*command, "--dem", "a.tif", "--ground-alt", "3"])
    assert result.exit_code == 2
