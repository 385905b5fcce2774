"""The project grid: square cells in a projected CRS, and polygons turned into coverage of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from rasterio import Affine
from rasterio.features import rasterize
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry
from shapely.strtree import STRtree

from groundsync.errors import GridError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TILE_CELLS = 512
SUBCELL_M = 2.0
MAX_SUBCELLS = 32
LOOK_SUBCELLS = 8


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of cells: rows ``row0`` to ``row1`` (exclusive), columns likewise."""

    row0: int
    row1: int
    col0: int
    col1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in a (height, width) array."""
        return slice(self.row0, self.row1), slice(self.col0, self.col1)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.row1 - self.row0, self.col1 - self.col0


@dataclass(frozen=True, slots=True)
class ProjectGrid:
    """Square cells in a projected CRS, rows from north to south.

    Attributes:
        crs: Projected, metres.
        x0: x of the outer left edge, metres.
        y0: y of the outer upper edge, metres.
        cell_m: Side of a cell.
        width: Columns.
        height: Rows.
    """

    crs: CRS
    x0: float
    y0: float
    cell_m: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not self.crs.is_projected or self.crs.axis_info[0].unit_name != "metre":
            raise GridError(
                f"the grid's CRS {self.crs.name} is not projected in metres",
                "name a projected CRS, the UTM zone for example",
            )
        if not (self.cell_m > 0 and self.width > 0 and self.height > 0):
            raise GridError(
                f"a grid of {self.width} × {self.height} cells of {self.cell_m} m has no area",
                "check bounds and cell size",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def cell_km2(self) -> float:
        """Area of a cell, km²."""
        return self.cell_m**2 / 1e6

    @property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """(x min, y min, x max, y max) of the outer edges."""
        x1 = self.x0 + self.width * self.cell_m
        return self.x0, self.y0 - self.height * self.cell_m, x1, self.y0

    @property
    def transform(self) -> Affine:
        """Pixel corner to map, as rasterio has it."""
        return Affine(self.cell_m, 0.0, self.x0, 0.0, -self.cell_m, self.y0)

    def rows_cols(self, x_m: Floats, y_m: Floats) -> tuple[Ints, Ints]:
        """Returns rows and columns of map points; outside the grid they are out of range."""
        cols = np.floor((np.asarray(x_m) - self.x0) / self.cell_m).astype(np.int64)
        rows = np.floor((self.y0 - np.asarray(y_m)) / self.cell_m).astype(np.int64)
        return rows, cols

    def cells(self, x_m: Floats, y_m: Floats) -> Ints:
        """Returns flat cell numbers (row · width + column) of map points, −1 outside the grid."""
        rows, cols = self.rows_cols(x_m, y_m)
        inside = (rows >= 0) & (rows < self.height) & (cols >= 0) & (cols < self.width)
        return np.where(inside, rows * self.width + cols, -1)

    def centres(self, window: Window | None = None) -> tuple[Floats, Floats]:
        """Returns x of the columns' and y of the rows' centres, (columns,) and (rows,)."""
        w = window or Window(0, self.height, 0, self.width)
        x = self.x0 + (np.arange(w.col0, w.col1) + 0.5) * self.cell_m
        y = self.y0 - (np.arange(w.row0, w.row1) + 0.5) * self.cell_m
        return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)

    def windows(self, tile_cells: int = TILE_CELLS) -> Iterator[Window]:
        """Yields windows of at most ``tile_cells`` squared that tile the grid."""
        for row in range(0, self.height, tile_cells):
            for col in range(0, self.width, tile_cells):
                row1 = min(row + tile_cells, self.height)
                yield Window(row, row1, col, min(col + tile_cells, self.width))

    def window_of(self, bounds_m: tuple[float, float, float, float]) -> Window | None:
        """Returns the window of cells that touch map bounds, ``None`` where none does."""
        left, bottom, right, top = bounds_m
        col0 = max(floor((left - self.x0) / self.cell_m), 0)
        col1 = min(ceil((right - self.x0) / self.cell_m), self.width)
        row0 = max(floor((self.y0 - top) / self.cell_m), 0)
        row1 = min(ceil((self.y0 - bottom) / self.cell_m), self.height)
        return Window(row0, row1, col0, col1) if row1 > row0 and col1 > col0 else None

    def padded(self, cells: int) -> ProjectGrid:
        """Returns the grid with this many more cells on every side."""
        return ProjectGrid(
            self.crs,
            self.x0 - cells * self.cell_m,
            self.y0 + cells * self.cell_m,
            self.cell_m,
            self.width + 2 * cells,
            self.height + 2 * cells,
        )

    def window_transform(self, window: Window, subcells: int = 1) -> Affine:
        """Returns the transform of a window whose cells are cut into ``subcells`` squared."""
        size = self.cell_m / subcells
        x = self.x0 + window.col0 * self.cell_m
        return Affine(size, 0.0, x, 0.0, -size, self.y0 - window.row0 * self.cell_m)


def grid_of_bounds(
    crs: CRS, bounds_m: tuple[float, float, float, float], cell_m: float
) -> ProjectGrid:
    """Returns the grid from the upper left of the bounds, moved out to whole cells.

    Raises:
        GridError: The bounds or the cell size have no area.
    """
    left, bottom, right, top = bounds_m
    if not (cell_m > 0 and right > left and top > bottom):
        raise GridError(
            f"bounds {bounds_m} with cells of {cell_m} m have no area",
            "give x min, y min, x max, y max in metres of the area's CRS",
        )
    width = ceil((right - left) / cell_m - 1e-9)
    height = ceil((top - bottom) / cell_m - 1e-9)
    return ProjectGrid(crs, left, top, cell_m, width, height)


def inside(grid: ProjectGrid, polygons: Sequence[BaseGeometry]) -> Bools:
    """Returns (height, width), True where a cell's centre lies in one of the polygons."""
    shapes = [(p, 1) for p in polygons if not p.is_empty]
    if not shapes:
        return np.zeros(grid.shape, dtype=bool)
    burnt = rasterize(shapes, out_shape=grid.shape, transform=grid.transform, dtype="uint8")
    return np.asarray(burnt, dtype=bool)


def coverage_fraction(
    grid: ProjectGrid, polygons: Sequence[BaseGeometry], subcells: int | None = None
) -> NDArray[np.float32]:
    """Returns the fraction of each cell that the union of polygons covers, (height, width).

    Each cell is sampled at ``subcells`` squared points (by default one per 2 m, between 8 and 32
    a side): a fraction is exact to about 1/subcells, and exactly 0 where no polygon comes near.
    Holes of one polygon are filled where another covers them. Works tile by tile.
    """
    fraction = np.zeros(grid.shape, dtype=np.float32)
    kept = [p for p in polygons if not p.is_empty]
    if not kept:
        return fraction
    s = subcells or int(np.clip(ceil(grid.cell_m / SUBCELL_M), LOOK_SUBCELLS, MAX_SUBCELLS))
    tree = STRtree(kept)
    for tile in _touched_tiles(grid, kept, max(1, 2048 // s)):
        near = tree.query(_box(grid, tile))
        if len(near):
            shapes: list[tuple[Any, int]] = [(kept[int(i)], 1) for i in np.sort(near)]
            fraction[tile.slices] = _sampled(grid, tile, shapes, s)
    return fraction


def _sampled(
    grid: ProjectGrid, tile: Window, shapes: list[tuple[Any, int]], s: int
) -> NDArray[np.float32]:
    """Returns the covered share of each cell of a tile, from s × s samples a cell."""
    rows, cols = tile.shape
    fine = rasterize(
        shapes,
        out_shape=(rows * s, cols * s),
        transform=grid.window_transform(tile, s),
        dtype="uint8",
    )
    return np.asarray(fine.reshape(rows, s, cols, s).mean(axis=(1, 3)), dtype=np.float32)


def _touched_tiles(
    grid: ProjectGrid, polygons: Sequence[BaseGeometry], tile_cells: int
) -> Iterator[Window]:
    """Yields the tiles of the window that holds all polygons."""
    bounds = np.array([p.bounds for p in polygons])
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    whole = grid.window_of((low[0], low[1], high[0], high[1]))
    if whole is None:
        return
    for row in range(whole.row0, whole.row1, tile_cells):
        for col in range(whole.col0, whole.col1, tile_cells):
            row1 = min(row + tile_cells, whole.row1)
            yield Window(row, row1, col, min(col + tile_cells, whole.col1))


def _box(grid: ProjectGrid, tile: Window) -> BaseGeometry:
    """Returns the tile's outline as a polygon."""
    left = grid.x0 + tile.col0 * grid.cell_m
    top = grid.y0 - tile.row0 * grid.cell_m
    rows, cols = tile.shape
    outline: BaseGeometry = box(left, top - rows * grid.cell_m, left + cols * grid.cell_m, top)
    return outline
