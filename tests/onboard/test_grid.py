"""Grids: pixels and map agree, survey grids are shared, rasters that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import CRS
from rasterio import Affine

from gossan.errors import DamagedDataError, UserError
from onboard.place.grid import Grid

UTM = CRS.from_epsg(32615)


def test_bounds_are_covered_and_on_multiples_of_the_pixel() -> None:
    grid = Grid.from_bounds(UTM, (100.03, 200.07, 101.0, 202.21), 0.1)
    left, bottom, right, top = grid.bounds_m
    assert left <= 100.03 < left + 0.1
    assert right - 0.1 < 101.0 <= right + 1e-9
    assert bottom <= 200.07 < bottom + 0.1
    assert top - 0.1 < 202.21 <= top + 1e-9
    assert np.allclose(np.array(grid.bounds_m) / 0.1, np.round(np.array(grid.bounds_m) / 0.1))


def test_neighbouring_frames_share_one_grid() -> None:
    a = Grid.from_bounds(UTM, (100.03, 200.0, 110.0, 210.0), 0.07)
    b = Grid.from_bounds(UTM, (104.9, 203.3, 120.0, 220.0), 0.07)
    shift = a.to_pixel(np.array([[b.x0_m, b.y0_m]]))[0]
    assert np.allclose(shift, np.round(shift), atol=1e-6)


def test_pixel_and_map_round_trip_and_transform_agree() -> None:
    grid = Grid(UTM, 500000.5, 4000000.5, 0.25, 30, 20)
    uv = np.array([[0.0, 0.0], [29.0, 19.0], [3.25, 7.5]])
    assert np.allclose(grid.to_pixel(grid.to_map(uv)), uv)
    a = grid.transform
    assert (a.c + a.a / 2, a.f + a.e / 2) == (500000.5, 4000000.5)
    assert grid.y_m[0] > grid.y_m[-1]
    assert grid.x_m.shape == (30,)


def test_from_raster_is_the_raster_s_grid(tmp_path: Path) -> None:
    grid = Grid(UTM, 576665.075, 5188175.925, 0.05, 17, 13)
    _raster(tmp_path / "a.tif", grid.transform, UTM.to_wkt())
    assert Grid.from_raster(tmp_path / "a.tif") == grid


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        pytest.param(Affine(0.1, 0, 0, 0, -0.1, 0), None, id="no-crs"),
        pytest.param(Affine(0.1, 0, 0, 0, -0.1, 0), "EPSG:4326", id="degrees"),
        pytest.param(Affine(0.1, 0, 0, 0, -0.2, 0), "EPSG:32615", id="oblong"),
        pytest.param(Affine(0.1, 0.05, 0, 0, -0.1, 0), "EPSG:32615", id="turned"),
        pytest.param(Affine(0.1, 0, 0, 0, 0.1, 0), "EPSG:32615", id="south-up"),
    ],
)
def test_rasters_that_are_no_grid_are_refused(
    tmp_path: Path, transform: Affine, crs: str | None
) -> None:
    _raster(tmp_path / "a.tif", transform, crs)
    with pytest.raises(UserError):
        Grid.from_raster(tmp_path / "a.tif")


def test_unreadable_raster_is_damaged_data(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"no tiff")
    with pytest.raises(DamagedDataError):
        Grid.from_raster(tmp_path / "a.tif")


@pytest.mark.parametrize("gsd", [0.0, -1.0, float("nan")])
def test_pixel_size_must_be_positive(gsd: float) -> None:
    with pytest.raises(UserError):
        Grid(UTM, 0.0, 0.0, gsd, 10, 10)


def test_a_grid_that_no_machine_holds_is_refused() -> None:
    with pytest.raises(UserError, match="too large"):
        Grid.from_bounds(UTM, (0, 0, 1e6, 1e6), 0.01)


def _raster(path: Path, transform: Affine, crs: str | None) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", width=17, height=13, count=1, dtype="uint8",
        transform=transform, crs=crs,
    ) as raster:  # fmt: skip
        raster.write(np.zeros((1, 13, 17), np.uint8))
