"""Reads DEM files as posts: heights, voids, horizontal CRS, vertical datum and unit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS, Transformer
from rasterio.errors import RasterioError
from rasterio.windows import Window

from calibration.geodesy import horizontal_crs
from onboard.errors import DemError
from onboard.records import Floats, HeightDatum

UNDECLARED_VOIDS = (-9999.0, -32767.0, -32768.0)
"""Heights that mean "none" in files which forget to say so."""

UNLIKELY_M = 1e5
MAX_POSTS = 250_000_000
FEET_M = {"ft": 0.3048, "foot": 0.3048, "feet": 0.3048, "us survey foot": 1200.0 / 3937.0}
VERTICAL_EPSG: dict[int, HeightDatum] = {5773: "egm96", 3855: "egm2008"}
TAGGED_DATUMS: dict[str, HeightDatum] = {
    "ellipsoid": "ellipsoid",
    "egm96": "egm96",
    "egm2008": "egm2008",
    "takeoff": "takeoff",
    "same": "same",
}
WINDOW_MARGIN_POSTS = 2


@dataclass(frozen=True, slots=True)
class DemFile:
    """Posts as they lie in the file, turned north-up.

    Attributes:
        z: (h, w) heights in metres, NaN where void.
        x0: x of post [0, 0] in ``crs`` (longitude, where that is geographic).
        y0: y of post [0, 0].
        dx: Spacing along x, positive.
        dy: Spacing along y, negative.
        crs: The horizontal CRS.
        datum: The vertical datum the file names, or ``None``.
        label: First eight digits of the file's SHA-256.
        undeclared_voids: Posts with a height that means "none" though the file does not say so.
    """

    z: Floats
    x0: float
    y0: float
    dx: float
    dy: float
    crs: CRS
    datum: HeightDatum | None
    label: str
    undeclared_voids: int


def read_dem(
    path: Path, map_crs: CRS, window: tuple[float, float, float, float] | None = None
) -> DemFile:
    """Returns the posts of a DEM file.

    Args:
        path: Any raster with one band of heights.
        map_crs: The map's CRS, in which ``window`` is given.
        window: Map x0, y0, x1, y1 of what is needed; everything where ``None``.

    Raises:
        DemError: The file is missing, unreadable, has no CRS, is turned, too large or empty.
    """
    if not path.exists():
        raise DemError(f"there is no DEM at {path}", "check the path given with --dem")
    try:
        with rasterio.open(path) as data:
            return _read(path, data, map_crs, window)
    except RasterioError as error:
        raise DemError(f"{path} cannot be read as a DEM: {error}", "give a GeoTIFF") from error


def _read(
    path: Path,
    data: rasterio.DatasetReader,
    map_crs: CRS,
    window: tuple[float, float, float, float] | None,
) -> DemFile:
    if data.crs is None:
        raise DemError(
            f"the DEM {path} does not say its CRS",
            f"write it into the file: rio edit-info --crs EPSG:32632 {path.name}",
        )
    crs = CRS.from_user_input(data.crs.to_wkt(version="WKT2"))
    t = data.transform
    if abs(t.b) > 1e-9 * abs(t.a) or abs(t.d) > 1e-9 * abs(t.e) or t.a <= 0 or t.e >= 0:
        raise DemError(f"the DEM {path} is turned or mirrored", "make it north-up with gdalwarp")
    part = _window(path, data, horizontal_crs(crs), map_crs, window)
    if part.width * part.height > MAX_POSTS:
        raise DemError(
            f"{part.width}×{part.height} posts of {path} are too many to hold",
            "cut the DEM to the survey with gdalwarp -te",
        )
    raw = data.read(1, window=part, masked=True)
    z = np.ma.filled(raw.astype(np.float64), np.nan)
    strange = np.isin(z, UNDECLARED_VOIDS) | (np.abs(z) > UNLIKELY_M)
    z[strange] = np.nan
    z = (z * data.scales[0] + data.offsets[0]) * _unit_m(data, crs)
    return DemFile(
        z=z,
        x0=float(t.c + (part.col_off + 0.5) * t.a),
        y0=float(t.f + (part.row_off + 0.5) * t.e),
        dx=float(t.a),
        dy=float(t.e),
        crs=horizontal_crs(crs),
        datum=_vertical_datum(path, data, crs),
        label=_label(path),
        undeclared_voids=int(strange.sum()),
    )


def _window(
    path: Path,
    data: rasterio.DatasetReader,
    crs: CRS,
    map_crs: CRS,
    window: tuple[float, float, float, float] | None,
) -> Window:
    """Returns the file's pixels that cover a window of the map."""
    if window is None:
        return Window(0, 0, data.width, data.height)
    x0, y0, x1, y1 = Transformer.from_crs(map_crs, crs, always_xy=True).transform_bounds(*window)
    t = data.transform
    margin = WINDOW_MARGIN_POSTS
    col0 = max(0, int(np.floor((x0 - t.c) / t.a)) - margin)
    row0 = max(0, int(np.floor((y1 - t.f) / t.e)) - margin)
    col1 = min(data.width, int(np.ceil((x1 - t.c) / t.a)) + margin)
    row1 = min(data.height, int(np.ceil((y0 - t.f) / t.e)) + margin)
    if col1 - col0 < 2 or row1 - row0 < 2:
        raise DemError(
            f"the DEM {path} does not cover the survey: it spans {tuple(map(float, data.bounds))}, "
            f"needed is {x0:.6g}, {y0:.6g} to {x1:.6g}, {y1:.6g} in {crs.name}",
            "give the DEM of that place",
        )
    return Window(col0, row0, col1 - col0, row1 - row0)


def _unit_m(data: rasterio.DatasetReader, crs: CRS) -> float:
    """Returns metres per unit of height."""
    named = FEET_M.get((data.units[0] or "").strip().lower())
    if named is not None:
        return named
    for part in crs.sub_crs_list:
        if part.is_vertical:
            return float(part.axis_info[0].unit_conversion_factor)
    return 1.0


def _vertical_datum(path: Path, data: rasterio.DatasetReader, crs: CRS) -> HeightDatum | None:
    """Returns the datum of the heights that the file names, or ``None``.

    Raises:
        DemError: It names one that cannot be converted.
    """
    tagged = data.tags().get("VERTICAL_DATUM", "").strip().lower()
    if tagged in TAGGED_DATUMS:
        return TAGGED_DATUMS[tagged]
    if len(crs.axis_info) == 3 and not crs.is_compound:
        return "ellipsoid"
    for part in crs.sub_crs_list:
        if part.is_vertical:
            known = VERTICAL_EPSG.get(part.to_epsg() or 0)
            name = part.name.lower()
            if known is None and "ellipsoid" in name:
                known = "ellipsoid"
            if known is None and "egm96" in name:
                known = "egm96"
            if known is None and ("egm2008" in name or "egm08" in name):
                known = "egm2008"
            if known is None:
                raise DemError(
                    f"the DEM {path} has heights above '{part.name}', which is not known here",
                    "convert it to ellipsoidal heights, or name its nearest with --dem-datum",
                )
            return known
    return None


def _label(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:8]
