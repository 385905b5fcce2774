"""What a flight leaves for other programs at landing: ``poses.csv`` and ``coverage.geojson``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from pyproj import CRS, Transformer

from onboard.keep.files import TEMP_SUFFIX, write_durably
from onboard.keep.flight import COVERAGE, POSES
from onboard.keep.read import FlightReader
from onboard.records import Floats, Footprint


def write_pose_table(folder: Path) -> bool:
    """Writes ``poses.csv`` from the database; returns whether there was a pose to write."""
    from onboard.sources.pose_table import write_poses  # the table's format is the sources' own

    with FlightReader(folder) as flight:
        poses = flight.poses()
    if not len(poses):
        return False
    temp = folder / f"{POSES}{TEMP_SUFFIX}"
    write_poses(temp, poses)
    content = temp.read_bytes()
    temp.unlink()
    write_durably(folder / POSES, content)
    return True


def write_coverage(folder: Path, content: bytes | None = None) -> bool:
    """Writes ``coverage.geojson``: the one given, else one polygon per imaged frame.

    Returns:
        Whether there was something to write.
    """
    if content is None:
        with FlightReader(folder) as flight:
            footprints, crs_wkt = flight.footprints(), flight.header.crs_wkt
        if not footprints or not crs_wkt:
            return False
        content = coverage_geojson(footprints, crs_wkt)
    write_durably(folder / COVERAGE, content)
    return True


def coverage_geojson(footprints: list[Footprint], crs_wkt: str) -> bytes:
    """Returns the footprints as GeoJSON (RFC 7946: WGS84 longitude, latitude)."""
    to_degrees = Transformer.from_crs(CRS.from_wkt(crs_wkt), CRS.from_epsg(4326), always_xy=True)
    features = [_feature(item, to_degrees) for item in footprints if len(item.polygon_map_m) >= 3]
    stream = io.StringIO()
    json.dump({"type": "FeatureCollection", "features": features}, stream, allow_nan=False)
    return stream.getvalue().encode()


def _feature(item: Footprint, to_degrees: Transformer) -> dict[str, Any]:
    rings = [_ring(ring, to_degrees) for ring in (item.polygon_map_m, *item.holes_map_m)]
    gsd = item.gsd_m if item.gsd_m == item.gsd_m else None
    return {
        "type": "Feature",
        "properties": {
            "frame": item.frame,
            "gsd_m": gsd,
            "quality": item.quality,
            "scanned": item.scanned,
        },
        "geometry": {"type": "Polygon", "coordinates": rings},
    }


def _ring(ring_map_m: Floats, to_degrees: Transformer) -> list[list[float]]:
    lon, lat = to_degrees.transform(ring_map_m[:, 0], ring_map_m[:, 1])
    points = [[round(x, 8), round(y, 8)] for x, y in zip(lon.tolist(), lat.tolist(), strict=True)]
    return points if points[0] == points[-1] else [*points, points[0]]
