"""Writes cloud-optimised GeoTIFFs: lossless, masked, with CRS and provenance."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.windows import Window

from gossan.errors import HardwareError
from onboard.place.grid import Grid
from onboard.records import Bools, Image

Raster = Image | NDArray[np.floating]
Codec = Literal["deflate", "zstd", "lzw", "none"]

LEVELS: dict[str, dict[str, object]] = {
    "deflate": {"compress": "DEFLATE", "level": 1, "predictor": "YES"},
    "zstd": {"compress": "ZSTD", "level": 1, "predictor": "YES"},
    "lzw": {"compress": "LZW", "predictor": "YES"},
    "none": {"compress": "NONE"},
}
STRIP_ROWS = 512


def write_cog(
    path: Path,
    image: Raster,
    mask: Bools | None,
    grid: Grid,
    *,
    tags: Mapping[str, str] | None = None,
    band_names: tuple[str, ...] = (),
    codec: Codec = "deflate",
    overviews: bool = True,
) -> None:
    """Writes an image as a COG; the file appears whole under its name or not at all.

    Args:
        path: The file to write.
        image: (h, w, bands) or (h, w); values stay exactly as they are.
        mask: (h, w) True where valid, kept as the file's internal mask; ``None`` if all is.
        grid: Where the pixels lie.
        tags: Provenance, written as metadata items.
        band_names: Descriptions of the bands.
        codec: Lossless codec.
        overviews: Whether smaller copies for fast viewing go into the file.

    Raises:
        HardwareError: The disk refuses.
    """
    bands = image[..., None] if image.ndim == 2 else image
    profile = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": bands.shape[2],
        "dtype": bands.dtype.name,
        "crs": rasterio.CRS.from_wkt(grid.crs.to_wkt()),
        "transform": grid.transform,
        "interleave": "pixel",
        "BIGTIFF": "IF_SAFER",
    }
    if np.issubdtype(bands.dtype, np.floating):
        profile["nodata"] = float("nan")
    part = path.with_name(f".{path.name}.part")
    try:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
            with memory.open(**profile) as raster:
                _fill(raster, bands, mask)
                _describe(raster, bands.shape[2], tags or {}, band_names)
            with memory.open() as raster:
                rasterio.shutil.copy(raster, part, driver="COG", **_options(codec, overviews))
        _settle(part, path)
    except (rasterio.errors.RasterioError, CPLE_BaseError, OSError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise HardwareError(f"cannot write {path}: {error}", "check the disk's space") from error


def _options(codec: Codec, overviews: bool) -> dict[str, object]:
    return {
        **LEVELS[codec],
        "blocksize": 512,
        "overviews": "AUTO" if overviews else "NONE",
        "overview_resampling": "AVERAGE",
        "num_threads": "ALL_CPUS",
        "bigtiff": "IF_SAFER",
    }


def _fill(raster: rasterio.io.DatasetWriter, bands: Raster, mask: Bools | None) -> None:
    """Writes pixels and mask in strips, so that no second copy of the image stands in memory."""
    for first in range(0, bands.shape[0], STRIP_ROWS):
        rows = bands[first : first + STRIP_ROWS]
        window = Window(0, first, bands.shape[1], len(rows))
        raster.write(np.moveaxis(rows, -1, 0), window=window)
        if mask is not None:
            raster.write_mask(mask[first : first + STRIP_ROWS], window=window)


def _describe(
    raster: rasterio.io.DatasetWriter,
    count: int,
    tags: Mapping[str, str],
    band_names: tuple[str, ...],
) -> None:
    raster.update_tags(AREA_OR_POINT="Area", **tags)
    for i, name in enumerate(band_names[:count]):
        raster.set_band_description(i + 1, name)
    if count >= 3:
        rgb = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        raster.colorinterp = rgb + [ColorInterp.undefined] * (count - 3)


def _settle(part: Path, path: Path) -> None:
    """Brings a finished file durably under its name."""
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(path)
