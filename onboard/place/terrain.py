"""The ground under the survey: opens DEM files as posts of the map, in the datum of the poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyproj import Transformer

from calibration.errors import DatumError
from calibration.geodesy import MapFrame, same_horizontal, to_ellipsoid_m
from onboard.errors import DemError
from onboard.place.dem_file import DemFile, read_dem
from onboard.place.first_hit import Hits, first_hit
from onboard.place.surface import GridTerrain, PlaneTerrain, Terrain
from onboard.records import Floats, HeightDatum

__all__ = ["GridTerrain", "Hits", "PlaneTerrain", "Terrain", "first_hit", "open_dem"]

DEFAULT_SIGMA_M = 1.0
DEFAULT_LEVEL_SIGMA_M = 1.0
GEOID_LATTICE_M = 500.0
ROWS_AT_ONCE = 512


def open_dem(
    path: str | Path,
    map_frame: MapFrame,
    datum: HeightDatum | None,
    sigma_m: float | None = None,
    window: tuple[float, float, float, float] | None = None,
    level_sigma_m: float | None = None,
) -> GridTerrain:
    """Returns a DEM as posts of the map.

    A DEM in another CRS is resampled once, bilinearly, at its own spacing. Heights above EGM96 or
    EGM2008 become ellipsoidal; where PROJ has no EGM2008 grid they stay as they are, for poses of
    the same datum.

    Args:
        path: The file.
        map_frame: The map.
        datum: What its heights are above; ``None`` takes it from the file.
        sigma_m: σ of a single height; a stated value is the whole σ, without a level σ.
        window: Map x0, y0, x1, y1 of what is needed.
        level_sigma_m: σ of the level that all heights share.

    Raises:
        DemError: The file cannot be used, or no vertical datum is known.
    """
    path = Path(path)
    dem = read_dem(path, map_frame.crs, window)
    stated = datum or dem.datum
    if stated is None:
        raise DemError(
            f"the DEM {path} does not say what its heights are above",
            "name it: --dem-datum ellipsoid|egm96|egm2008|takeoff, or same if poses share it",
        )
    if not np.isfinite(dem.z).any():
        raise DemError(f"the DEM {path} has no heights where they are needed", "give another DEM")
    level = DEFAULT_LEVEL_SIGMA_M if sigma_m is None else 0.0
    z, x0, y0, dx, dy, moved = _posts_on_map(dem, map_frame)
    z, kept = _on_ellipsoid(z, (x0, y0, dx, dy), stated, map_frame)
    return GridTerrain(
        z=z,
        x0=x0,
        y0=y0,
        dx=dx,
        dy=dy,
        datum=kept,
        sigma_m=DEFAULT_SIGMA_M if sigma_m is None else sigma_m,
        level_sigma_m=level if level_sigma_m is None else level_sigma_m,
        label=dem.label,
        resampled=moved,
    )


def _posts_on_map(
    dem: DemFile, map_frame: MapFrame
) -> tuple[Floats, float, float, float, float, bool]:
    """Returns posts on the map (z, x0, y0, dx, dy), and whether they had to be resampled."""
    if same_horizontal(dem.crs, map_frame.crs):
        return dem.z, dem.x0, dem.y0, dem.dx, dem.dy, False
    source = GridTerrain(dem.z, dem.x0, dem.y0, dem.dx, dem.dy)
    x0, y0, x1, y1 = source.bounds
    forth = Transformer.from_crs(dem.crs, map_frame.crs, always_xy=True)
    back = Transformer.from_crs(map_frame.crs, dem.crs, always_xy=True)
    left, bottom, right, top = forth.transform_bounds(x0, y0, x1, y1, densify_pts=101)
    dx, dy = _spacing(forth, dem, ((x0 + x1) / 2, (y0 + y1) / 2))
    cols, rows = int((right - left) / dx) + 1, int((top - bottom) / dy) + 1
    x = left + dx * np.arange(cols)
    z = np.empty((rows, cols))
    for first in range(0, rows, ROWS_AT_ONCE):
        y = top - dy * np.arange(first, min(first + ROWS_AT_ONCE, rows))
        xs, ys = back.transform(*np.meshgrid(x, y))
        z[first : first + len(y)] = source.height_m(xs, ys)
    return z, float(left), float(top), dx, -dy, True


def _spacing(forth: Transformer, dem: DemFile, middle: tuple[float, float]) -> tuple[float, float]:
    """Returns the posts' own spacing in map metres, at the middle of the DEM."""
    x, y = forth.transform(
        [middle[0], middle[0] + dem.dx, middle[0]], [middle[1], middle[1], middle[1] - dem.dy]
    )
    east, north = np.hypot(x[1] - x[0], y[1] - y[0]), np.hypot(x[2] - x[0], y[2] - y[0])
    return float(east), float(north)


def _on_ellipsoid(
    z: Floats, place: tuple[float, float, float, float], datum: HeightDatum, map_frame: MapFrame
) -> tuple[Floats, HeightDatum]:
    """Returns heights above the ellipsoid where their datum allows it, and what they are above."""
    if datum in ("ellipsoid", "takeoff", "same"):
        return z, datum
    x0, y0, dx, dy = place
    rows, cols = z.shape
    width, height = (cols - 1) * dx, (rows - 1) * -dy
    nx = max(2, int(np.ceil(width / GEOID_LATTICE_M)) + 1)
    ny = max(2, int(np.ceil(height / GEOID_LATTICE_M)) + 1)
    step_x, step_y = width / (nx - 1), height / (ny - 1)
    xs, ys = np.meshgrid(x0 + step_x * np.arange(nx), y0 - step_y * np.arange(ny))
    lat, lon = map_frame.to_geographic(xs, ys)
    try:
        undulation = to_ellipsoid_m(np.zeros_like(lat), datum, lat, lon)
    except DatumError:
        if datum == "egm2008":
            return z, datum
        raise
    lattice = GridTerrain(undulation, x0, y0, step_x, -step_y)
    right, bottom = lattice.bounds[2], lattice.bounds[1]
    x = np.minimum(x0 + dx * np.arange(cols), right)
    raised = np.empty_like(z)
    for i in range(rows):
        raised[i] = z[i] + lattice.height_m(x, max(y0 + dy * i, bottom))
    return raised, "ellipsoid"


def map_window(
    map_frame: MapFrame, lat_deg: Floats, lon_deg: Floats, reach_m: float
) -> tuple[float, float, float, float]:
    """Returns map x0, y0, x1, y1 around positions, for ``open_dem``'s window."""
    x, y = map_frame.to_map(lat_deg, lon_deg)
    low_x, high_x = float(np.nanmin(x)) - reach_m, float(np.nanmax(x)) + reach_m
    return low_x, float(np.nanmin(y)) - reach_m, high_x, float(np.nanmax(y)) + reach_m
