"""Captures of several files as one frame of aligned, corrected bands; one-lens frames corrected."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from pyproj import CRS
from rasterio import Affine

from calibration.band_profile import BandTable, RadiometryTable
from calibration.geodesy import MapFrame
from calibration.rig import load_rig
from gossan.errors import DamagedDataError
from onboard.cli.ortho import ortho
from onboard.records import Frame
from onboard.scan import _quality, eight_bits
from onboard.sources.open import open_source

GEOMETRY = """
[camera]
model = "opencv"
width_px = 320
height_px = 240
fx_px = 300.0
fy_px = 300.0
cx_px = 159.5
cy_px = 119.5
[mount]
type = "gimbal"
"""
TWO_LENSES = """
[radiometry]
reference = "Red"
[[radiometry.band]]
name = "NIR"
file_suffix = "_2"
dark_dn = 1000.0
from_reference = [[1.0, 0.0, 0.02], [0.0, 1.0, -0.01], [0.0, 0.0, 1.0]]
[[radiometry.band]]
name = "Red"
file_suffix = "_1"
dark_dn = 1000.0
"""
ONE_LENS = """
[radiometry]
[[radiometry.band]]
name = "Green"
channel = 1
full_scale_dn = 256.0
dark_dn = 20.0
"""
POSES = """frame,lat_deg,lon_deg,alt_m_ellipsoid,yaw_deg,pitch_deg,roll_deg
IMG_0001_1.tif,47.0,9.0,460.0,0,-90,0
IMG_0002_1.tif,47.0,9.0,460.0,0,-90,0
"""
MAP = MapFrame(CRS.from_epsg(32632))
X, Y = (float(v[0]) for v in MAP.to_map([47.0], [9.0]))


@pytest.fixture
def flight(tmp_path: Path) -> Path:
    """Two captures of two bands, the second without its NIR file; NIR is shifted by (6, −3) px."""
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 60000, (300, 400)).astype(np.float32), (0, 0), 2)
    red, nir = wide[30:270, 40:360], wide[33:273, 34:354]
    for name, image in (("0001_1", red), ("0001_2", nir), ("0002_1", red)):
        cv2.imwrite(str(frames / f"IMG_{name}.tif"), (image + 1000).astype(np.uint16))
    (tmp_path / "rig.toml").write_text(GEOMETRY + TWO_LENSES)
    (tmp_path / "poses.csv").write_text(POSES)
    profile = {
        "driver": "GTiff", "width": 400, "height": 400, "count": 1, "dtype": "float32",
        "crs": "EPSG:32632", "transform": Affine(1.0, 0, X - 200, 0, -1.0, Y + 200),
    }  # fmt: skip
    with rasterio.open(tmp_path / "dem.tif", "w", **profile) as raster:
        raster.write(np.full((400, 400), 400, np.float32), 1)
    return tmp_path


def test_a_captures_files_are_one_frame_of_aligned_bands(flight: Path) -> None:
    rig = load_rig(flight / "rig.toml")
    source = open_source(flight / "frames", rig, flight / "poses.csv")
    frames = list(source.frames())
    assert [frame.name for frame in frames] == ["IMG_0001_1.tif", "IMG_0002_1.tif"]
    assert len(source.poses(rig)) == 2
    assert [flag.frame for flag in source.flagged] == []
    cube = source.load_pixels(frames[0]).pixels
    assert cube is not None
    assert cube.shape == (240, 320, 2)
    stored = cv2.imread(str(flight / "frames" / "IMG_0001_1.tif"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(cube[..., 1], stored - 1000)
    inside = np.s_[10:-10, 10:-10]
    np.testing.assert_allclose(cube[..., 0][inside].astype(float), cube[..., 1][inside], atol=2)
    with pytest.raises(DamagedDataError, match=r"IMG_0002_2\.tif"):
        source.load_pixels(frames[1])
    plain = list(open_source(flight / "frames", None, flight / "poses.csv").frames())
    assert len(plain) == 3


def test_ortho_writes_all_bands_and_flags_a_capture_that_lacks_one(flight: Path) -> None:
    args = [str(flight / "frames"), "--rig", str(flight / "rig.toml")]
    args += ["--poses", str(flight / "poses.csv"), "--dem", str(flight / "dem.tif")]
    args += ["--dem-datum", "ellipsoid"]
    done = CliRunner().invoke(
        ortho, [*args, "--out", str(flight / "out"), "--json"], catch_exceptions=False
    )
    said = json.loads(done.stdout)
    assert said["frames"] == 2
    assert said["written"] == 1
    assert [(f["frame"], f["reason"]) for f in said["flagged"]] == [
        ("IMG_0002_1.tif", "unreadable")
    ]
    with rasterio.open(flight / "out" / "IMG_0001_1.tif") as raster:
        assert raster.descriptions == ("NIR", "Red")
        assert raster.dtypes == ("uint16", "uint16")
        assert raster.tags()["GOSSAN_RADIOMETRY"] == "relative"
        bands, seen = raster.read().astype(float), raster.dataset_mask() > 0
    middle = np.zeros_like(seen)
    middle[30:-30, 30:-30] = True
    apart = np.abs(bands[0] - bands[1])[seen & middle]
    assert apart.size > 1000
    assert apart.max() <= 3


def test_frames_of_one_lens_are_corrected_channel_by_channel(tmp_path: Path) -> None:
    (tmp_path / "rig.toml").write_text(GEOMETRY + ONE_LENS)
    image = np.full((240, 320, 3), (50, 60, 70), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    rig = load_rig(tmp_path / "rig.toml")
    source = open_source(tmp_path / "a.png", rig)
    pixels = source.load_pixels(next(iter(source.frames()))).pixels
    assert pixels is not None
    np.testing.assert_array_equal(pixels[0, 0], [70, 40, 50])
    assert any("[radiometry]" in note for note in source.notes)


def test_networks_see_linear_light_through_the_srgb_curve() -> None:
    known = BandTable(name="Red", reflectance_per_radiance=0.01)
    table = RadiometryTable(band=(known,))
    half = np.full((2, 2, 3), 16384, np.uint16)
    assert (eight_bits(half, 3, table) == 188).all()
    assert (eight_bits(half, 3) == 64).all()
    assert (eight_bits(np.full((2, 2, 3), 40000, np.uint16), 3, table) == 255).all()


def test_dark_ground_in_reflectance_is_no_lens_cap(tmp_path: Path) -> None:
    known = BandTable(name="Red", reflectance_per_radiance=0.01)
    (tmp_path / "rig.toml").write_text(GEOMETRY)
    rig = replace(load_rig(tmp_path / "rig.toml"), radiometry=RadiometryTable(band=(known,)))
    ground = np.random.default_rng(1).normal(0.05, 0.01, (240, 320)).clip(0, 1) * 32768
    basalt = Frame("a.tif", 0, pixels=ground.astype(np.uint16))
    covered = Frame("b.tif", 1, pixels=np.full((240, 320), 20, np.uint16))
    assert _quality(basalt, rig) == "good"
    assert _quality(covered, rig) == "dark"
