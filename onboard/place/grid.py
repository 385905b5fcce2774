"""North-up pixel grids on the map: where each output pixel's centre lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS
from rasterio import Affine

from gossan.errors import DamagedDataError, UserError
from onboard.records import Floats

MAX_PIXELS = 2**31


@dataclass(frozen=True, slots=True)
class Grid:
    """A north-up grid of square pixels in a projected CRS.

    Attributes:
        crs: The map's CRS.
        x0_m: Map x of the centre of pixel [0, 0].
        y0_m: Map y of the centre of pixel [0, 0].
        gsd_m: Pixel size.
        width: Columns.
        height: Rows.
    """

    crs: CRS
    x0_m: float
    y0_m: float
    gsd_m: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not (self.gsd_m > 0 and math.isfinite(self.gsd_m)):
            raise UserError(
                f"a pixel size of {self.gsd_m} m cannot be used", "give a --gsd above 0"
            )
        if self.width < 1 or self.height < 1:
            raise UserError(f"a grid of {self.width} x {self.height} pixels holds nothing")
        if self.width * self.height > MAX_PIXELS:
            raise UserError(
                f"a grid of {self.width} x {self.height} pixels is too large",
                f"give a --gsd above {self.gsd_m} m",
            )

    @classmethod
    def from_bounds(
        cls, crs: CRS, bounds_m: tuple[float, float, float, float], gsd_m: float
    ) -> Grid:
        """Returns the grid that covers bounds, its pixel edges on multiples of the pixel size.

        Frames of one survey at one pixel size so share one grid.

        Args:
            crs: The map's CRS.
            bounds_m: Map x and y: left, bottom, right, top.
            gsd_m: Pixel size.
        """
        left, bottom, right, top = bounds_m
        if not all(map(math.isfinite, bounds_m)) or right < left or top < bottom:
            raise UserError(f"no grid can cover the bounds {bounds_m}")
        col0, row0 = math.floor(left / gsd_m), math.floor(-top / gsd_m)
        width = max(1, math.ceil(right / gsd_m) - col0)
        height = max(1, math.ceil(-bottom / gsd_m) - row0)
        return cls(crs, (col0 + 0.5) * gsd_m, -(row0 + 0.5) * gsd_m, gsd_m, width, height)

    @classmethod
    def from_footprint(cls, crs: CRS, xy_m: Floats, gsd_m: float) -> Grid:
        """Returns the grid that covers points or an outline (n, 2) of map x, y."""
        xy = np.asarray(xy_m)[np.isfinite(xy_m).all(axis=1)]
        if not len(xy):
            raise UserError("no grid can cover an empty footprint")
        (left, bottom), (right, top) = xy.min(axis=0), xy.max(axis=0)
        return cls.from_bounds(crs, (left, bottom, right, top), gsd_m)

    @classmethod
    def from_raster(cls, path: Path) -> Grid:
        """Returns the grid of a raster file.

        Raises:
            UserError: The raster has no projected CRS, is turned, or its pixels are not square.
            DamagedDataError: The file cannot be read.
        """
        try:
            with rasterio.open(path) as raster:
                a, wkt = raster.transform, raster.crs.to_wkt() if raster.crs else ""
                width, height = raster.width, raster.height
        except rasterio.errors.RasterioError as error:
            raise DamagedDataError(f"cannot read {path}: {error}", "give another --like") from error
        crs = CRS.from_user_input(wkt) if wkt else None
        if crs is None or not crs.is_projected:
            raise UserError(f"{path} has no projected CRS", "give a raster in metres, UTM say")
        if abs(a.b) + abs(a.d) > 1e-9 * abs(a.a) or a.e >= 0 or abs(a.a + a.e) > 1e-6 * a.a:
            raise UserError(f"{path} is not north-up with square pixels: {tuple(a)[:6]}")
        return cls(crs, a.c + a.a / 2, a.f + a.e / 2, a.a, width, height)

    @property
    def transform(self) -> Affine:
        """Affine from pixel corners (column, row) to map x, y, as GDAL has it."""
        g = self.gsd_m
        return Affine(g, 0.0, self.x0_m - g / 2, 0.0, -g, self.y0_m + g / 2)

    @property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """Map x and y of the outer pixel edges: left, bottom, right, top."""
        g = self.gsd_m
        left, top = self.x0_m - g / 2, self.y0_m + g / 2
        return left, top - self.height * g, left + self.width * g, top

    @property
    def x_m(self) -> Floats:
        """(width,) map x of the pixel centres."""
        return np.asarray(self.x0_m + self.gsd_m * np.arange(self.width), np.float64)

    @property
    def y_m(self) -> Floats:
        """(height,) map y of the pixel centres, from the top row down."""
        return np.asarray(self.y0_m - self.gsd_m * np.arange(self.height), np.float64)

    def to_map(self, uv: Floats) -> Floats:
        """Returns (n, 2) map x, y of grid pixels (n, 2) as (column, row)."""
        return np.asarray(uv, float) * (self.gsd_m, -self.gsd_m) + (self.x0_m, self.y0_m)

    def to_pixel(self, xy_m: Floats) -> Floats:
        """Returns (n, 2) grid pixels as (column, row) of map x, y (n, 2)."""
        return (np.asarray(xy_m, float) - (self.x0_m, self.y0_m)) / (self.gsd_m, -self.gsd_m)

    def coarser(self, factor: float) -> Grid:
        """Returns the grid over the same ground with pixels ``factor`` times as large."""
        left, top = self.x0_m - self.gsd_m / 2, self.y0_m + self.gsd_m / 2
        g = self.gsd_m * factor
        width, height = math.ceil(self.width / factor), math.ceil(self.height / factor)
        return Grid(self.crs, left + g / 2, top - g / 2, g, width, height)
