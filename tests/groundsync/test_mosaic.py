"""The mosaic takes each pixel from the frame that sees it best."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pyproj import CRS

from groundsync.mosaic import Tile, lay_together, mosaic_grid
from onboard.place.grid import Grid

UTM = CRS.from_epsg(32611)


def plain_tile(x0_m: float, value: int, side: int = 20) -> Tile:
    grid = Grid(UTM, x0_m, 4_150_000.5, 1.0, side, side)
    return Tile(np.full((side, side, 3), value, np.uint8), np.ones((side, side), bool), grid)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["west first", "east first"])
def test_the_seam_runs_half_way_whatever_the_order(order: tuple[int, int]) -> None:
    tiles = [plain_tile(500_000.5, 50), plain_tile(500_010.5, 200)]
    grid = mosaic_grid(UTM, (500_000.0, 4_149_981.0, 500_030.0, 4_150_001.0), 1.0)
    mosaic = lay_together([tiles[i] for i in order], grid)
    middle = mosaic.image[10, :, 0]
    assert (middle[:14] == 50).all()
    assert (middle[16:] == 200).all()
    assert mosaic.mask.all()


def test_what_no_frame_saw_is_transparent(tmp_path: Path) -> None:
    grid = mosaic_grid(UTM, (500_000.0, 4_149_981.0, 500_060.0, 4_150_001.0), 1.0)
    mosaic = lay_together([plain_tile(500_000.5, 50)], grid)
    mosaic.write_png(tmp_path / "m.png")
    back = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert back.shape == (20, 60, 4)
    assert (back[:, :20, 3] == 255).all()
    assert (back[:, 20:, 3] == 0).all()


def test_a_large_area_gets_coarser_pixels_and_the_corners_are_geographic() -> None:
    grid = mosaic_grid(UTM, (500_000.0, 4_140_000.0, 510_000.0, 4_150_000.0), 0.1, 1000)
    assert max(grid.width, grid.height) <= 1000
    mosaic = lay_together([], grid)
    lon, lat = np.array(mosaic.corners_lon_lat()).T
    assert lon[0] == pytest.approx(-117.0, abs=1e-6)  # the central meridian of zone 11
    assert lat[0] > lat[3]
