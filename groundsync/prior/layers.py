"""Map layers on the project grid: every cell one class of each layer, or missing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt

from groundsync.errors import LayerError
from groundsync.grid import Bools, ProjectGrid
from groundsync.prior.rasters import is_raster, warped
from groundsync.prior.settings import Layer

log = logging.getLogger(__name__)

MISSING = -1
MAX_CLASSES = 32_000
DISTANCE_PAD_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class ClassedLayer:
    """One layer, cut into classes.

    Attributes:
        name: The layer's name.
        codes: (height, width) class number of each cell, −1 where the layer is missing.
        labels: Names of the classes.
        lower: Lower edge of each bin (exclusive), NaN for categorical classes.
        upper: Upper edge of each bin (inclusive), NaN for categorical classes.
        notes: What a reader should know of how it came onto the grid.
    """

    name: str
    codes: NDArray[np.int16]
    labels: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    notes: tuple[str, ...] = ()


def read_layer(layer: Layer, folder: Path, grid: ProjectGrid, studied: Bools) -> ClassedLayer:
    """Returns a layer's classes on the grid.

    One layer is held at a time, as 32-bit values; what stays is 16-bit class numbers.

    Args:
        layer: Its settings.
        folder: Where relative paths start.
        grid: The project grid.
        studied: (height, width) True inside the study area; bins are cut by these cells.

    Raises:
        LayerError: The file is unreadable, has no CRS, or lies wholly outside the area.
    """
    path = folder / layer.path
    raster = is_raster(path)
    if layer.kind == "distance":
        if raster:
            raise LayerError(
                f"layer '{layer.name}': {path.name} is a raster, and 'distance' takes vectors",
                "use kind = 'continuous' for a raster that holds distances",
            )
        values, notes = _distances(layer, path, grid)
        return _binned(layer, values, studied, notes)
    if layer.kind == "continuous":
        if not raster:
            raise LayerError(
                f"layer '{layer.name}': {path.name} is no raster, and 'continuous' takes one",
                "use kind = 'distance' or 'categorical' for vectors",
            )
        values, missing, notes = warped(layer, path, grid)
        values[missing] = np.nan
        return _binned(layer, values, studied, notes)
    if raster:
        codes, missing, notes = warped(layer, path, grid)
        return _coded(layer, codes, missing, studied, notes)
    return _polygons(layer, path, grid, studied)


def read_features(
    path: Path,
    crs: CRS,
    *,
    what: str,
    layer: str | None = None,
    where: str | None = None,
    own_crs: str | None = None,
) -> geopandas.GeoDataFrame:
    """Returns a vector file's features in the given CRS; ``what`` names it in errors.

    Raises:
        LayerError: The file is unreadable, empty, or has no CRS.
    """
    try:
        frame = geopandas.read_file(path, layer=layer, where=where)
    except (OSError, ValueError, RuntimeError) as error:
        raise LayerError(f"{what}: cannot read {path}: {error}", "check path and layer") from error
    if frame.crs is None:
        if own_crs is None:
            raise LayerError(f"{what}: {path.name} names no CRS", "say it with the key 'crs'")
        frame = frame.set_crs(own_crs)
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if frame.empty:
        raise LayerError(f"{what}: {path.name} holds no features", "check 'layer' and 'where'")
    return frame.to_crs(crs)


def _distances(
    layer: Layer, path: Path, grid: ProjectGrid
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Returns metres from each cell's centre to the nearest cell that a feature touches."""
    frame = read_features(
        path,
        grid.crs,
        what=f"layer '{layer.name}'",
        layer=layer.layer,
        where=layer.where,
        own_crs=layer.crs,
    )
    pad = ceil(DISTANCE_PAD_SHARE * max(grid.shape))
    wide = grid.padded(pad)
    touched = rasterize(
        [(g, 1) for g in frame.geometry],
        out_shape=wide.shape,
        transform=wide.transform,
        all_touched=True,
        dtype="uint8",
    )
    if not touched.any():
        raise LayerError(
            f"layer '{layer.name}': no feature of {path.name} within {pad * grid.cell_m:.0f} m "
            "of the study area",
            "check its CRS and the area's bounds",
        )
    away = distance_transform_edt(touched == 0) * grid.cell_m
    near = away[pad : pad + grid.height, pad : pad + grid.width]
    note = f"distances are between cell centres, good to about {0.7 * grid.cell_m:.0f} m"
    return near.astype(np.float32), (note,)


def _binned(
    layer: Layer, values: NDArray[Any], studied: Bools, notes: tuple[str, ...]
) -> ClassedLayer:
    """Returns a layer cut at its edges, or into bins of equal area."""
    known = np.isfinite(values)
    inside = values[known & studied]
    if not inside.size:
        raise LayerError(
            f"layer '{layer.name}' has no value inside the study area", "check its CRS"
        )
    if layer.edges is not None:
        edges = np.asarray(layer.edges, dtype=np.float64)
    else:
        cuts = np.quantile(inside, np.arange(1, layer.bins) / layer.bins)
        edges = np.unique(cuts[cuts < inside.max()].astype(np.float64))
        if len(edges) + 1 < layer.bins:
            notes = (*notes, f"ties leave {len(edges) + 1} of {layer.bins} bins of equal area")
    codes = np.searchsorted(edges, values, side="left").astype(np.int16)
    codes[~known] = MISSING
    lower = (-np.inf, *edges.tolist())
    upper = (*edges.tolist(), np.inf)
    labels = tuple(_bin_label(a, b) for a, b in zip(lower, upper, strict=True))
    return ClassedLayer(layer.name, codes, labels, lower, upper, notes)


def _bin_label(lower: float, upper: float) -> str:
    if not np.isfinite(lower):
        return f"<= {upper:g}"
    return f"> {lower:g}" if not np.isfinite(upper) else f"{lower:g} to {upper:g}"


def _coded(
    layer: Layer,
    values: NDArray[Any],
    missing: Bools,
    studied: Bools,
    notes: tuple[str, ...],
    names: tuple[str, ...] | None = None,
) -> ClassedLayer:
    """Returns a categorical layer; classes are the values that occur in the study area."""
    found, inverse = np.unique(values[studied & ~missing], return_inverse=True)
    if not 0 < len(found) <= MAX_CLASSES:
        raise LayerError(
            f"layer '{layer.name}' has {len(found)} classes in the study area",
            "a layer of measurements is kind = 'continuous'",
        )
    codes = np.full(values.shape, MISSING, dtype=np.int16)
    codes[studied & ~missing] = inverse
    labels = tuple(str(v) for v in found) if names is None else tuple(names[v] for v in found)
    blank = (float("nan"),) * len(found)
    return ClassedLayer(layer.name, codes, labels, blank, blank, notes)


def _polygons(layer: Layer, path: Path, grid: ProjectGrid, studied: Bools) -> ClassedLayer:
    """Returns a categorical layer of polygons: the class at each cell's centre."""
    what = f"layer '{layer.name}'"
    if layer.attribute is None:
        raise LayerError(f"{what}: which field names the class?", "say it with 'attribute'")
    frame = read_features(
        path, grid.crs, what=what, layer=layer.layer, where=layer.where, own_crs=layer.crs
    )
    if layer.attribute not in frame.columns:
        fields = ", ".join(str(c) for c in frame.columns if c != "geometry")
        raise LayerError(
            f"{what}: {path.name} has no field '{layer.attribute}'", f"its fields are: {fields}"
        )
    unnamed = frame[layer.attribute].isna()
    notes = (f"{int(unnamed.sum())} features without a class left out",) if unnamed.any() else ()
    frame = frame[~unnamed]
    names = tuple(sorted({str(v) for v in frame[layer.attribute]}))
    number = {name: i for i, name in enumerate(names)}
    shapes = [
        (g, number[str(v)] + 1) for g, v in zip(frame.geometry, frame[layer.attribute], strict=True)
    ]
    burnt = rasterize(shapes, out_shape=grid.shape, transform=grid.transform, dtype="int32")
    if not (burnt[studied] > 0).any():
        raise LayerError(
            f"{what}: no polygon of {path.name} covers the study area", "check its CRS"
        )
    return _coded(layer, burnt - 1, burnt == 0, studied, notes, names)
