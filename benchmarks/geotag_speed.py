"""How long a million points take to geotag with covariance: arrays, and CSV in and out.

    python benchmarks/geotag_speed.py [--points N] [--repeats N]

One core. 200 frames over a DEM, all causes of error stated. *linear* is level ground, where the
stated test finds the tangent plane good enough; *sigma points* is rough ground, where most points
meet the DEM again. The share of points that did is printed. CSV is what reading and writing the
tables adds to the same million points.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from scipy.ndimage import gaussian_filter

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import A_BODY_CAM, r_from_ypr
from onboard.place.geotag import geotag
from onboard.place.terrain import GridTerrain
from onboard.records import GroundPoints, Poses
from onboard.sources.point_tables import read_points, write_points

MAP = MapFrame(CRS.from_epsg(32632))
X0, Y0, FRAMES = 500_300.0, 5_200_300.0, 200
BARS_S = {"linear": 2.0, "sigma points": 10.0, "CSV in and out": 3.0}
RIG = Rig(
    Camera("opencv", 4000, 3000, 3000.0, 3000.0, 1999.5, 1499.5, (-0.05, 0.02, 1e-3, -5e-4, 1e-3)),
    Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0), sigma_rad=np.radians([0.5, 0.5, 1.0])),
    Clock(0.0, 0.02),
    sigma_px=1.0,
    covariance=np.diag([9.0, 9.0]),
    covariance_order=("fx_px", "fy_px"),
)


def main() -> int:
    """Prints the table; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    n, per_million = given.points, 1e6 / given.points
    rng = np.random.default_rng(1)
    poses, index = _poses(rng), rng.integers(0, FRAMES, n)
    uv = rng.uniform((0, 0), (3999, 2999), (n, 2))
    print(f"{platform.machine()}, one core; CPU seconds per million points, medians")
    missed = False
    ground: GroundPoints | None = None
    for name, relief_m in (("linear", 0.0), ("sigma points", 6.0)):
        terrain = _terrain(rng, relief_m)
        times = []
        for _ in range(given.repeats):
            start = time.process_time()
            ground = geotag(poses, index, uv, None, RIG, terrain, MAP)
            times.append((time.process_time() - start) * per_million)
        assert ground is not None
        again = np.mean(["rough" in flags for flags in ground.flags])
        missed |= _tell(name, float(np.median(times)), f"{again:.0%} met the DEM again")
    assert ground is not None
    with tempfile.TemporaryDirectory() as folder:
        times = [_csv(Path(folder), index, uv, ground) for _ in range(given.repeats)]
    missed |= _tell("CSV in and out", float(np.median(times)) * per_million, "")
    return int(missed)


def _tell(name: str, seconds: float, more: str) -> bool:
    print(f"{name:15} {seconds:6.2f} s (bar {BARS_S[name]:.0f} s) {more}")
    return seconds > BARS_S[name]


def _csv(
    folder: Path, index: NDArray[np.int64], uv: NDArray[np.float64], ground: GroundPoints
) -> float:
    path = folder / "points.csv"
    if not path.exists():
        rows = zip(index.tolist(), uv.tolist(), strict=True)
        lines = [f"f{i:04d}.jpg,{x:.2f},{y:.2f}\n" for i, (x, y) in rows]
        path.write_text("frame,x_px,y_px\n" + "".join(lines))
    start = time.process_time()
    write_points(folder / "out.csv", read_points(path), ground)
    return time.process_time() - start


def _terrain(rng: np.random.Generator, relief_m: float) -> GridTerrain:
    z = gaussian_filter(rng.normal(size=(800, 800)), 6)
    z = 420.0 + z / z.std() * relief_m
    return GridTerrain(z, X0 - 800.0, Y0 + 800.0, 2.0, -2.0, sigma_m=0.5, level_sigma_m=0.5)


def _poses(rng: np.random.Generator) -> Poses:
    n = FRAMES
    lat, lon = MAP.to_geographic(X0 + rng.uniform(-300, 300, n), Y0 + rng.uniform(-300, 300, n))
    yaw, pitch = rng.uniform(0, 6.28, n), np.radians(rng.uniform(-90, -60, n))
    r = r_from_ypr(yaw, pitch, np.radians(rng.uniform(-5, 5, n))) @ A_BODY_CAM
    v = rng.normal(0, 8, (n, 3)) * [1.0, 1.0, 0.1]
    ones = np.ones(n)
    return Poses(
        tuple(f"f{i:04d}.jpg" for i in range(n)), lat, lon, 520.0 * ones, "ellipsoid", r,
        r @ A_BODY_CAM.T, v, rng.normal(0, 0.05, (n, 3)), np.full((n, 3), 0.5), 0.012 * ones,
        0.017 * ones, np.full((n, 3), 1.0), 0.03 * ones, 0.0 * ones, ((),) * n,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
