"""The study area and the occurrences in it: where the prior learns, and from what."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.errors import RasterioIOError

from groundsync.errors import GridError, OccurrenceError
from groundsync.grid import Bools, Floats, ProjectGrid, grid_of_bounds, inside
from groundsync.prior.layers import read_features
from groundsync.prior.settings import Area, Occurrences

MIN_OCCURRENCES = 5


@dataclass(frozen=True, slots=True)
class Training:
    """Occurrences on the grid.

    Attributes:
        count: (height, width) occurrences in each cell.
        used: Occurrences inside the study area.
        outside: Occurrences left out because they lie outside it.
        shared: Occurrences that share their cell with an earlier one.
    """

    count: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
    used: int
    outside: int
    shared: int


def study_area(area: Area, folder: Path) -> tuple[ProjectGrid, Bools]:
    """Returns the grid and (height, width) True where a cell is studied.

    Raises:
        GridError: CRS, bounds, raster or polygon cannot be used.
    """
    if area.like is not None:
        grid, valid = _grid_like(folder / area.like)
        valid |= not area.mask
        outline = _outline(area, folder, grid.crs)
    else:
        assert area.crs is not None and area.cell_m is not None  # noqa: S101, PT018 (validated)
        try:
            crs = CRS.from_user_input(area.crs)
        except CRSError as error:
            raise GridError(f"unknown CRS '{area.crs}'", "use EPSG:… or WKT") from error
        outline = _outline(area, folder, crs)
        bounds = area.bounds_m
        if bounds is None:
            assert outline is not None  # noqa: S101 (validated: bounds_m or polygon)
            left, bottom, right, top = (float(v) for v in outline.total_bounds)
            bounds = (left, bottom, right, top)
        grid = grid_of_bounds(crs, bounds, area.cell_m)
        valid = np.ones(grid.shape, dtype=bool)
    studied = valid if outline is None else valid & inside(grid, list(outline.geometry))
    if not studied.any():
        raise GridError("the study area holds no cell", "check 'polygon', 'like' and bounds")
    return grid, studied


def training(occurrences: Occurrences, folder: Path, grid: ProjectGrid, studied: Bools) -> Training:
    """Returns the occurrences counted on the grid.

    Raises:
        OccurrenceError: Fewer than 5 lie inside the study area, or the file has no points.
    """
    x_m, y_m = _points(occurrences, folder, grid.crs)
    cells = grid.cells(x_m, y_m)
    valid = cells >= 0
    valid[valid] = studied.ravel()[cells[valid]]
    used = int(valid.sum())
    if used < MIN_OCCURRENCES:
        raise OccurrenceError(
            f"{used} of {len(cells)} occurrences of {occurrences.path} lie inside the study area, "
            f"fewer than {MIN_OCCURRENCES}",
            "check their CRS and the area's bounds, or widen the area",
        )
    count = np.bincount(cells[valid], minlength=grid.width * grid.height).reshape(grid.shape)
    shared = used - int((count > 0).sum())
    return Training(count.astype(np.int32), used, len(cells) - used, shared)


def _grid_like(path: Path) -> tuple[ProjectGrid, Bools]:
    """Returns a raster's own grid, and where its first band has a value."""
    try:
        with rasterio.open(path) as data:
            t, crs, width, height = data.transform, data.crs, data.width, data.height
            valid = data.read_masks(1) > 0
    except RasterioIOError as error:
        raise GridError(f"cannot read {path}: {error}", "correct 'like'") from error
    if crs is None:
        raise GridError(f"{path} names no CRS", "give crs, cell_m and bounds_m instead of 'like'")
    if abs(t.a + t.e) > 1e-6 * t.a or t.b or t.d:
        raise GridError(
            f"{path} has cells of {t.a:g} × {t.e:g} m: not square and north up",
            "give crs, cell_m and bounds_m instead of 'like'",
        )
    return ProjectGrid(CRS.from_user_input(crs.to_wkt()), t.c, t.f, t.a, width, height), valid


def _outline(area: Area, folder: Path, crs: CRS) -> geopandas.GeoDataFrame | None:
    if area.polygon is None:
        return None
    return read_features(folder / area.polygon, crs, what="area.polygon")


def _points(occurrences: Occurrences, folder: Path, crs: CRS) -> tuple[Floats, Floats]:
    """Returns x and y of the occurrences in the area's CRS."""
    path = folder / occurrences.path
    if path.suffix.lower() == ".csv":
        frame = _csv_points(path, occurrences.crs or crs)
        frame = frame.to_crs(crs)
    else:
        frame = read_features(
            path, crs, what="occurrences", layer=occurrences.layer, own_crs=occurrences.crs
        )
    kinds = set(frame.geom_type)
    if kinds - {"Point", "MultiPoint"}:
        raise OccurrenceError(
            f"{path.name} holds {', '.join(sorted(kinds))}, not points", "give points"
        )
    points = frame.explode(index_parts=False).geometry
    return np.asarray(points.x, dtype=np.float64), np.asarray(points.y, dtype=np.float64)


def _csv_points(path: Path, crs: CRS | str) -> geopandas.GeoDataFrame:
    """Returns the points of a CSV table with ``x_m,y_m`` or ``lat_deg,lon_deg``."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            table = csv.DictReader(text)
            columns = list(table.fieldnames or [])
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OccurrenceError(f"cannot read {path}: {error}", "check the file") from error
    for x, y, its_crs in (("x_m", "y_m", crs), ("lon_deg", "lat_deg", "EPSG:4326")):
        if x in columns and y in columns:
            points = geopandas.points_from_xy(*_numbers(path, rows, x, y))
            return geopandas.GeoDataFrame(geometry=points, crs=its_crs)
    raise OccurrenceError(
        f"{path.name} has columns {', '.join(columns) or 'none'}",
        "it needs x_m,y_m or lat_deg,lon_deg",
    )


def _numbers(path: Path, rows: list[dict[str, str]], *names: str) -> list[list[float]]:
    """Returns columns of a CSV table as numbers."""
    columns: list[list[float]] = [[] for _ in names]
    for line, row in enumerate(rows, start=2):
        for column, name in zip(columns, names, strict=True):
            try:
                value = float(row[name])
            except (TypeError, ValueError):
                value = math.nan
            if not math.isfinite(value):
                raise OccurrenceError(
                    f"{path.name}, line {line}: {name} = {row[name]!r} is no number",
                    "correct or drop that row",
                )
            column.append(value)
    return columns
