"""The pictures that the map shows: a mosaic per flight, and the prior."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS

from calibration.geodesy import MapFrame
from calibration.rig import load_rig
from gossan.errors import GossanError
from groundsync.catalogue import Catalogue, FlightRow, PictureRow
from groundsync.mosaic import Mosaic, Tile, lay_together, mosaic_grid
from groundsync.settings import ProjectSettings
from onboard.keep.flight import RIG
from onboard.keep.read import FlightReader
from onboard.place.grid import Grid
from onboard.place.ortho import orthorectify
from onboard.place.terrain import open_dem
from onboard.records import Footprint, FrameRecord
from onboard.sources.pixels import read_image

log = logging.getLogger(__name__)

PRIOR = "prior"


def draw_mosaics(
    flights: Sequence[FlightRow], project: Path, settings: ProjectSettings, catalogue: Catalogue
) -> list[str]:
    """Draws the mosaics that are missing and returns what could not be drawn, and why.

    Args:
        flights: The flights to draw.
        project: The project folder.
        settings: Its settings; mosaics drape on their DEM.
        catalogue: Gets a picture per flight.
    """
    if not settings.mosaic.make:
        return []
    known = {row.picture_id for row in catalogue.pictures()}
    notes = []
    for flight in flights:
        picture_id = f"mosaic-{flight.flight_id}-{flight.content_sha256[:8]}"
        if picture_id in known:
            continue
        try:
            notes += _draw(flight, picture_id, project, settings, catalogue)
        except GossanError as error:
            notes.append(f"{flight.flight_id}: no mosaic: {error}")
    return notes


def _draw(
    flight: FlightRow,
    picture_id: str,
    project: Path,
    settings: ProjectSettings,
    catalogue: Catalogue,
) -> list[str]:
    from onboard.write_cog import write_cog

    if settings.terrain.dem is None:
        return [f"{flight.flight_id}: no mosaic: project.toml names no [terrain] dem"]
    with FlightReader(project / flight.folder) as reader:
        footprints = {f.frame: f for f in reader.footprints() if len(f.polygon_map_m) >= 3}
        records = [r for r in reader.frames() if r.kept_path and r.frame.name in footprints]
    if not records:
        return [f"{flight.flight_id}: no mosaic: no kept frame was placed"]
    corners = np.concatenate([footprints[r.frame.name].polygon_map_m for r in records])
    (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
    crs = CRS.from_wkt(flight.crs_wkt)
    grid = mosaic_grid(crs, (left, bottom, right, top), settings.mosaic.gsd_m)
    folder = project / flight.folder
    mosaic = lay_together(_tiles(records, footprints, folder, settings, grid), grid)
    png, cog = Path("pictures") / f"{picture_id}.png", Path("pictures") / f"{picture_id}.tif"
    mosaic.write_png(project / png)
    write_cog(project / cog, mosaic.image, mosaic.mask, mosaic.grid)
    label = f"Mosaic of {flight.flight_id}"
    catalogue.put_picture(
        PictureRow(picture_id, label, str(png), str(cog), mosaic.corners_lon_lat())
    )
    return []


def _tiles(
    records: Sequence[FrameRecord],
    footprints: dict[str, Footprint],
    folder: Path,
    settings: ProjectSettings,
    grid: Grid,
) -> Iterator[Tile]:
    """Yields the orthos of kept frames on grids aligned with the mosaic's."""
    assert settings.terrain.dem is not None  # noqa: S101
    rig = load_rig(folder / RIG)
    map_frame = MapFrame(grid.crs)
    terrain = open_dem(
        settings.terrain.dem, map_frame, settings.terrain.datum, settings.terrain.sigma_m
    )
    for record in records:
        if record.pose is None:
            continue
        try:
            pixels = read_image(folder / record.kept_path)
        except GossanError as error:
            log.warning("frame_unreadable frame=%s %s", record.frame.name, error)
            continue
        outline = footprints[record.frame.name].polygon_map_m
        tile_grid = Grid.from_footprint(grid.crs, outline, grid.gsd_m)
        ortho = orthorectify(
            pixels, record.pose, rig, terrain, map_frame, tile_grid, antialias=True
        )
        yield Tile(np.asarray(ortho.image[..., :3], np.uint8), ortho.mask, tile_grid)


def draw_prior(posterior: Path, project: Path, catalogue: Catalogue) -> None:
    """Draws the prior map's first band, logarithmic from dark to bright, for the map page.

    Args:
        posterior: A GeoTIFF of probabilities in a projected CRS.
        project: The project folder.
        catalogue: Gets the picture.
    """
    with rasterio.open(posterior) as raster:
        probability = raster.read(1, masked=True).filled(np.nan)
        crs = CRS.from_user_input(raster.crs.to_wkt())
        a = raster.transform
        grid = Grid(
            crs, a.c + a.a / 2, a.f + a.e / 2, abs(a.a), probability.shape[1], probability.shape[0]
        )
    seen = np.isfinite(probability) & (probability > 0)
    low, high = np.percentile(probability[seen], [2, 98]) if seen.any() else (0.0, 1.0)
    label = f"Prior probability, {low:.2g} (dark) to {high:.2g} (bright)"
    picture = Mosaic(_shade(probability, seen), seen, grid)
    png = Path("pictures") / "prior.png"
    picture.write_png(project / png)
    catalogue.put_picture(
        PictureRow(PRIOR, label, str(png), str(posterior), picture.corners_lon_lat())
    )


def _shade(probability: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns (h, w, 3) RGB of the logarithm between its 2nd and 98th percentiles."""
    log_p = np.log(np.where(seen, probability, 1.0))
    low, high = np.percentile(log_p[seen], [2, 98]) if seen.any() else (0.0, 1.0)
    level = np.clip((log_p - low) / max(high - low, 1e-9), 0, 1)
    bgr = cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_CIVIDIS)
    return np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)
