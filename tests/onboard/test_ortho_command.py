"""``gossan onboard ortho``: one masked COG per frame, bad frames flagged, provenance inside."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from pyproj import CRS
from rasterio import Affine

from calibration.geodesy import MapFrame
from gossan.errors import DamagedDataError, UserError
from onboard.cli.ortho import ortho

RIG = """
[camera]
model = "opencv"
width_px = 320
height_px = 240
fx_px = 300.0
fy_px = 300.0
cx_px = 159.5
cy_px = 119.5
[mount]
type = "fixed"
yaw_deg = 0.0
pitch_deg = -90.0
roll_deg = 0.0
"""
POSES = """frame,lat_deg,lon_deg,alt_m_ellipsoid,yaw_deg,pitch_deg,roll_deg
a.png,47.0,9.0,460.0,0,-90,0
b.png,47.00005,9.0,460.0,30,-85,0
broken.png,47.0001,9.0,460.0,0,-90,0
small.png,47.0001,9.0,460.0,0,-90,0
sky.png,47.0,9.0,460.0,0,40,0
"""
MAP = MapFrame(CRS.from_epsg(32632))
X, Y = (float(v[0]) for v in MAP.to_map([47.0], [9.0]))


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    """A folder of frames with poses, rig and DEM: two good frames and all kinds of bad ones."""
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "sky.png", "lost.png"):
        cv2.imwrite(str(frames / name), rng.integers(0, 255, (240, 320, 3)).astype(np.uint8))
    cv2.imwrite(str(frames / "small.png"), np.zeros((24, 32, 3), np.uint8))
    (frames / "broken.png").write_bytes(b"\x89PNG no image")
    (tmp_path / "rig.toml").write_text(RIG)
    (tmp_path / "poses.csv").write_text(POSES)
    profile = {
        "driver": "GTiff", "width": 400, "height": 400, "count": 1, "dtype": "float32",
        "crs": "EPSG:32632", "transform": Affine(1.0, 0, X - 200, 0, -1.0, Y + 200),
    }  # fmt: skip
    with rasterio.open(tmp_path / "dem.tif", "w", **profile) as raster:
        i, j = np.mgrid[:400, :400]
        raster.write((400 + np.sin(i / 9) + np.cos(j / 7)).astype(np.float32), 1)
    return tmp_path


def run(folder: Path, *more: str, source: str = "frames") -> Result:
    args = [
        str(folder / source),
        "--rig",
        str(folder / "rig.toml"),
        "--dem",
        str(folder / "dem.tif"),
    ]
    args += ["--poses", str(folder / "poses.csv"), "--out", str(folder / "out"), "--json", *more]
    return CliRunner().invoke(ortho, args)


def test_one_cog_per_good_frame_and_the_rest_flagged(survey: Path) -> None:
    result = run(survey, "--dem-datum", "ellipsoid")
    assert result.exit_code == 0, result.output
    payload = json.loads(result.stdout)
    assert sorted(p.name for p in (survey / "out").iterdir()) == ["a.tif", "b.tif"]
    assert payload["frames"] == 6
    assert payload["written"] == 2
    reasons = {item["frame"]: item["reason"] for item in payload["flagged"]}
    assert reasons["broken.png"] == "unreadable"
    assert reasons["small.png"] == "size_differs"
    assert reasons["sky.png"] == "no_ground"
    assert "lost.png" in reasons
    assert all(item["remedy"] for item in payload["flagged"])
    with rasterio.open(survey / "out" / "b.tif") as raster:
        tags = raster.tags()
        assert raster.crs.to_epsg() == 32632
        assert raster.count == 3
        assert raster.dtypes == ("uint8",) * 3
        mask = raster.dataset_mask() > 0
        assert 0.3 < mask.mean() < 0.95
        assert (raster.read()[:, ~mask] == 0).all()
        assert raster.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
    assert tags["GOSSAN_VERTICAL_DATUM"] == "ellipsoid"
    assert len(tags["GOSSAN_RIG"]) == 64
    assert tags["GOSSAN_POSE_SOURCE"] == "poses.csv"
    assert tags["GOSSAN_DEM"]


def test_like_takes_the_grid_of_a_raster_at_fractional_pixels(survey: Path) -> None:
    like = survey / "like.tif"
    x, y = X + 0.07, Y + 0.13
    profile = {
        "driver": "GTiff", "width": 150, "height": 120, "count": 1, "dtype": "uint8",
        "crs": "EPSG:32632", "transform": Affine(0.37, 0, x - 30, 0, -0.37, y + 30),
    }  # fmt: skip
    with rasterio.open(like, "w", **profile) as raster:
        raster.write(np.zeros((1, 120, 150), np.uint8))
    result = run(survey, "--dem-datum", "ellipsoid", "--like", str(like))
    assert result.exit_code == 0, result.output
    with rasterio.open(survey / "out" / "a.tif") as raster:
        assert raster.transform == profile["transform"]
        assert (raster.width, raster.height) == (150, 120)


def test_extras_are_files_of_their_own(survey: Path) -> None:
    result = run(
        survey, "--dem-datum", "ellipsoid", "--extras", "--gsd", "0.5", source="frames/a.png"
    )
    assert result.exit_code == 0, result.output
    assert [p.name for p in (survey / "out").glob("*.tif")] == ["a.tif"]
    with rasterio.open(survey / "out" / "extras" / "a_sigma.tif") as raster:
        sigma, mask = raster.read(), raster.dataset_mask() > 0
        assert raster.descriptions == ("sigma_e_m", "sigma_n_m")
        assert (sigma[:, mask] > 0.5).all()
        assert (sigma[:, mask] < 20).all()
    with rasterio.open(survey / "out" / "extras" / "a_masks.tif") as raster:
        assert raster.descriptions == ("seen", "occluded")


def test_one_bad_frame_alone_is_an_error(survey: Path) -> None:
    result = run(survey, "--dem-datum", "ellipsoid", source="frames/broken.png")
    assert isinstance(result.exception, DamagedDataError)
    result = run(survey, "--dem-datum", "ellipsoid", source="frames/sky.png")
    assert isinstance(result.exception, UserError)


def test_a_dem_without_vertical_datum_asks_for_it(survey: Path) -> None:
    result = run(survey)
    assert isinstance(result.exception, UserError)
    assert "--dem-datum" in result.exception.hint


def test_like_excludes_gsd_and_crs(survey: Path) -> None:
    assert run(survey, "--like", "x.tif", "--gsd", "1").exit_code == 2


@pytest.mark.real_data
def test_brighton_neighbours_overlay(shared_data: Path, tmp_path: Path) -> None:
    """Two neighbouring orthos from the drone's own poses show the same shore within 2 m."""
    folder = shared_data / "imagery" / "brighton_beach"
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in ("DJI_0031.JPG", "DJI_0032.JPG"):
        (frames / name).symlink_to(folder / "images" / name)
    rigs = Path(__file__).resolve().parents[2] / "calibration" / "rigs"
    args = [str(frames), "--rig", str(rigs / "brighton_fc300s.toml"), "--dem-datum", "same"]
    args += ["--dem", str(folder / "dsm_0p25m.tif"), "--gsd", "0.1", "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(ortho, [*args, "--json"])
    assert result.exit_code == 0, result.output
    with (
        rasterio.open(tmp_path / "o/DJI_0031.tif") as a,
        rasterio.open(tmp_path / "o/DJI_0032.tif") as b,
    ):
        left, top = max(a.bounds.left, b.bounds.left), min(a.bounds.top, b.bounds.top)
        right, bottom = min(a.bounds.right, b.bounds.right), max(a.bounds.bottom, b.bounds.bottom)
        window = (left, bottom, right, top)
        one, two = (r.read(2, window=r.window(*window)).astype(np.float32) for r in (a, b))
        both = np.minimum(*(r.dataset_mask(window=r.window(*window)) for r in (a, b))) > 0
    assert both.sum() > 20_000
    likeness, shift_m = _best_shift(one, two, both, 0.1)
    assert likeness > 0.6
    assert shift_m < 2.0


def _best_shift(
    one: np.ndarray, two: np.ndarray, both: np.ndarray, gsd_m: float
) -> tuple[float, float]:
    """Returns the best correlation of two images within 3 m, and the shift at which it stands."""
    a, b = (
        cv2.GaussianBlur(np.where(both, i - i[both].mean(), 0.0).astype(np.float32), (0, 0), 1.5)
        for i in (one, two)
    )
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    reach = range(-30, 31, 3)
    score, dy, dx = max(
        (float((a * np.roll(b, (dy, dx), (0, 1))).sum()) / norm, dy, dx)
        for dy in reach
        for dx in reach
    )
    return score, float(np.hypot(dy, dx)) * gsd_m
