"""Raster layers warped onto the project grid, with what is missing kept missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.warp import reproject

from groundsync.errors import LayerError
from groundsync.grid import Bools, ProjectGrid
from groundsync.prior.settings import Layer

VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".csv")
NO_CODE = int(np.iinfo(np.int32).min)
FINER = 0.5
"""A raster whose pixels are smaller than this share of a cell is averaged, not sampled."""

Band = NDArray[Any]


def is_raster(path: Path) -> bool:
    """Returns whether rasterio opens the file and finds bands in it.

    Raises:
        LayerError: There is no such file.
    """
    if not path.exists():
        raise LayerError(f"there is no file {path}", "check the path in priors.toml")
    if path.suffix.lower() in VECTORS:
        return False
    try:
        with rasterio.open(path) as data:
            return bool(data.count > 0)
    except RasterioIOError:
        return False


def warped(layer: Layer, path: Path, grid: ProjectGrid) -> tuple[Band, Bools, tuple[str, ...]]:
    """Returns (values, missing, notes) of a raster band on the grid.

    Codes (``categorical``) are int32 and taken from the nearest pixel, or from most pixels where
    the raster is much finer than the grid; measurements are float32, bilinear or averaged.

    Raises:
        LayerError: The band, its CRS or its values cannot be used, or none lies in the area.
    """
    band, transform, crs, nodata = _read(layer, path)
    void = _void(band, nodata)
    codes = layer.kind == "categorical"
    if codes and np.issubdtype(band.dtype, np.floating) and (band[~void] % 1 != 0).any():
        raise LayerError(
            f"layer '{layer.name}': {path.name} holds fractions, not codes of classes",
            "use kind = 'continuous'",
        )
    fine = _pixel_m(transform, crs, band.shape, grid) < FINER * grid.cell_m
    how = (
        (Resampling.nearest, Resampling.mode)
        if codes
        else (Resampling.bilinear, Resampling.average)
    )
    source = np.full(band.shape, NO_CODE if codes else np.nan, np.int32 if codes else np.float32)
    source[~void] = band[~void]
    seen = _onto(grid, ~void, transform, crs, Resampling.nearest, np.uint8) > 0
    values = _onto(grid, source, transform, crs, how[fine], source.dtype)
    if fine:
        seen = values != NO_CODE if codes else np.isfinite(values)
    if not seen.any():
        raise LayerError(
            f"layer '{layer.name}': {path.name} has no value inside the study area",
            "check its CRS and the area's bounds",
        )
    word = "the most frequent" if codes else "the mean"
    notes = (f"finer than the cells: each takes {word} of its pixels",) if fine else ()
    return values, ~seen, notes


def _read(layer: Layer, path: Path) -> tuple[Band, Any, CRS, float | None]:
    """Returns a band as it is stored, its transform, CRS and NoData value."""
    what = f"layer '{layer.name}'"
    try:
        with rasterio.open(path) as data:
            if layer.band > data.count:
                raise LayerError(
                    f"{what}: {path.name} has {data.count} bands, not {layer.band}",
                    "correct 'band'",
                )
            stated = layer.crs or (data.crs.to_wkt() if data.crs else None)
            if stated is None:
                raise LayerError(f"{what}: {path.name} names no CRS", "say it with the key 'crs'")
            nodata = layer.nodata if layer.nodata is not None else data.nodata
            return data.read(layer.band), data.transform, CRS.from_user_input(stated), nodata
    except RasterioIOError as error:
        raise LayerError(f"{what}: cannot read {path}: {error}", "check the file") from error
    except CRSError as error:
        raise LayerError(f"{what}: unknown CRS '{layer.crs}'", "use EPSG:… or WKT") from error


def _void(band: Band, nodata: float | None) -> Bools:
    """Returns where a band has no value."""
    void = np.zeros(band.shape, dtype=bool)
    if np.issubdtype(band.dtype, np.floating):
        void |= ~np.isfinite(band)
    if nodata is not None and np.isfinite(nodata):
        void |= band == nodata
    return void


def _pixel_m(transform: Any, crs: CRS, shape: tuple[int, ...], grid: ProjectGrid) -> float:
    """Returns the side of the raster's middle pixel on the grid's map, metres."""
    row, col = shape[0] // 2, shape[1] // 2
    cols, rows = np.array([col, col + 1, col]), np.array([row, row, row + 1])
    x = transform.c + transform.a * cols + transform.b * rows
    y = transform.f + transform.d * cols + transform.e * rows
    if not crs.equals(grid.crs):
        move = Transformer.from_crs(crs, grid.crs, always_xy=True)
        x, y = move.transform(x, y)
    one = np.hypot(x[1] - x[0], y[1] - y[0])
    other = np.hypot(x[2] - x[0], y[2] - y[0])
    return float(max(one, other)) if np.isfinite([one, other]).all() else grid.cell_m


def _onto(
    grid: ProjectGrid, source: Band, transform: Any, crs: CRS, resampling: Resampling, dtype: Any
) -> Band:
    """Returns an array warped onto the grid; cells without a value are NaN, NO_CODE or 0."""
    empty = {"f": np.nan, "i": NO_CODE}.get(np.dtype(dtype).kind, 0)
    result = np.full(grid.shape, empty, dtype=dtype)
    reproject(
        source.astype(dtype, copy=False),
        result,
        src_transform=transform,
        src_crs=crs.to_wkt(),
        dst_transform=grid.transform,
        dst_crs=grid.crs.to_wkt(),
        src_nodata=empty if empty != 0 else None,
        dst_nodata=empty,
        resampling=resampling,
    )
    return result
