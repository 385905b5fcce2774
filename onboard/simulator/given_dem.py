"""The DEM that the aircraft is given: the true ground as an earlier survey would have mapped it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

from onboard.simulator.noise import Window, octave
from onboard.simulator.relief import Relief
from onboard.simulator.world import MAP_EPSG, World

Floats = NDArray[np.float64]

POST_M = 3.0
ERROR_SPACING_M = (26.0, 9.0)
ERROR_SHARES = (0.9, 0.436)
NODATA = -9999.0


@dataclass(frozen=True, slots=True)
class GivenDem:
    """A grid of posts with its stated accuracy.

    Attributes:
        window: The posts, north up.
        z_m: (h, w) heights above the ellipsoid; NaN where it has a void.
        sigma_m: Stated σ that differs from place to place.
        level_sigma_m: Stated σ of its level.
    """

    window: Window
    z_m: Floats
    sigma_m: float
    level_sigma_m: float


def survey_dem(
    world: World,
    sigma_m: float,
    level_m: float,
    level_sigma_m: float,
    rng: np.random.Generator,
    post_m: float = POST_M,
    voids: int = 0,
) -> GivenDem:
    """Returns a DEM of the world: coarser posts, a smooth error field, a level error, voids.

    The error field is scaled so that it and the loss between posts together have ``sigma_m``.
    """
    relief = world.relief
    rows, columns = relief.z_m.shape
    size = int((min(rows, columns) - 1) * relief.post_m / post_m) - 1
    half = size * post_m / 2
    x, y = world.centre_xy_m
    window = Window(x - half, y + half, post_m, size + 1, size + 1)
    z = _averaged(relief, window)
    lost = _lost_between_posts(relief, window, z)
    seed = int(rng.integers(2**31))
    rough = sum(
        share * octave(window, spacing, seed + k).astype(float)
        for k, (spacing, share) in enumerate(zip(ERROR_SPACING_M, ERROR_SHARES, strict=True))
    )
    z = z + level_m + float(np.sqrt(max(sigma_m**2 - lost**2, 0.0))) * rough
    for _ in range(voids):
        r, c = rng.integers(0, size - 12, 2)
        z[r : r + int(rng.integers(3, 12)), c : c + int(rng.integers(3, 12))] = np.nan
    return GivenDem(window, z, sigma_m, level_sigma_m)


def write_dem(path: Path, dem: GivenDem) -> None:
    """Writes the DEM as a GeoTIFF whose tags name its datum and accuracy."""
    window = dem.window
    corner = corner_transform(window)
    profile = {
        "driver": "GTiff",
        "width": window.width,
        "height": window.height,
        "count": 1,
        "dtype": "float32",
        "crs": f"EPSG:{MAP_EPSG}",
        "transform": corner,
        "nodata": NODATA,
        "compress": "deflate",
        "predictor": 3,
    }
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.where(np.isnan(dem.z_m), NODATA, dem.z_m).astype(np.float32), 1)
        out.update_tags(
            VERTICAL_DATUM="ellipsoid",
            DEM_SIGMA_M=f"{dem.sigma_m:g}",
            DEM_LEVEL_SIGMA_M=f"{dem.level_sigma_m:g}",
        )


def corner_transform(window: Window) -> Affine:
    """Returns the affine transform of a window's outer corner, as GeoTIFFs have it."""
    west, _, _, north = window.bounds_m
    return Affine(window.gsd_m, 0.0, west, 0.0, -window.gsd_m, north)


def _averaged(relief: Relief, window: Window) -> Floats:
    """Returns the mean of the true ground around each post, as a lidar or photo survey has it."""
    total = np.zeros((window.height, window.width))
    steps = np.array([-1, 0, 1]) * window.gsd_m / 3
    for dx in steps:
        for dy in steps:
            x, y = np.meshgrid(window.x_m + dx, window.y_m + dy)
            total += relief.height_m(x, y)
    return total / len(steps) ** 2


def _lost_between_posts(relief: Relief, window: Window, z: Floats) -> float:
    """Returns the RMS of bilinear heights between the posts against the true ground."""
    middle = (z[:-1, :-1] + z[1:, :-1] + z[:-1, 1:] + z[1:, 1:]) / 4
    x, y = np.meshgrid(window.x_m[:-1] + window.gsd_m / 2, window.y_m[:-1] - window.gsd_m / 2)
    off = middle - relief.height_m(x, y)
    return float(np.sqrt((off**2).mean() / 2))
