"""Do the ellipses hold the truth as often as they say, and are they no larger than they must be?

    python benchmarks/ellipse_coverage.py [--flights N] [--per-flight N] [--rays N]

Each flight draws its rig (boresight, clock, focal length), its shared biases and its ground once
from the stated σ, and each look its own position, tilt and heading. The DEM that is given differs
from the true ground as its σ says: a level for all, and an error that is smooth over some posts.
Pixels are spread over 0-60° off nadir. Printed by bins of 10°: the share of truth inside the 90 %
ellipse, and the ellipse's area against that of the covariance of ``--rays`` sampled rays that meet
the ground anew (the brute-force way).
"""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from scipy.ndimage import gaussian_filter

from calibration.camera import Camera
from calibration.geodesy import MapFrame, offset_enu
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import A_BODY_CAM, ENU_FROM_NED, r_from_ypr, rot_exp
from onboard.place.geotag import geotag
from onboard.place.terrain import GridTerrain
from onboard.records import CHI2_2_P90, GroundPoints, Poses

Floats = NDArray[np.float64]

MAP = MapFrame(CRS.from_epsg(32632))
X0, Y0, GROUND_M, HEIGHT_M = 500_000.0, 5_200_000.0, 500.0, 110.0
POSTS, POST_M = 500, 4.0
RIG = Rig(
    Camera("opencv", 4000, 3000, 3000.0, 3000.0, 1999.5, 1499.5, (-0.05, 0.02)),
    Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0), sigma_rad=np.radians([0.5, 0.5, 1.0])),
    Clock(0.0, 0.03),
    sigma_px=1.5,
    covariance=np.array([[36.0, 36.0], [36.0, 36.0]]),
    covariance_order=("fx_px", "fy_px"),
)
SIGMA_ENU, BIAS_ENU = np.array([0.4, 0.4, 0.7]), np.array([0.8, 0.8, 1.2])
TILT, HEADING, HEADING_BIAS = np.radians(0.5), np.radians(0.8), np.radians(1.2)
DEM_SIGMA_M, DEM_LEVEL_M, DEM_SMOOTH_POSTS = 0.7, 0.5, 2.5
SPEED_MPS = 15.0
BINS_DEG = np.arange(0, 61, 10)
LOW, HIGH, SIZE = 0.88, 0.92, 0.10


@dataclass(frozen=True)
class Drawn:
    """One flight: what is said, what is true, and which pixels are looked at."""

    told: Poses
    true: Poses
    true_rig: Rig
    given: GridTerrain
    ground: GridTerrain
    uv: Floats
    off_nadir_deg: Floats


def main() -> int:
    """Prints the table; returns 1 where a bin is outside its bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flights", type=int, default=240)
    parser.add_argument("--per-flight", type=int, default=60)
    parser.add_argument("--rays", type=int, default=200)
    parser.add_argument("--slope", type=float, default=33.0, help="Median slope, degrees.")
    given = parser.parse_args()
    rows = [_one(seed, given.per_flight, given.rays, given.slope) for seed in range(given.flights)]
    off, inside, ratio, rough = (np.concatenate(column) for column in zip(*rows, strict=True))
    print(
        f"{platform.machine()}; {given.flights} flights, {len(off)} points, {given.slope}° slopes"
    )
    print("off nadir   points  inside 90 %   area / sampled   sigma points")
    fine = True
    for low, high in pairwise(BINS_DEG):
        some = (off >= low) & (off < high)
        share, size = inside[some].mean(), float(np.nanmedian(ratio[some]))
        fine &= LOW <= share <= HIGH and abs(size - 1.0) <= SIZE
        print(
            f"{low:2d}-{high:2d}°    {some.sum():6d}     {share:6.1%}          {size:5.2f}"
            f"          {rough[some].mean():6.1%}"
        )
    return int(not fine)


def draw(seed: int, n: int, slope_deg: float) -> Drawn:
    """Returns a flight of n looks, one pixel each."""
    rng = np.random.default_rng([11, seed])
    ground = _ground(rng, slope_deg)
    error = gaussian_filter(rng.normal(size=ground.z.shape), DEM_SMOOTH_POSTS)
    error = error / error.std() * DEM_SIGMA_M + rng.normal(0.0, DEM_LEVEL_M)
    given = replace(ground, z=ground.z + error, sigma_m=DEM_SIGMA_M, level_sigma_m=DEM_LEVEL_M)
    x, y = X0 + rng.uniform(-300, 300, n), Y0 + rng.uniform(-300, 300, n)
    lat, lon = MAP.to_geographic(x, y)
    alt = np.asarray(ground.height_m(x, y)) + HEIGHT_M + rng.uniform(-20, 40, n)
    off = rng.uniform(0.0, 60.0, n)
    yaw = rng.uniform(0, 2 * np.pi, n)
    # The pixel lies up to 15° from the axis, which makes up the rest of the angle off nadir.
    lean = np.clip(off - rng.uniform(-15, 15, n), 0.0, 60.0)
    up_px = 3000.0 * np.tan(np.radians(off - lean))
    uv = np.column_stack([1999.5 + rng.uniform(-300, 300, n), 1499.5 - up_px])
    r = r_from_ypr(yaw, np.radians(lean - 90.0), np.zeros(n)) @ A_BODY_CAM
    v = SPEED_MPS * np.column_stack([np.cos(yaw), np.sin(yaw), np.zeros(n)])
    omega = rng.normal(0.0, 0.08, (n, 3))
    ones, nan = np.ones(n), np.full((n, 3, 3), np.nan)
    true = Poses(
        tuple(str(i) for i in range(n)), lat, lon, alt, "ellipsoid", r, nan, v, omega,
        np.tile(SIGMA_ENU, (n, 1)), TILT * ones, HEADING * ones, np.tile(BIAS_ENU, (n, 1)),
        HEADING_BIAS * ones, 0.0 * ones, ((),) * n,
    )  # fmt: skip
    told, true_rig = _told(true, rng)
    return Drawn(told, true, true_rig, given, ground, uv, off)


def _told(true: Poses, rng: np.random.Generator) -> tuple[Poses, Rig]:
    """Returns the poses as the telemetry has them, and the rig as it truly is."""
    told, longer = _disturbed(true, rng, 1)
    focal = 3000.0 + float(longer[0])
    return told, replace(RIG, camera=replace(RIG.camera, fx_px=focal, fy_px=focal))


def _disturbed(true: Poses, rng: np.random.Generator, flights: int) -> tuple[Poses, Floats]:
    """Returns disturbed poses, what is shared drawn once for all or for each, and focal changes."""
    n = len(true)

    def shared(sigma: Floats | float, *wide: int) -> Floats:
        return rng.normal(size=(flights, *wide)) * sigma

    late = shared(RIG.clock.sigma_s, 1)
    moved = rng.normal(size=(n, 3)) * SIGMA_ENU + shared(BIAS_ENU, 3)
    moved = moved + late * (true.v_ned_mps @ ENU_FROM_NED)
    heading = rng.normal(0.0, HEADING, n) + shared(HEADING_BIAS)
    turn = np.column_stack([rng.normal(0.0, TILT, (n, 2)), heading]) @ ENU_FROM_NED
    turn = turn + late * true.omega_ned_rps
    boresight = rot_exp(shared(RIG.mount.sigma_rad, 3))
    lat, lon, alt = offset_enu(true.lat_deg, true.lon_deg, true.alt_m, moved)
    r = rot_exp(turn) @ true.r_ned_cam @ boresight
    return replace(true, lat_deg=lat, lon_deg=lon, alt_m=alt, r_ned_cam=r), shared(6.0)


def _ground(rng: np.random.Generator, slope_deg: float) -> GridTerrain:
    """Returns rough ground of that median slope."""
    z = gaussian_filter(rng.normal(size=(POSTS, POSTS)), 9.0)
    z = z / z.std() + 0.25 * _unit(gaussian_filter(rng.normal(size=z.shape), 3.0))
    gy, gx = np.gradient(z, POST_M)
    z = z * np.tan(np.radians(slope_deg)) / np.median(np.hypot(gx, gy)) if slope_deg else 0.0 * z
    corner = X0 - POSTS * POST_M / 2, Y0 + POSTS * POST_M / 2
    return GridTerrain(GROUND_M + z, *corner, POST_M, -POST_M)


def _unit(z: Floats) -> Floats:
    return np.asarray(z / z.std())


def _one(seed: int, n: int, rays: int, slope_deg: float) -> tuple[Floats, ...]:
    flight = draw(seed, n, slope_deg)
    index = np.arange(n)
    truth = _place(flight.true, index, flight.uv + _noise(seed, n), flight.true_rig, flight.ground)
    found = _place(flight.told, index, flight.uv, RIG, flight.given)
    off = np.column_stack([truth.x_m - found.x_m, truth.y_m - found.y_m])
    cov = found.cov_total_m2
    seen = np.isfinite(off).all(axis=1) & np.isfinite(cov).all(axis=(1, 2))
    inside = np.einsum("ni,nij,nj->n", off[seen], np.linalg.inv(cov[seen]), off[seen]) < CHI2_2_P90
    ratio = np.full(n, np.nan)
    for i in np.flatnonzero(seen)[:: max(1, n // 8)]:
        ratio[i] = np.sqrt(np.linalg.det(cov[i]) / np.linalg.det(_sampled(flight, i, rays)))
    rough = np.array(["rough" in flags for flags in found.flags], np.float64)
    return flight.off_nadir_deg[seen], inside.astype(np.float64), ratio[seen], rough[seen]


def _sampled(flight: Drawn, i: int, rays: int) -> Floats:
    """Returns the second moments, about the point, of where rays land drawn from all stated σ."""
    rng = np.random.default_rng([13, i, rays])
    many, longer = _disturbed(flight.told.take(np.full(rays, i)), rng, rays)
    level = rng.normal(0.0, np.hypot(DEM_SIGMA_M, DEM_LEVEL_M), rays)
    many = replace(many, alt_m=many.alt_m - level)
    centre = np.array([1999.5, 1499.5])
    uv = centre + (flight.uv[i] - centre) * (3000.0 / (3000.0 + longer))[:, None]
    uv = uv + rng.normal(0.0, RIG.sigma_px, (rays, 2))
    exact = replace(RIG, covariance=None, covariance_order=())
    there = _place(many, np.arange(rays), uv, exact, flight.given)
    here = _place(flight.told, np.array([i]), flight.uv[i : i + 1], RIG, flight.given)
    off = np.column_stack([there.x_m - here.x_m[0], there.y_m - here.y_m[0]])
    off = off[np.isfinite(off).all(axis=1)]
    return np.asarray(off.T @ off / len(off))


def _place(
    poses: Poses, index: NDArray[np.int64], uv: Floats, rig: Rig, ground: GridTerrain
) -> GroundPoints:
    return geotag(poses, index, uv, None, rig, ground, MAP, "f")


def _noise(seed: int, n: int) -> Floats:
    return np.random.default_rng([17, seed]).normal(0.0, RIG.sigma_px, (n, 2))


if __name__ == "__main__":
    sys.exit(main())
