"""COGs: the pixels, mask, place and provenance come back exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import CRS

from gossan.errors import HardwareError
from onboard.place.grid import Grid
from onboard.write_cog import write_cog

GRID = Grid(CRS.from_epsg(32632), 500000.125, 5200000.125, 0.25, 700, 600)


@pytest.mark.parametrize("codec", ["deflate", "zstd", "lzw", "none"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_with_mask(tmp_path: Path, codec: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, np.iinfo(dtype).max, (600, 700, 3)).astype(dtype)
    mask = rng.random((600, 700)) > 0.3
    image[5, 7], mask[5, 7] = 0, True
    path = tmp_path / "a.tif"
    write_cog(path, image, mask, GRID, tags={"GOSSAN_DEM": "abc"}, codec=codec)  # type: ignore[arg-type]
    with rasterio.open(path) as raster:
        assert (np.moveaxis(raster.read(), 0, -1) == image).all()
        assert ((raster.dataset_mask() > 0) == mask).all()
        assert raster.crs.to_epsg() == 32632
        assert raster.transform == GRID.transform
        assert raster.tags()["GOSSAN_DEM"] == "abc"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.colorinterp[0].name == "red"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_grey_and_float(tmp_path: Path) -> None:
    sigma = np.linspace(0, 1, 600 * 700, dtype=np.float32).reshape(600, 700)
    write_cog(tmp_path / "s.tif", sigma, None, GRID, band_names=("sigma",))
    with rasterio.open(tmp_path / "s.tif") as raster:
        assert raster.count == 1
        assert raster.descriptions == ("sigma",)
        assert (raster.read(1) == sigma).all()


def test_has_overviews_only_if_asked(tmp_path: Path) -> None:
    image = np.zeros((600, 700, 3), np.uint8)
    write_cog(tmp_path / "with.tif", image, None, GRID)
    write_cog(tmp_path / "without.tif", image, None, GRID, overviews=False)
    with rasterio.open(tmp_path / "with.tif") as raster:
        assert raster.overviews(1)
    with rasterio.open(tmp_path / "without.tif") as raster:
        assert not raster.overviews(1)


def test_disk_that_refuses_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="cannot write"):
        write_cog(tmp_path / "no" / "a.tif", np.zeros((600, 700), np.uint8), None, GRID)
