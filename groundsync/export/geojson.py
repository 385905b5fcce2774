"""GeoJSON (RFC 7946): WGS84, longitude first, outer rings counterclockwise; one file per layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from calibration.geodesy import MapFrame
from gossan.console import plain
from groundsync.export.files import replace_file
from groundsync.export.rows import Sheet, sheets, target_properties
from groundsync.view import ProjectView

DECIMALS = 8
"""About a millimetre."""


def write_geojson(view: ProjectView, folder: Path) -> list[Path]:
    """Writes one GeoJSON file per layer into a folder and returns their paths.

    Raises:
        ExportError: The folder cannot be written to.
    """
    written = []
    for sheet in sheets(view):
        path = folder / f"{sheet.name}.geojson"
        text = json.dumps(collection(view, sheet), ensure_ascii=False, allow_nan=False, indent=1)
        replace_file(path, f"{text}\n".encode())
        written.append(path)
    return written


def collection(view: ProjectView, sheet: Sheet) -> dict[str, Any]:
    """Returns a layer as a GeoJSON FeatureCollection."""
    map_frame = MapFrame(view.crs)
    names = [name for name, _ in sheet.columns]
    properties = (
        [target_properties(one) for one in view.targets]
        if sheet.name == "targets"
        else [dict(zip(names, row, strict=True)) for row in sheet.rows]
    )
    features = [
        {"type": "Feature", "geometry": _geometry(shape, map_frame), "properties": plain(fields)}
        for shape, fields in zip(sheet.shapes, properties, strict=True)
    ]
    return {"type": "FeatureCollection", "name": sheet.name, "features": features}


def _geometry(shape: BaseGeometry, map_frame: MapFrame) -> dict[str, Any]:
    """Returns a geometry in degrees, rings turned as RFC 7946 wants them."""
    there = shapely.transform(shape, _to_degrees(map_frame))
    if not there.is_valid:  # slivers that rounding turned over; what is left of them is kept
        there = shapely.make_valid(there, method="structure", keep_collapsed=False)
    if there.geom_type == "Polygon":
        there = orient(there)
    elif there.geom_type == "MultiPolygon":
        there = shapely.MultiPolygon([orient(part) for part in there.geoms])
    geometry: dict[str, Any] = mapping(there)
    return geometry


def _to_degrees(map_frame: MapFrame) -> Callable[[Any], Any]:
    def turn(xy: Any) -> Any:
        lat, lon = map_frame.to_geographic(xy[:, 0], xy[:, 1])
        return np.round(np.column_stack([lon, lat]), DECIMALS)

    return turn
