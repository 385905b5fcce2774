"""A small survey on disk for the tests of bad input: three frames, poses, points, rig and DEM."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio import Affine

from calibration.geodesy import MapFrame

LAT, LON = 37.53, -117.19
MAP = MapFrame.utm(LAT, LON)
X0, Y0 = (float(v[()]) for v in MAP.to_map(LAT, LON))
RIG = """[camera]
model = "opencv"
width_px = 128
height_px = 96
fx_px = 100.0
fy_px = 100.0
cx_px = 63.5
cy_px = 47.5
[mount]
type = "gimbal"
"""
POSES = "frame,lat_deg,lon_deg,alt_m_ellipsoid,yaw_deg,pitch_deg,roll_deg\n" + "".join(
    f"f{i}.jpg,{LAT},{LON + i * 1e-4},1550,0,-90,0\n" for i in range(3)
)
POINTS = "frame,x_px,y_px\nf0.jpg,63.5,47.5\nf1.jpg,10,20\n"


def write_dem(path: Path, crs: str | None = "EPSG:32611", east_m: float = 0.0) -> Path:
    """Writes level ground at 1500 m, 400 m across, its middle ``east_m`` beside the flight."""
    transform = Affine(2.0, 0.0, X0 - 200 + east_m, 0.0, -2.0, Y0 + 200)
    profile = {"driver": "GTiff", "width": 200, "height": 200, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as raster:
        raster.write(np.full((200, 200), 1500.0, np.float32), 1)
    return path


def write_survey(folder: Path) -> Path:
    """Writes the survey into a new folder and returns it."""
    frames = folder / "frames"
    frames.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for i in range(3):
        image = rng.integers(80, 160, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(frames / f"f{i}.jpg"), image)
    (folder / "poses.csv").write_text(POSES)
    (folder / "points.csv").write_text(POINTS)
    (folder / "rig.toml").write_text(RIG)
    write_dem(folder / "dem.tif")
    return folder
