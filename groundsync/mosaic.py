"""One picture per flight: its orthos laid together, each pixel from the frame that sees it best.

Best means farthest from the edge of what the frame saw, so seams run half-way between frames.
Blending and colour balance are left to a later version; nothing is sharpened or invented.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from calibration.geodesy import MapFrame
from onboard.place.grid import Grid

MAX_SIDE_PX = 4096


@dataclass(frozen=True, slots=True)
class Tile:
    """One frame's ortho, on a grid aligned with the mosaic's.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        mask: (h, w) True where it was seen.
        grid: Where its pixels lie.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    grid: Grid


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The laid-together picture.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        mask: (h, w) True where any frame saw the ground.
        grid: Where its pixels lie.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    grid: Grid

    def corners_lon_lat(self) -> tuple[tuple[float, float], ...]:
        """Returns (lon, lat) in degrees of the outer corners, clockwise from the top left."""
        left, bottom, right, top = self.grid.bounds_m
        x = np.array([left, right, right, left])
        y = np.array([top, top, bottom, bottom])
        lat, lon = MapFrame(self.grid.crs).to_geographic(x, y)
        return tuple((float(a), float(b)) for a, b in zip(lon, lat, strict=True))

    def write_png(self, path: Path) -> None:
        """Writes the picture with transparency where nothing was seen."""
        alpha = self.mask.astype(np.uint8) * 255
        bgra = np.dstack([self.image[..., ::-1], alpha])
        done, data = cv2.imencode(".png", bgra, [cv2.IMWRITE_PNG_COMPRESSION, 6])
        if not done:
            raise ValueError(f"the mosaic of {self.image.shape} could not be encoded as PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(data.tobytes())
        part.replace(path)


def mosaic_grid(
    crs: CRS,
    bounds_m: tuple[float, float, float, float],
    gsd_m: float,
    max_side_px: int = MAX_SIDE_PX,
) -> Grid:
    """Returns the grid of the mosaic: the wanted pixel size, coarser where the area is too large.

    Args:
        crs: The flight's CRS.
        bounds_m: Left, bottom, right, top of the imaged ground.
        gsd_m: The wanted pixel size.
        max_side_px: The longest side allowed.
    """
    side_m = max(bounds_m[2] - bounds_m[0], bounds_m[3] - bounds_m[1])
    return Grid.from_bounds(crs, bounds_m, max(gsd_m, side_m / (max_side_px - 2)))


def lay_together(tiles: Iterable[Tile], grid: Grid) -> Mosaic:
    """Returns the mosaic of tiles whose grids have its pixel size and alignment.

    Args:
        tiles: The orthos, in any order; the result does not depend on it but for ties.
        grid: The mosaic's grid.
    """
    image = np.zeros((grid.height, grid.width, 3), np.uint8)
    best = np.zeros((grid.height, grid.width), np.float32)
    for tile in tiles:
        _lay(tile, grid, image, best)
    return Mosaic(image, best > 0, grid)


def _lay(tile: Tile, grid: Grid, image: NDArray[np.uint8], best: NDArray[np.float32]) -> None:
    col = round((tile.grid.x0_m - grid.x0_m) / grid.gsd_m)
    row = round((grid.y0_m - tile.grid.y0_m) / grid.gsd_m)
    c0, c1 = max(col, 0), min(col + tile.grid.width, grid.width)
    r0, r1 = max(row, 0), min(row + tile.grid.height, grid.height)
    if c0 >= c1 or r0 >= r1:
        return
    part = np.s_[r0 - row : r1 - row, c0 - col : c1 - col]
    padded = np.pad(tile.mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1][part]
    there = best[r0:r1, c0:c1]
    better = depth > there
    image[r0:r1, c0:c1][better] = tile.image[part][better]
    there[better] = depth[better]
