"""What the map page reads of a fused project: layers, summary and notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from calibration.geodesy import MapFrame
from groundsync.catalogue import Catalogue
from groundsync.export.files import replace_file
from groundsync.export.geojson import collection
from groundsync.export.rows import sheets
from groundsync.view import ProjectView
from onboard.keep.read import FlightReader

LAYERS = "layers"


def publish(view: ProjectView, project: Path, catalogue: Catalogue) -> None:
    """Writes the layers of a view into the project and its summary into the catalogue."""
    for sheet in sheets(view):
        layer = collection(view, sheet)
        if sheet.name == "targets":
            _add_chips(layer, project)
        _write(project, sheet.name, layer)
    _write(project, "plan", _plan_layer(view))
    catalogue.put_document("summary", summary(view, project))


def summary(view: ProjectView, project: Path) -> dict[str, Any]:
    """Returns name, one line, notes, alerts and bounds of a project, with JSON's types only."""
    frames = sum(f.frames for f in view.flights)
    area_km2 = sum(f.covered_km2 for f in view.flights)
    shares = [f.covered_share for f in view.flights if f.covered_share is not None]
    covered = f", {100 * min(shares):.0f} % of the plan" if shares else ""
    plural = "" if len(view.flights) == 1 else "s"
    return {
        "name": view.name,
        "summary": f"{len(view.flights)} flight{plural}, {frames} frames, {area_km2:.2f} km² imaged"
        f"{covered}, {len(view.targets)} targets",
        "notes": [*view.notes, *_honesty(view)],
        "alerts": _alerts(view, project),
        "bounds": _bounds(view),
    }


def _honesty(view: ProjectView) -> list[str]:
    notes = []
    if any(not one.target.calibrated for one in view.targets):
        notes.append("Probabilities marked uncalibrated were not checked against held-out ground.")
    if view.belief is not None and view.belief.assumed:
        notes.append("No prior geology: the prior is the same everywhere and assumed.")
    if view.gaps:
        area_m2 = sum(gap.geometry.area for gap in view.gaps)
        notes.append(f"{area_m2:.0f} m² of the plan were not imaged or not scanned.")
    return notes


def _alerts(view: ProjectView, project: Path) -> list[str]:
    texts = []
    for flight in view.flights:
        with FlightReader(project / "flights" / flight.flight_id) as reader:
            texts += [alert.text for alert in reader.alerts() if alert.told is not None]
    return texts


def _bounds(view: ProjectView) -> list[float] | None:
    shapes = [c.geometry for c in view.coverage] + ([view.planned] if view.planned else [])
    if not shapes:
        return None
    left, bottom, right, top = shapely.union_all(shapes).bounds
    lat, lon = MapFrame(view.crs).to_geographic(np.array([left, right]), np.array([bottom, top]))
    return [float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1])]


def _add_chips(layer: dict[str, Any], project: Path) -> None:
    """Adds to each target the addresses of its tracks' thumbnails."""
    chips: dict[str, dict[int, Path]] = {}
    for feature in layer["features"]:
        found = []
        for item in feature["properties"]["evidence"]:
            flight_id = item["flight_id"]
            if flight_id not in chips:
                with FlightReader(project / "flights" / flight_id) as reader:
                    chips[flight_id] = reader.chips()
            if chip := chips[flight_id].get(item["track_id"]):
                found.append(f"chips/{flight_id}/{chip.name}")
        feature["properties"]["chips"] = found


def _plan_layer(view: ProjectView) -> dict[str, Any]:
    features = []
    if view.planned is not None:
        frame = MapFrame(view.crs)

        def to_degrees(xy: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            lat, lon = frame.to_geographic(xy[:, 0], xy[:, 1])
            return np.column_stack([lon, lat])

        outline = shapely.transform(view.planned, to_degrees)
        geometry = json.loads(shapely.to_geojson(outline))
        features.append({"type": "Feature", "geometry": geometry, "properties": {}})
    return {"type": "FeatureCollection", "features": features}


def _write(project: Path, name: str, layer: dict[str, Any]) -> None:
    text = json.dumps(layer, ensure_ascii=False, allow_nan=False)
    replace_file(project / LAYERS / f"{name}.geojson", text.encode())
